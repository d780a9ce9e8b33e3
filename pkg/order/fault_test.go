package order_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/order"
	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit/rabbittest"

	amqp "github.com/rabbitmq/amqp091-go"
)

const like = `{"userId":123,"showId":1,"quantity":1}`

// An old payment service beside ours: it declares the same queues, before us and after us, and its bodies settle orders.
func TestOrdersEndWithAnOldPaymentService(t *testing.T) {
	t.Parallel()
	vhost := rabbittest.Platform(t)
	channel := rabbittest.Channel(t, vhost)
	declare := func() {
		t.Helper()
		args := amqp.Table{"x-dead-letter-exchange": "dlx.direct", "x-dead-letter-routing-key": "events.dlq"}
		for _, q := range []string{"payment.order-created.q", "order.payment-results.q"} {
			if _, err := channel.QueueDeclare(q, true, false, false, false, args); err != nil {
				t.Fatalf("an old service's declare was refused: %v", err)
			}
		}
		if err := channel.ExchangeDeclare("events.topic", "topic", true, false, false, false, nil); err != nil {
			t.Fatalf("an old service's declare was refused: %v", err)
		}
		if err := channel.ExchangeDeclare("dlx.direct", "direct", true, false, false, false, nil); err != nil {
			t.Fatalf("an old service's declare was refused: %v", err)
		}
	}
	declare()
	s := newService(t, postgrestest.New(t), vhost, options{})
	until(t, "both sessions", func() bool { return s.publisher.Err() == nil && s.subs.Err() == nil })
	declare()
	oldPaymentService(t, vhost, func(id int32) bool { return id%3 != 0 })
	var ids []int32
	for range 30 {
		ids = append(ids, s.post(t, like).accepted(t))
	}
	for _, id := range ids {
		v := s.ended(t, id)
		want := order.Confirmed
		if id%3 == 0 {
			want = order.Cancelled
		}
		if v.Status != want {
			t.Errorf("order %d is %s", id, v.Status)
		}
	}
	until(t, "an empty outbox", func() bool { return number(t, s.db, `SELECT count(*) FROM outbox`) == 0 })
	counted(t, s.db)
}

// Old and new order-api sell beside each other, and old payment services, of which one writes ids as numbers and one as
// strings, are killed and replaced while orders flow: every order ends once, whoever took it.
func TestOldServicesAreReplacedWhileOrdersFlow(t *testing.T) {
	t.Parallel()
	vhost := rabbittest.Platform(t)
	s := newService(t, postgrestest.New(t), vhost, options{})
	paid := func(id int32) bool { return id%3 != 0 }
	kill := oldPaymentServiceWith(t, vhost, `%d`, paid)
	oldPaymentServiceWith(t, vhost, `"%d"`, paid)
	channel := rabbittest.Channel(t, vhost)
	var ids []int32
	for i := range 120 {
		ids = append(ids, s.insist(t, like, "order "+fmt.Sprint(i)).accepted(t), oldOrder(t, s.db, channel, []string{`%d`, `"%d"`}[i%2]))
		if i%30 == 29 {
			kill()
			kill = oldPaymentServiceWith(t, vhost, `%d`, paid)
		}
	}
	for _, id := range ids {
		s.ended(t, id)
		want := state{"CANCELLED", "RELEASED", false}
		if paid(id) {
			want = state{"CONFIRMED", "COMMITTED", false}
		}
		if got := stateOf(t, s.db, id); got != want {
			t.Errorf("order %d is %+v, not %+v", id, got, want)
		}
	}
	if n := number(t, s.db, `SELECT count(*) FROM order_events WHERE hop IN ('confirmed', 'cancelled')`); n != len(ids) {
		t.Errorf("%d ends of %d orders", n, len(ids))
	}
	if q, err := channel.QueueDeclarePassive(contract.QueueDeadLetters, true, false, false, false, nil); err != nil || q.Messages != 0 {
		t.Errorf("%d dead letters, %v", q.Messages, err)
	}
	counted(t, s.db)
}

