package order_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/order"
	"platformctl/pkg/postgres/postgrestest"

	"pgregory.net/rapid"
)

// postWith posts an order with idempotency keys, of which there should be one.
func (s *service) postWith(t testing.TB, body string, keys ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/orders", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header["Idempotency-Key"] = keys
	a, err := http.DefaultClient.Do(r)
	return read(t, a, err)
}

// insist posts again while the service says that it is busy, as a client should, and a test on a busy machine must.
func (s *service) insist(t testing.TB, body, key string) (a answer) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if a = s.postWith(t, body, key); a.code != http.StatusServiceUnavailable {
			break
		}
	}
	return a
}

const (
	keyReused = `422 {"error":"idempotency_key_reused","message":"this Idempotency-Key was sent with another order"}`
	badKey    = `400 {"error":"invalid_request","message":"Idempotency-Key must be one value of 1 to 255 printable ASCII characters"}`
)

func TestARequestSentAgainIsNotASecondOrder(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	long := strings.Repeat("k", 255)
	for _, c := range []struct{ key, body, want string }{
		{"a", `{"userId":1,"showId":3,"quantity":100}`, `202 {"status":"accepted","orderId":1}`},
		{"a", `{"userId":1,"showId":3,"quantity":100}`, `202 {"status":"accepted","orderId":1}`}, // though no 100 seats are left
		{"a", `{ "quantity":100, "showId":3, "userId":1, "note":"written in another way" }`, `202 {"status":"accepted","orderId":1}`},
		{"a", `{"userId":1,"showId":3,"quantity":1}`, keyReused},
		{"a", `{"userId":1,"showId":1,"quantity":100}`, keyReused},
		{"a", `{"userId":"1","showId":3,"quantity":100}`, keyReused},
		{"a", `{"userId":1,"showId":99,"quantity":100}`, keyReused},
		{"a", `{"userId":1,"showId":3,"quantity":0}`, `400 {"error":"invalid_request","message":"quantity must be an integer from 1 to 1000000, not 0"}`},
		// A refusal is not kept: what is asked again may fit by then.
		{"b", `{"userId":1,"showId":3,"quantity":21}`, `409 {"error":"not_enough_stock","available":20}`},
		{"b", `{"userId":1,"showId":3,"quantity":20}`, `202 {"status":"accepted","orderId":2}`},
		{"c", `{"userId":1,"showId":99,"quantity":1}`, `404 {"error":"show_not_found"}`},
		{"c", `{"userId":1,"showId":1,"quantity":1}`, `202 {"status":"accepted","orderId":3}`},
		{long, like, `202 {"status":"accepted","orderId":4}`},
		{long, like, `202 {"status":"accepted","orderId":4}`},
		{`"8e03978e-40d5-43dd-bc93-6894a57f9324"; a=1`, like, `202 {"status":"accepted","orderId":5}`},
		{long + "k", like, badKey},
		{"", like, badKey},
		{"a\xff", like, badKey},
		{"a\tb", like, badKey},
	} {
		if a := s.postWith(t, c.body, c.key); a.String() != c.want {
			t.Errorf("%.20q %s\ngot  %s\nwant %s", c.key, c.body, a, c.want)
		}
	}
	if a := s.postWith(t, like, "x", "y"); a.String() != badKey {
		t.Errorf("two keys: %s", a)
	}
	if n, keys := orders(t, s), number(t, s.db, `SELECT count(*) FROM order_keys`); n != 5 || keys != 5 {
		t.Errorf("%d orders and %d keys are in the tables", n, keys)
	}
	counted(t, s.db)
}

// However many send the same order with the same key at once, to whichever replica, there is one order, and all are told its id.
func TestOneKeyAtOnceIsOneOrder(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	replicas := []*service{newService(t, db, "", options{noRelay: true}), newService(t, db, "", options{noRelay: true})}
	const rounds, clients = 12, 16
	for round := range rounds {
		answers := make([]answer, clients)
		var posting sync.WaitGroup
		for i := range clients {
			posting.Go(func() { answers[i] = replicas[i%2].insist(t, like, fmt.Sprint("round ", round)) })
		}
		posting.Wait()
		for _, a := range answers {
			if id := answers[0].accepted(t); a.accepted(t) != id {
				t.Errorf("%s and %s", answers[0], a)
			}
		}
	}
	if n := number(t, db, `SELECT count(*) FROM orders`); n != rounds {
		t.Errorf("%d orders of %d keys", n, rounds)
	}
	counted(t, db)
}

