package order_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/order"
	"platformctl/pkg/postgres"
	"platformctl/pkg/postgres/postgrestest"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"
)

// The rule itself, against what it is for.
func TestOrdersEndOnceAndMoneyGoesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOf(rapid.SampledFrom([]order.Event{order.PaymentSucceeded, order.PaymentFailed, order.HoldLapsed, order.PaidHoldLapsed})).Draw(t, "events")
		s := order.Fresh()
		for i, e := range events {
			before := s
			s = s.Next(e)
			if i > 0 && (s.Order != before.Order || s.Hold != before.Hold) {
				t.Fatalf("%v left its end state for %v", before, s)
			}
			if s.Next(e) != s.Next(e).Next(e) && i > 0 {
				t.Fatalf("%v: a duplicate has an effect", s)
			}
		}
		if len(events) == 0 {
			return
		}
		want := map[order.Event]order.State{
			order.PaymentSucceeded: {Order: order.Confirmed, Hold: order.Committed},
			order.PaymentFailed:    {Order: order.Cancelled, Hold: order.Released},
			order.HoldLapsed:       {Order: order.Cancelled, Hold: order.Expired},
			order.PaidHoldLapsed:   {Order: order.Confirmed, Hold: order.Committed},
		}[events[0]]
		for _, e := range events[1:] {
			want.RefundDue = want.RefundDue || e == order.PaymentSucceeded && want.Order == order.Cancelled
		}
		if s != want {
			t.Fatalf("%v after %v", s, events)
		}
	})
}

// The statements do to many orders at once what the rule does to one: events in any order, doubled, in batches of any size.
func TestStatementsFollowTheRule(t *testing.T) {
	s := newService(t, postgrestest.New(t), "", options{noRelay: true, hold: time.Hour})
	s.stop() // the sweeper; the test sweeps
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		n := rapid.IntRange(1, 6).Draw(rt, "orders")
		ids, err := s.store.ReserveIDs(ctx, n)
		if err != nil {
			rt.Fatal(err)
		}
		requests := make([]order.Request, n)
		want := map[int32]order.State{}
		for i, id := range ids {
			requests[i] = order.Request{ID: id, User: contract.UserID("1"), Show: 1, Quantity: 1, CreatedAt: time.Now()}
			want[id] = order.Fresh()
		}
		outcomes, err := s.store.Accept(ctx, requests, false)
		if err != nil || !outcomes[n-1].Accepted {
			rt.Fatalf("%+v %v", outcomes, err)
		}
		// A payment is there before its result, as the payment service's one statement has it.
		charged := map[int32]bool{}
		charge := func(ids []int32) {
			for _, id := range ids {
				charged[id] = true
			}
			if _, err := s.db.Pool.Exec(ctx, `INSERT INTO payments (order_id, user_id, amount, status, message_id) SELECT i, '1', 50, 'SUCCEEDED', 'm' || i FROM unnest($1::int[]) i ON CONFLICT DO NOTHING`, ids); err != nil {
				rt.Fatal(err)
			}
		}
		charge(rapid.SliceOfDistinct(rapid.SampledFrom(ids), rapid.ID[int32]).Draw(rt, "charged"))
		for range rapid.IntRange(0, 4).Draw(rt, "rounds") {
			if rapid.Bool().Draw(rt, "sweep") {
				due := rapid.SliceOfDistinct(rapid.SampledFrom(ids), rapid.ID[int32]).Draw(rt, "due")
				if _, err := s.db.Pool.Exec(ctx, `UPDATE inventory_reservations SET expires_at = now() - interval '1 second' WHERE order_id = ANY($1)`, due); err != nil {
					rt.Fatal(err)
				}
				if lapsed, err := s.store.Expire(ctx, time.Time{}, 500); err != nil || lapsed.More {
					rt.Fatal(lapsed, err)
				}
				for _, id := range due {
					lapse := order.HoldLapsed
					if charged[id] {
						lapse = order.PaidHoldLapsed
					}
					want[id] = want[id].Next(lapse)
				}
				continue
			}
			var batch []amqp.Delivery
			for i := range rapid.IntRange(1, 12).Draw(rt, "batch") {
				id, paid := rapid.SampledFrom(ids).Draw(rt, "order"), rapid.Bool().Draw(rt, "paid")
				if paid {
					charge([]int32{id})
				}
				batch = append(batch, delivery(uint64(i+1), result(id, paid)))
				if paid {
					want[id] = want[id].Next(order.PaymentSucceeded)
				} else {
					want[id] = want[id].Next(order.PaymentFailed)
				}
			}
			if rejects, err := s.settler.Handle(ctx, batch); err != nil || len(rejects) > 0 {
				rt.Fatal(rejects, err)
			}
		}
		for _, id := range ids {
			if got := stateOf(t, s.db, id); got != (state{string(want[id].Order), string(want[id].Hold), want[id].RefundDue}) {
				rt.Fatalf("order %d is %+v, want %+v", id, got, want[id])
			}
		}
		counted(t, s.db)
	})
}