// The event on the wire: its properties, and the user's id byte for byte.
func TestWhatIsPublished(t *testing.T) {
	t.Parallel()
	vhost := rabbittest.Platform(t)
	s := newService(t, postgrestest.New(t), vhost, options{})
	until(t, "the relay's session", func() bool { return s.publisher.Err() == nil })
	s.post(t, `{"userId": "a<\u0062>&" ,"showId":1,"quantity":2}`).accepted(t)
	s.post(t, `{"userId":12345678901234567890,"showId":1,"quantity":2}`).accepted(t)
	got := rabbittest.Take(t, rabbittest.Channel(t, vhost), contract.QueueOrderCreated, 2)
	for i, user := range []string{`"a<\u0062>&"`, `12345678901234567890`} {
		d := got[i]
		if d.ContentType != "application/json" || d.DeliveryMode != amqp.Persistent || d.MessageId != fmt.Sprintf("order.created:%d", i+1) ||
			d.CorrelationId != fmt.Sprint(i+1) || time.Since(d.Timestamp) > time.Minute || d.RoutingKey != "order.created" || d.Exchange != "events.topic" {
			t.Errorf("%+v", d)
		}
		if want := fmt.Sprintf(`"type":"order.created","orderId":%d,"userId":%s,"showId":1,"quantity":2,"status":"PENDING","expiresAt":"`, i+1, user); !strings.Contains(string(d.Body), want) {
			t.Errorf("%s\nhas no %s", d.Body, want)
		}
	}
	if n := number(t, s.db, `SELECT count(*) FROM orders WHERE user_id IN ('a<b>&', '12345678901234567890')`); n != 2 {
		t.Errorf("%d users are in the table", n)
	}
}

func TestOrdersAreTakenWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	vhost := rabbittest.Platform(t)
	s := newService(t, postgrestest.New(t), vhost, options{})
	until(t, "the relay's session", func() bool { return s.publisher.Err() == nil })
	s.broker.Away()
	var ids []int32
	for range 50 {
		ids = append(ids, s.post(t, like).accepted(t))
	}
	if n := number(t, s.db, `SELECT count(*) FROM outbox`); n != 50 {
		t.Errorf("%d events wait in the outbox", n)
	}
	oldPaymentService(t, vhost, func(int32) bool { return true })
	s.broker.Back()
	for _, id := range ids {
		if v := s.ended(t, id); v.Status != order.Confirmed {
			t.Errorf("order %d is %s", id, v.Status)
		}
	}
}

// While connections are cut again and again, every order that was accepted ends, once.
func TestNothingIsLostOrDoubledUnderCuts(t *testing.T) {
	t.Parallel()
	vhost := rabbittest.Platform(t)
	s := newService(t, postgrestest.New(t), vhost, options{})
	oldPaymentService(t, vhost, func(id int32) bool { return id%2 == 0 })
	if _, err := s.db.Pool.Exec(t.Context(), `UPDATE shows SET capacity = 1000000`); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var ids []int32
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				switch a := s.post(t, like); a.code {
				case http.StatusAccepted:
					id := a.accepted(t)
					mu.Lock()
					ids = append(ids, id)
					mu.Unlock()
					s.get(t, fmt.Sprintf("/orders/%d?wait=1s", id)) // so that not everything waits for the old service
				case http.StatusServiceUnavailable: // who asks again at once takes the CPU from those who connect
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
					}
				default:
					t.Errorf("%s", a)
					return
				}
			}
		})
	}
	for i := range 6 {
		before := number(t, s.db, `SELECT count(*) FROM orders WHERE status <> 'PENDING'`)
		until(t, "orders that end", func() bool {
			return number(t, s.db, `SELECT count(*) FROM orders WHERE status <> 'PENDING'`) > before+20
		})
		s.broker.Cut()
		if i%3 == 0 {
			s.database.Cut()
		}
	}
	close(stop)
	clients.Wait()
	seen := map[int32]bool{}
	for _, id := range ids {
		if seen[id] {
			t.Errorf("two clients were given order %d", id)
		}
		seen[id] = true
	}
	expireLeases(t, s)
	until(t, "all orders' ends", func() bool { return number(t, s.db, `SELECT count(*) FROM orders WHERE status = 'PENDING'`) == 0 })
	for _, id := range ids {
		want := state{"CANCELLED", "RELEASED", false}
		if id%2 == 0 {
			want = state{"CONFIRMED", "COMMITTED", false}
		}
		if got := stateOf(t, s.db, id); got != want {
			t.Errorf("order %d is %+v", id, got)
		}
	}
	if ends, orders := number(t, s.db, `SELECT count(*) FROM order_events WHERE hop IN ('confirmed', 'cancelled')`), orders(t, s); ends != orders {
		t.Errorf("%d ends of %d orders", ends, orders)
	}
	counted(t, s.db)
}

// expireLeases lets the sweep find at once what it would find some seconds later.
func expireLeases(t *testing.T, s *service) {
	t.Helper()
	if _, err := s.db.Pool.Exec(t.Context(), `UPDATE outbox SET lease_until = now() - interval '1 second'`); err != nil {
		t.Fatal(err)
	}
}