// A key that is sent with orders for two shows at once, which share no lock and no batcher, stands for one of them.
func TestOneKeyAtOnceWithTwoOrders(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	replicas := []*service{newService(t, db, "", options{noRelay: true}), newService(t, db, "", options{noRelay: true})}
	const rounds, clients = 12, 8
	for round := range rounds {
		answers := make([]answer, clients)
		var posting sync.WaitGroup
		for i := range clients {
			posting.Go(func() {
				answers[i] = replicas[i/2%2].insist(t, fmt.Sprintf(`{"userId":123,"showId":%d,"quantity":1}`, 1+i%2), fmt.Sprint("round ", round))
			})
		}
		posting.Wait()
		codes := map[int]int{}
		for _, a := range answers {
			codes[a.code]++
		}
		if codes[http.StatusAccepted] != clients/2 || codes[http.StatusUnprocessableEntity] != clients/2 {
			t.Errorf("%v", answers)
		}
	}
	if n := number(t, db, `SELECT count(*) FROM orders`); n != rounds {
		t.Errorf("%d orders of %d keys", n, rounds)
	}
	counted(t, db)
}

// Requests with one key that meet in one batch are one order.
func TestOneKeyInOneBatch(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.database.Away()
	first := make(chan answer, 1)
	go func() { first <- s.post(t, like) }() // its batch waits for the database
	until(t, "the first one's batch", func() bool { return s.notes.have("a batch of orders is tried again") })
	answers := make(chan answer, 10)
	var posting sync.WaitGroup
	for range 10 {
		posting.Go(func() { answers <- s.postWith(t, like, "the key") })
	}
	until(t, "all to wait", func() bool { return s.intake.Waiting() == 10 })
	s.database.Back()
	(<-first).accepted(t)
	posting.Wait()
	id := (<-answers).accepted(t)
	for range 9 {
		if a := <-answers; a.accepted(t) != id {
			t.Errorf("%s is not order %d", a, id)
		}
	}
	if n := orders(t, s); n != 2 {
		t.Errorf("%d orders are in the table", n)
	}
}

// Of two orders that meet in one batch under one key the second is no misuse of it where the first was refused: nothing has the key.
func TestTwoOrdersOfOneKeyInOneBatch(t *testing.T) {
	t.Parallel()
	for quantity, want := range map[int]string{121: "409 503", 120: "202 422"} { // of 120 seats
		s := newService(t, postgrestest.New(t), "", options{noRelay: true})
		s.database.Away()
		before := make(chan answer, 1)
		go func() { before <- s.post(t, `{"userId":1,"showId":1,"quantity":1}`) }() // of the same batcher; it waits for the database
		until(t, "the batch before", func() bool { return s.notes.have("a batch of orders is tried again") })
		answers := make(chan answer, 1)
		go func() {
			answers <- s.postWith(t, fmt.Sprintf(`{"userId":1,"showId":3,"quantity":%d}`, quantity), "the key")
		}()
		until(t, "the first to wait", func() bool { return s.intake.Waiting() == 1 })
		second := make(chan answer, 1)
		go func() { second <- s.postWith(t, `{"userId":1,"showId":3,"quantity":1}`, "the key") }()
		until(t, "the second to wait", func() bool { return s.intake.Waiting() == 2 })
		s.database.Back()
		(<-before).accepted(t)
		if got := fmt.Sprint((<-answers).code, (<-second).code); got != want {
			t.Errorf("%d seats: %s, want %s", quantity, got, want)
		}
	}
}

// The answer to a COMMIT is lost: the same batch is tried again, and the key stands for its first try.
func TestALostAnswerToAKey(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.postWith(t, like, "first").accepted(t)
	s.database.CutAnswer()
	if id := s.postWith(t, like, "second").accepted(t); id != 2 {
		t.Errorf("order 2 is number %d", id)
	}
	for key, want := range map[string]int32{"first": 1, "second": 2} {
		s.post(t, like).accepted(t) // connected
		s.database.CutAnswer()
		if id := s.postWith(t, like, key).accepted(t); id != want {
			t.Errorf("%s is order %d", key, id)
		}
		s.database.CutAnswer()
		if a := s.postWith(t, `{"userId":1,"showId":1,"quantity":2}`, key); a.String() != keyReused {
			t.Errorf("%s", a)
		}
	}
	if n := orders(t, s); n != 4 {
		t.Errorf("%d orders are in the table", n)
	}
	counted(t, s.db)
}