// The fold in the database against a plain one: arrival order, no order refused that fits, several shows in a batch.
func TestBatchesAreDecidedInTheOrderTheyCame(t *testing.T) {
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	rapid.Check(t, func(rt *rapid.T) {
		ctx := t.Context()
		free := map[int32]int32{}
		var shows []int32
		for range rapid.IntRange(1, 3).Draw(rt, "shows") {
			capacity := rapid.Int32Range(0, 12).Draw(rt, "capacity")
			var show int32
			if err := s.db.Pool.QueryRow(ctx, `INSERT INTO shows (name, venue, starts_at, capacity) VALUES ('s', 'v', now(), $1) RETURNING id`, capacity).Scan(&show); err != nil {
				rt.Fatal(err)
			}
			free[show] = capacity
			shows = append(shows, show)
		}
		const nowhere = 2_000_000_000
		n := rapid.IntRange(1, 20).Draw(rt, "batch")
		ids, err := s.store.ReserveIDs(ctx, n)
		if err != nil {
			rt.Fatal(err)
		}
		requests := make([]order.Request, n)
		want := make([]string, n)
		for i := range requests {
			r := order.Request{ID: ids[i], User: contract.UserID(`"u"`), Show: rapid.SampledFrom(append(shows, nowhere)).Draw(rt, "show"),
				Quantity: rapid.Int32Range(1, 6).Draw(rt, "quantity"), CreatedAt: time.Now()}
			left, there := free[r.Show]
			accepted := there && r.Quantity <= left
			if accepted {
				left -= r.Quantity
				free[r.Show] = left
				left = 0 // what is left is told to whom it was too little
			}
			requests[i], want[i] = r, fmt.Sprint(accepted, !there, left, accepted)
		}
		first, err := s.store.Accept(ctx, requests, false)
		if err != nil {
			rt.Fatal(err)
		}
		anyAccepted := false
		for i, o := range first {
			anyAccepted = anyAccepted || o.Accepted
			if o.Accepted {
				o.Available = 0 // it may be told or not
			}
			if got := fmt.Sprint(o.Accepted, o.NoShow, o.Available, o.Event.ID != 0); got != want[i] {
				rt.Fatalf("order %d (%+v): %s, want %s", i, requests[i], got, want[i])
			}
		}
		// The same batch again, as after a lost answer: nothing is done twice, and the outcomes are the same.
		again, err := s.store.Accept(ctx, requests, true)
		if err != nil {
			rt.Fatal(err)
		}
		if anyAccepted {
			for i := range again {
				if again[i].Accepted != first[i].Accepted || again[i].NoShow != first[i].NoShow || again[i].Event.ID != first[i].Event.ID {
					rt.Fatalf("order %d: %+v at first, then %+v", i, first[i], again[i])
				}
			}
		}
		counted(t, s.db)
	})
}