// A process that dies between COMMIT and publish leaves the event to any other.
func TestACrashBetweenCommitAndPublish(t *testing.T) {
	t.Parallel()
	db, vhost := postgrestest.New(t), rabbittest.Platform(t)
	dead := newService(t, db, "", options{noRelay: true}) // commits, and hands its events to a relay that never runs
	id := dead.post(t, like).accepted(t)
	dead.stop()
	s := newService(t, db, vhost, options{})
	expireLeases(t, s)
	oldPaymentService(t, vhost, func(int32) bool { return true })
	if v := s.ended(t, id); v.Status != order.Confirmed {
		t.Errorf("%+v", v)
	}
}

func TestTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	vhost := rabbittest.Platform(t)
	s := newService(t, postgrestest.New(t), vhost, options{deadline: time.Second})
	waiting := s.insist(t, like, "first").accepted(t)
	until(t, "the consumer's session", func() bool { return s.subs.Err() == nil })
	s.database.Away()
	for _, path := range []string{"/orders/1", "/shows"} {
		if a := s.get(t, path); a.code != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `"error":"unavailable"`) {
			t.Errorf("%s: %s", path, a)
		}
	}
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() {
			began := time.Now()
			if a := s.post(t, like); a.code != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `"error":"unavailable"`) {
				t.Errorf("%s", a)
			}
			if d := time.Since(began); d > 10*time.Second {
				t.Errorf("the answer came after %s", d)
			}
		})
	}
	// A result that comes meanwhile is kept, and not dead-lettered.
	channel := rabbittest.Channel(t, vhost)
	send(t, channel, contract.KeyPaymentSucceeded, result(waiting, true))
	clients.Wait()
	s.database.Back()
	if v := s.ended(t, waiting); v.Status != order.Confirmed {
		t.Errorf("%+v", v)
	}
	until(t, "orders are taken again", func() bool { return s.post(t, like).code == http.StatusAccepted })
	if q, err := channel.QueueDeclarePassive(contract.QueueDeadLetters, true, false, false, false, nil); err != nil || q.Messages != 0 {
		t.Errorf("%d dead letters, %v", q.Messages, err)
	}
	counted(t, s.db)
}

// That there are no more order ids is not the fault of who orders.
func TestNoMoreOrderIDs(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	if _, err := s.db.Pool.Exec(t.Context(), `ALTER SEQUENCE orders_id_seq MAXVALUE 10; SELECT setval('orders_id_seq', 10)`); err != nil {
		t.Fatal(err)
	}
	if a := s.post(t, like); a.code != http.StatusServiceUnavailable {
		t.Errorf("%s", a)
	}
	// Nor is it that others in the table have all the ids that are given to it, one after another.
	if _, err := s.db.Pool.Exec(t.Context(), `ALTER SEQUENCE orders_id_seq MAXVALUE 2147483647; SELECT setval('orders_id_seq', 10);
		INSERT INTO orders (id, user_id, show_id, quantity, status) SELECT i, 'u', 1, 1, 'CANCELLED' FROM generate_series(11, 3000) i`); err != nil {
		t.Fatal(err)
	}
	if a := s.post(t, like); a.code != http.StatusServiceUnavailable {
		t.Errorf("%s", a)
	}
}