// Keys in the database against a plain map, batch after batch, each of them also sent again as after a lost answer.
func TestKeysAreDecidedWithTheirBatch(t *testing.T) {
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	type known struct {
		id, show, quantity int32
	}
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		run++
		var show int32
		if err := s.db.Pool.QueryRow(ctx, `INSERT INTO shows (name, venue, starts_at, capacity) VALUES ('s', 'v', now(), 9) RETURNING id`).Scan(&show); err != nil {
			rt.Fatal(err)
		}
		free := int32(9)
		keys := map[string]known{}
		for range rapid.IntRange(1, 4).Draw(rt, "batches") {
			n := rapid.IntRange(1, 6).Draw(rt, "batch")
			ids, err := s.store.ReserveIDs(ctx, n)
			if err != nil {
				rt.Fatal(err)
			}
			shuffled := rapid.Permutation([]string{"a", "b", "c", "d", "e", "f"}).Draw(rt, "keys")
			requests, want := make([]order.Request, n), make([]string, n)
			for i := range requests {
				r := order.Request{ID: ids[i], User: contract.UserID("1"), Show: rapid.SampledFrom([]int32{show, show, 2_000_000_000}).Draw(rt, "show"),
					Quantity: rapid.Int32Range(1, 3).Draw(rt, "quantity"), CreatedAt: time.Now()}
				if rapid.Bool().Draw(rt, "keyed") {
					r.Key = fmt.Sprint(shuffled[i], run)
				}
				before, there := keys[r.Key]
				switch {
				case r.Key != "" && there && before.show == r.Show && before.quantity == r.Quantity:
					want[i] = fmt.Sprint("accepted before as ", before.id)
				case r.Key != "" && there:
					want[i] = "reused"
				case r.Show != show:
					want[i] = "no show"
				case r.Quantity > free:
					want[i] = "refused"
				default:
					free -= r.Quantity
					want[i] = "accepted"
					if r.Key != "" {
						keys[r.Key] = known{r.ID, r.Show, r.Quantity}
					}
				}
				requests[i] = r
			}
			committed := false
			for _, repeated := range []bool{false, true} {
				if repeated && !committed {
					continue // what only refused may refuse anew
				}
				outcomes, err := s.store.Accept(ctx, requests, repeated)
				if err != nil {
					rt.Fatal(err)
				}
				for i, o := range outcomes {
					got := "refused"
					switch {
					case o.KeyReused && !o.Accepted:
						got = "reused"
					case o.Accepted && o.ID != requests[i].ID && o.Event.ID == 0:
						got = fmt.Sprint("accepted before as ", o.ID)
					case o.Accepted && o.Event.ID != 0:
						got, committed = "accepted", true
					case o.NoShow && !o.Accepted:
						got = "no show"
					}
					if got != want[i] {
						rt.Fatalf("order %d %+v, repeated %t: %s, want %s", i, requests[i], repeated, got, want[i])
					}
				}
			}
		}
		counted(t, s.db)
	})
}

func TestOldKeysAreForgotten(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.postWith(t, like, "fresh").accepted(t)
	if _, err := s.db.Pool.Exec(t.Context(), `
		INSERT INTO order_keys (key, order_id, request_hash, created_at)
		SELECT 'old ' || i, i, '', now() - interval '24 hours 1 second' FROM generate_series(1, 1201) i`); err != nil {
		t.Fatal(err)
	}
	until(t, "the old keys to go", func() bool { return number(t, s.db, `SELECT count(*) FROM order_keys WHERE key LIKE 'old %'`) == 0 })
	if id := s.postWith(t, like, "fresh").accepted(t); id != 1 {
		t.Errorf("a fresh key was forgotten: order %d", id)
	}
	s.postWith(t, like, "old 1").accepted(t)
}

// A pod of the version before, which reckons nothing by itself, goes on while the new ones come.
func TestTheVersionBeforeGoesOn(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	ids, err := s.store.ReserveIDs(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	var accepted []bool
	var available int
	if err := s.store.DB.QueryRow(t.Context(), `
		SELECT array_agg(accepted), min(available)
		FROM accept_orders($1, '{u,v}', '{3,3}', '{100,21}', '{x,y}', '{}', '{}', '1 h', 'relay', '10 s', 'pod', false)`,
		ids).Scan(&accepted, &available); err != nil || fmt.Sprint(accepted) != "[true false]" || available != 20 {
		t.Errorf("%t %d %v", accepted, available, err)
	}
	counted(t, s.db)
}