// The sweeper and the settler race for each order; one of them wins, and all that follows from it holds.
func TestExpiryAndPaymentRace(t *testing.T) {
	const n = 200
	s := newService(t, postgrestest.New(t), "", options{noRelay: true, hold: time.Hour})
	s.stop()
	ctx := t.Context()
	ids, err := s.store.ReserveIDs(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	requests := make([]order.Request, n)
	for i, id := range ids {
		requests[i] = order.Request{ID: id, User: contract.UserID("1"), Show: 1, Quantity: 2, CreatedAt: time.Now()}
	}
	if _, err := s.store.Accept(ctx, requests, false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Pool.Exec(ctx, `UPDATE inventory_reservations SET expires_at = now() - id * interval '1 ms'`); err != nil {
		t.Fatal(err)
	}
	var racers sync.WaitGroup
	for range 2 {
		racers.Go(func() {
			for from, more := (time.Time{}), true; more; {
				lapsed, err := s.store.Expire(ctx, from, 7)
				switch {
				case err == nil:
					from, more = lapsed.Last, lapsed.More
				case postgres.Code(err) != "40P01": // who is told of a deadlock tries again
					t.Error(err)
					return
				}
			}
		})
		racers.Go(func() {
			for at := 0; at < n; at += 10 {
				some := ids[n-10-at : n-at] // from the other end
				var batch []amqp.Delivery
				for i, id := range some {
					batch = append(batch, delivery(uint64(i+1), result(id, true)))
				}
				if _, err := s.db.Pool.Exec(ctx, `INSERT INTO payments (order_id, user_id, amount, status, message_id) SELECT i, '1', 100, 'SUCCEEDED', 'm' || i FROM unnest($1::int[]) i ON CONFLICT DO NOTHING`, some); err != nil {
					t.Error(err)
				}
				if rejects, err := s.settler.Handle(ctx, batch); err != nil || len(rejects) > 0 {
					t.Error(rejects, err)
				}
			}
		})
	}
	racers.Wait()
	counts := map[state]int{}
	for _, id := range ids {
		counts[stateOf(t, s.db, id)]++
	}
	won, lost := counts[state{"CONFIRMED", "COMMITTED", false}], counts[state{"CANCELLED", "EXPIRED", true}]
	if won+lost != n {
		t.Errorf("%v", counts)
	}
	if ends := number(t, s.db, `SELECT count(*) FROM order_events WHERE hop IN ('confirmed', 'expired')`); ends != n {
		t.Errorf("%d ends of %d orders", ends, n)
	}
	counted(t, s.db)
	t.Logf("%d confirmed, %d expired", won, lost)
}

func TestHoldsLapseAndSeatsComeBack(t *testing.T) {
	s := newService(t, postgrestest.New(t), "", options{noRelay: true, hold: 50 * time.Millisecond})
	id := s.post(t, `{"userId":1,"showId":3,"quantity":120}`).accepted(t)
	v := s.ended(t, id)
	if v.Status != order.Cancelled || v.EndedAt == nil {
		t.Errorf("%+v", v)
	}
	if got := stateOf(t, s.db, id); got != (state{"CANCELLED", "EXPIRED", false}) {
		t.Errorf("%+v", got)
	}
	s.post(t, `{"userId":1,"showId":3,"quantity":120}`).accepted(t)
	counted(t, s.db)
}

// An order that was paid is not cancelled because nobody told of it: a result may be lost with its queue, or never have been sent by an
// old service that ended between its COMMIT and its publish.
func TestAPaidOrderIsConfirmedThoughNoResultComes(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.stop()
	ids := lapse(t, s.db, `SELECT i * interval '1 min' FROM generate_series(1, 3) i`)
	if _, err := s.db.Pool.Exec(t.Context(), `INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES ($1, 'u', 50, 'SUCCEEDED', 'a'), ($2, 'u', 50, 'FAILED', 'b')`, ids[0], ids[1]); err != nil {
		t.Fatal(err)
	}
	lapsed, err := s.store.Expire(t.Context(), time.Time{}, 100)
	slices.Sort(lapsed.Orders)
	if err != nil || !slices.Equal(lapsed.Paid, ids[:1]) || !slices.Equal(lapsed.Orders, ids[1:]) {
		t.Errorf("%+v %v", lapsed, err)
	}
	for i, want := range []state{{"CONFIRMED", "COMMITTED", false}, {"CANCELLED", "EXPIRED", false}, {"CANCELLED", "EXPIRED", false}} {
		if got := stateOf(t, s.db, ids[i]); got != want {
			t.Errorf("order %d is %+v, want %+v", ids[i], got, want)
		}
	}
	// The result comes after all, twice.
	if rejects, err := s.settler.Handle(t.Context(), []amqp.Delivery{delivery(1, result(ids[0], true)), delivery(2, result(ids[0], true))}); err != nil || len(rejects) > 0 {
		t.Error(rejects, err)
	}
	if got := stateOf(t, s.db, ids[0]); got != (state{"CONFIRMED", "COMMITTED", false}) {
		t.Errorf("after its result it is %+v", got)
	}
	for hops, want := range map[string]int{"confirmed,expired": len(ids), "unheard": 1, "heard": 1} {
		if n := number(t, s.db, `SELECT count(*) FROM order_events WHERE hop = ANY(string_to_array('`+hops+`', ','))`); n != want {
			t.Errorf("%s: %d hops, not %d", hops, n, want)
		}
	}
	counted(t, s.db)
}

// A payment that is stored in the moment in which the hold lapses is due back, though its result is lost: a later look sees it.
func TestAPaymentOfThatMomentIsDueBack(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.stop()
	id := lapse(t, s.db, `SELECT interval '1 min'`)[0]
	expire := func() {
		if _, err := s.store.Expire(t.Context(), time.Time{}, 100); err != nil {
			t.Fatal(err)
		}
	}
	expire()
	if _, err := s.db.Pool.Exec(t.Context(), `INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES ($1, 'u', 50, 'SUCCEEDED', 'a')`, id); err != nil {
		t.Fatal(err)
	}
	expire()
	expire()
	if got := stateOf(t, s.db, id); got != (state{"CANCELLED", "EXPIRED", true}) {
		t.Errorf("%+v", got)
	}
	if n := number(t, s.db, `SELECT count(*) FROM order_events WHERE hop = 'refund_due'`); n != 1 {
		t.Errorf("%d hops", n)
	}
}

// A look begins after a time, goes no further than it is told, and tells where the next one is to begin. Holds that end together are
// looked at together.
func TestExpireLooksSinceATime(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.stop() // its own sweeper would be first
	var now time.Time
	if err := s.db.Pool.QueryRow(t.Context(), `
		WITH o AS (INSERT INTO orders (user_id, show_id, quantity) SELECT 'u', 1, 1 FROM generate_series(1, 5) RETURNING id),
		r AS (INSERT INTO inventory_reservations (show_id, order_id, quantity, expires_at) SELECT 1, id, 1, now() - id / 2 * interval '1 hour' FROM o)
		SELECT now()`).Scan(&now); err != nil {
		t.Fatal(err)
	}
	hours := func(n time.Duration) time.Time { return now.Add(-n * time.Hour) }
	for _, step := range []struct {
		since time.Time
		many  int
		want  string
		last  time.Time
	}{
		{now, 10, "[] false", time.Time{}},
		{hours(1), 10, "[1] false", now},
		{time.Time{}, 1, "[4 5] true", hours(2)}, // the oldest first
		{time.Time{}, 2, "[] true", hours(2)},    // nothing is done again
		{hours(2), 2, "[2 3] true", hours(1)},
		{hours(1), 10, "[] false", now},
	} {
		lapsed, err := s.store.Expire(t.Context(), step.since, step.many)
		slices.Sort(lapsed.Orders)
		if got := fmt.Sprint(lapsed.Orders, lapsed.More); err != nil || got != step.want {
			t.Errorf("since %s: %s %v, want %s", step.since, got, err, step.want)
		}
		if !lapsed.Last.Equal(step.last) || lapsed.At.Before(now) {
			t.Errorf("since %s: the last is %s, want %s; at %s", step.since, lapsed.Last, step.last, lapsed.At)
		}
	}
	counted(t, s.db)
}

// However many holds lapsed while nobody looked, one sweep finds all of them.
func TestSweepLooksAtAll(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.stop()
	const n = 45_000 // more than two looks
	if _, err := s.db.Pool.Exec(t.Context(), `UPDATE shows SET capacity = $1 WHERE id = 1`, n); err != nil {
		t.Fatal(err)
	}
	lapse(t, s.db, `SELECT i * interval '1 s' FROM generate_series(1, $1) i`, n)
	sweeping(t, s.store, time.Hour)
	until(t, "all holds have lapsed", func() bool {
		return number(t, s.db, `SELECT count(*) FROM orders WHERE status = 'CANCELLED'`) == n
	})
	counted(t, s.db)
}

// What lapsed lately is ended at once, however many have ended before; those are looked at a part at a time, and what lapsed among them
// is ended too.
func TestSweepBeginsWithWhatLapsedLately(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.stop()
	cancelled := func(id int32) bool { return stateOf(t, s.db, id).Order == "CANCELLED" }
	if _, err := s.db.Pool.Exec(t.Context(), `
		UPDATE shows SET capacity = 30000 WHERE id = 1;
		INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at)
			SELECT 1, 1000000 + i, 1, 'COMMITTED', now() - interval '1 day' FROM generate_series(1, 20000) i;
		INSERT INTO order_keys (key, order_id, request_hash, created_at) VALUES ('old', 1, '', now() - interval '2 days')`); err != nil {
		t.Fatal(err)
	}
	both := lapse(t, s.db, `SELECT unnest(ARRAY[interval '10 hours', interval '5 hours'])`) // nothing has ended since
	sweeping(t, s.store, time.Hour)
	until(t, "the first round is over", func() bool { return number(t, s.db, `SELECT count(*) FROM order_keys`) == 0 })
	if cancelled(both[0]) || !cancelled(both[1]) {
		t.Errorf("cancelled are the one that lapsed 10 hours ago: %t, the one that lapsed 5 hours ago: %t", cancelled(both[0]), cancelled(both[1]))
	}
	sweeping(t, s.store, 20*time.Millisecond)
	until(t, "what lapsed long ago is ended", func() bool { return cancelled(both[0]) })
	counted(t, s.db)
}

// A sweep looks no further back than what may have committed since the one before: not again at all that ended lately.
func TestSweepGoesOnWhereTheLastOneEnded(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.stop()
	cancelled := func(id int32) bool { return stateOf(t, s.db, id).Order == "CANCELLED" }
	first := lapse(t, s.db, `SELECT unnest(ARRAY[interval '3 hours', interval '1 minute'])`) // one for the pass, one for the sweep
	sweeping(t, s.store, 20*time.Millisecond)
	until(t, "the first sweep and the pass are over", func() bool { return cancelled(first[0]) && cancelled(first[1]) })
	both := lapse(t, s.db, `SELECT unnest(ARRAY[interval '30 s', interval '0'])`)
	until(t, "a sweep saw what ended now", func() bool { return cancelled(both[1]) })
	if cancelled(both[0]) {
		t.Error("it saw what ended half a minute before, too")
	}
}

// lapse makes an order for each of the intervals that a query returns, whose hold ended so long ago.
func lapse(t *testing.T, db postgrestest.Database, ago string, args ...any) []int32 {
	t.Helper()
	rows, err := db.Pool.Query(t.Context(), `
		WITH ago (ago) AS (`+ago+`), numbered AS (SELECT ago, nextval(pg_get_serial_sequence('orders', 'id'))::int4 AS id FROM ago),
		o AS (INSERT INTO orders (id, user_id, show_id, quantity) SELECT id, 'u', 1, 1 FROM numbered),
		r AS (INSERT INTO inventory_reservations (show_id, order_id, quantity, expires_at) SELECT 1, id, 1, now() - ago FROM numbered)
		SELECT id FROM numbered ORDER BY id`, args...)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// sweeping has a sweeper run until the test is over.
func sweeping(t *testing.T, store *order.Store, pause time.Duration) {
	t.Helper()
	sweeper := &order.Sweeper{Store: store, Waiters: &order.Waiters{}, Log: slog.New(slog.DiscardHandler), Pause: pause}
	sweeper.Expired, sweeper.Unheard = order.NewSweeperCounters(prometheus.NewRegistry())
	ctx, stop := context.WithCancel(t.Context())
	var swept sync.WaitGroup
	swept.Go(func() {
		if err := sweeper.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		swept.Wait()
	})
}

// What a writer does that names only the old columns is counted, and refused where it would oversell.
func TestOldWritersAreCounted(t *testing.T) {
	db := postgrestest.New(t)
	exec := func(sql string, args ...any) error {
		_, err := db.Pool.Exec(t.Context(), sql, args...)
		counted(t, db)
		return err
	}
	held := func() int { return number(t, db, `SELECT held FROM show_seats WHERE show_id = 3`) }
	reserve := `INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) VALUES ($1, $2, $3, 'RESERVED', now())`
	for _, step := range []struct {
		what, sql string
		args      []any
		refused   string // part of the error
		held      int
	}{
		{"an insert", reserve, []any{3, 1, 100}, "", 100},
		{"too many", reserve, []any{3, 2, 21}, "show_seats_not_oversold", 100},
		{"the rest", reserve, []any{3, 2, 20}, "", 120},
		{"no show", reserve, []any{77, 3, 1}, "there is no show 77", 120},
		{"committed is held", `UPDATE inventory_reservations SET status = 'COMMITTED' WHERE order_id = 1`, nil, "", 120},
		{"released is not", `UPDATE inventory_reservations SET status = 'RELEASED' WHERE order_id = 2`, nil, "", 100},
		{"more seats", `UPDATE inventory_reservations SET quantity = 120 WHERE order_id = 1`, nil, "", 120},
		{"taken back when sold out", `UPDATE inventory_reservations SET status = 'RESERVED' WHERE order_id = 2`, nil, "show_seats_not_oversold", 120},
		{"another show", `UPDATE inventory_reservations SET show_id = 2 WHERE order_id = 1`, nil, "", 0},
		{"a delete", `DELETE FROM inventory_reservations WHERE order_id = 1`, nil, "", 0},
		{"several at once", `INSERT INTO inventory_reservations (show_id, order_id, quantity) SELECT 1 + i % 3, 100 + i, 2 FROM generate_series(1, 30) i`, nil, "", 20},
		{"a smaller hall than is held", `UPDATE shows SET capacity = 19 WHERE id = 3`, nil, "show_seats_not_oversold", 20},
		{"a smaller hall", `UPDATE shows SET capacity = 20 WHERE id = 3`, nil, "", 20},
		{"now it is full", reserve, []any{3, 500, 1}, "show_seats_not_oversold", 20},
		{"truncated", `TRUNCATE inventory_reservations`, nil, "", 0},
	} {
		err := exec(step.sql, step.args...)
		if (err != nil) != (step.refused != "") || err != nil && !strings.Contains(err.Error(), step.refused) {
			t.Errorf("%s: %v", step.what, err)
		}
		if n := held(); n != step.held {
			t.Errorf("%s: %d seats are held, not %d", step.what, n, step.held)
		}
	}
	if err := exec(`INSERT INTO shows (name, venue, starts_at, capacity) VALUES ('new', 'v', now(), 5)`); err != nil {
		t.Error(err)
	}
	if free := number(t, db, `SELECT capacity - held FROM show_seats WHERE show_id = (SELECT max(id) FROM shows)`); free != 5 {
		t.Errorf("a new show has %d seats", free)
	}
	if err := exec(`DELETE FROM shows WHERE name = 'new'`); err != nil {
		t.Error(err)
	}
}