// Those who read stand in a line of their own: whatever their number, orders are taken.
func TestReadersDoNotKeepOrdersOut(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	id := s.post(t, like).accepted(t)
	// What the readers ask for is locked by somebody, and so each has its connection for as long as it waits. They come again and again.
	lock, err := s.db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := lock.Exec(t.Context(), `LOCK TABLE payments IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var readers sync.WaitGroup
	for range 200 {
		readers.Go(func() {
			for open := true; open; {
				if a := s.get(t, fmt.Sprintf("/orders/%d", id)); a.code != http.StatusServiceUnavailable {
					t.Errorf("a reader: %s", a)
				}
				select {
				case <-over:
					open = false
				default:
				}
			}
		})
	}
	pool := func() (used, all int32) { stat := s.store.DB.Stat(); return stat.AcquiredConns(), stat.MaxConns() }
	until(t, "the readers wait", func() bool { used, _ := pool(); return used >= 8 })
	s.post(t, like).accepted(t)
	if used, all := pool(); used == all {
		t.Errorf("all %d connections are taken", all)
	}
	close(over)
	readers.Wait()
}

// The answer to a COMMIT is lost: the same batch is tried again, and takes effect once.
func TestALostAnswerIsNotASecondOrder(t *testing.T) {
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.post(t, like).accepted(t) // connected, ids reserved, statement prepared
	for i := 2; i <= 5; i++ {
		s.database.CutAnswer()
		if id := s.post(t, like).accepted(t); id != int32(i) {
			t.Errorf("order %d is number %d", i, id)
		}
		if s.database.Armed() {
			t.Error("nothing was cut")
		}
		if n := orders(t, s); n != i {
			t.Errorf("%d orders after %d", n, i)
		}
		s.post(t, `{"userId":1,"showId":99,"quantity":1}`) // connects and prepares again
	}
	if n := number(t, s.db, `SELECT count(*) FROM outbox`); n != 5 {
		t.Errorf("%d events of 5 orders", n)
	}
	// A refusal is repeated too, and so is the sale of the last seats.
	s.post(t, `{"userId":1,"showId":3,"quantity":119}`).accepted(t)
	s.database.CutAnswer()
	s.post(t, `{"userId":1,"showId":3,"quantity":1}`).accepted(t)
	s.post(t, like).accepted(t)
	s.database.CutAnswer()
	if a := s.post(t, `{"userId":1,"showId":3,"quantity":1}`); a.String() != `409 {"error":"not_enough_stock","available":0}` {
		t.Errorf("%s", a)
	}
	counted(t, s.db)
}

func TestPoisonResultsAreDeadLettered(t *testing.T) {
	t.Parallel()
	vhost := rabbittest.Platform(t)
	s := newService(t, postgrestest.New(t), vhost, options{})
	until(t, "the consumer's session", func() bool { return s.subs.Err() == nil })
	id := s.post(t, like).accepted(t)
	channel := rabbittest.Channel(t, vhost)
	poison := map[string]string{
		`{"type":`:                                      "not an event",
		`{"type":"payment.maybe","orderId":1}`:          "neither payment.succeeded nor payment.failed",
		`{"type":"payment.succeeded"}`:                  "orderId is missing",
		`{"type":"payment.succeeded","orderId":777777}`: "there is no order 777777",
	}
	for body := range poison {
		send(t, channel, "payment.other", []byte(body))
	}
	send(t, channel, contract.KeyPaymentSucceeded, result(id, true))
	if v := s.ended(t, id); v.Status != order.Confirmed { // a good one among them is not harmed
		t.Errorf("%+v", v)
	}
	for _, d := range rabbittest.Take(t, channel, contract.QueueDeadLetters, len(poison)) {
		reason, _ := d.Headers[contract.HeaderReason].(string)
		if want, known := poison[string(d.Body)]; !known || !strings.Contains(reason, want) ||
			d.Headers[contract.HeaderOrigin] != contract.QueuePaymentResults || d.Headers[contract.HeaderTries] != int64(1) {
			t.Errorf("%s: %v", d.Body, d.Headers)
		}
		delete(poison, string(d.Body))
	}
}

func TestAWaitingRequestIsAnsweredWhenItsOrderEnds(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	other := newService(t, s.db, "", options{noRelay: true}) // another replica, which settles nothing itself
	id := s.post(t, like).accepted(t)
	answers := make(chan answer, 2)
	for _, replica := range []*service{s, other} {
		go func() { answers <- replica.get(t, fmt.Sprintf("/orders/%d?wait=20s", id)) }()
	}
	if rejects, err := s.settler.Handle(t.Context(), []amqp.Delivery{delivery(1, result(id, true))}); err != nil || len(rejects) != 0 {
		t.Fatal(rejects, err)
	}
	for range 2 {
		select {
		case a := <-answers:
			if a.code != http.StatusOK || !strings.Contains(a.body, `"status":"CONFIRMED"`) {
				t.Errorf("%s", a)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the request goes on waiting")
		}
	}
}

// An order whose client has gone before its batch begins is not taken.
func TestAClientThatHasGoneBuysNothing(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.database.Away()
	first := make(chan answer, 1)
	go func() { first <- s.post(t, like) }() // its batch waits for the database
	until(t, "the first one's batch", func() bool { return s.notes.have("a batch of orders is tried again") })
	ctx, leave := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer leave()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/orders", strings.NewReader(like))
	if err != nil {
		t.Fatal(err)
	}
	if a, err := http.DefaultClient.Do(r); err == nil {
		t.Errorf("an answer: %s", a.Status)
		a.Body.Close()
	}
	s.database.Back()
	(<-first).accepted(t)
	s.post(t, like).accepted(t) // behind the one that has gone
	if n := orders(t, s); n != 2 {
		t.Errorf("%d orders were taken", n)
	}
}
