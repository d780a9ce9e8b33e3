package outbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"platformctl/pkg/outbox"
	"platformctl/pkg/postgres/postgrestest"

	"github.com/jackc/pgx/v5"
)

const patience = 30 * time.Second

// broker takes events and confirms them when the test says so.
type broker struct {
	mu    sync.Mutex
	taken []string
	each  chan string // every event, as it is published
}

func newBroker() *broker { return &broker{each: make(chan string, 100_000)} }

// confirmation is nil or an error once it is known.
type confirmation chan error

func (c confirmation) Wait(ctx context.Context) error {
	select {
	case err := <-c:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// publisher answers each event with what answer says; an empty channel is not confirmed yet.
func (b *broker) publisher(answer func(id string) confirmation) outbox.Publish {
	return func(ctx context.Context, e outbox.Event) (outbox.Confirmation, error) {
		b.mu.Lock()
		b.taken = append(b.taken, e.MessageID)
		b.mu.Unlock()
		b.each <- e.MessageID
		return answer(e.MessageID), nil
	}
}

func known(err error) confirmation {
	c := make(confirmation, 1)
	c <- err
	return c
}

func (b *broker) wait(t *testing.T, n int) []string {
	t.Helper()
	var ids []string
	timeout := time.After(patience)
	for len(ids) < n {
		select {
		case id := <-b.each:
			ids = append(ids, id)
		case <-timeout:
			t.Fatalf("%d of %d events were published", len(ids), n)
		}
	}
	return ids
}

const insertEvents = `
INSERT INTO outbox (message_id, correlation_id, routing_key, payload, relay, lease_until)
SELECT 'm' || i, i::text, 'order.created', ('{"n":' || i || '}')::bytea, $3, now() + $4::interval FROM generate_series($1::int, $2::int) i
RETURNING id, message_id, correlation_id, routing_key, payload, created_at`

// insert commits events m<from> to m<to> with a lease.
func insert(t *testing.T, db postgrestest.Database, from, to int, relay string, lease time.Duration) []outbox.Event {
	t.Helper()
	rows, err := db.Pool.Query(t.Context(), insertEvents, from, to, relay, lease)
	if err != nil {
		t.Fatal(err)
	}
	events, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e outbox.Event, err error) {
		err = row.Scan(&e.ID, &e.MessageID, &e.CorrelationID, &e.Key, &e.Payload, &e.CreatedAt)
		return e, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func left(t *testing.T, db postgrestest.Database) []string {
	t.Helper()
	rows, err := db.Pool.Query(t.Context(), `SELECT message_id FROM outbox ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func relay(db postgrestest.Database, name string) *outbox.Relay {
	return outbox.New(name, db.Pool, slog.New(slog.DiscardHandler), "order.created")
}

// session runs one and returns how to stop it and its end.
func session(t *testing.T, r *outbox.Relay, publish outbox.Publish) (stop func(), end <-chan error) {
	t.Helper()
	stopped, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- r.Session(context.WithoutCancel(t.Context()), stopped, publish) }()
	stop = sync.OnceFunc(func() { close(stopped) })
	t.Cleanup(stop)
	return stop, done
}

func receive(t *testing.T, end <-chan error) error {
	t.Helper()
	select {
	case err := <-end:
		return err
	case <-time.After(patience):
		t.Fatal("the session does not end")
		return nil
	}
}

func drain(t *testing.T, r *outbox.Relay) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.Drain(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsConfirmedIsForgotten(t *testing.T) {
	db := postgrestest.New(t)
	r, b := relay(db, "a"), newBroker()
	stop, end := session(t, r, b.publisher(func(string) confirmation { return known(nil) }))
	r.Offer(insert(t, db, 1, 3000, "a", time.Minute))
	drain(t, r)
	if rows := left(t, db); len(rows) != 0 {
		t.Errorf("left: %d rows", len(rows))
	}
	if ids := b.wait(t, 3000); ids[0] != "m1" || ids[2999] != "m3000" {
		t.Errorf("published out of order: %s ... %s", ids[0], ids[2999])
	}
	stop()
	if err := receive(t, end); err != nil {
		t.Error(err)
	}
}

// An event whose confirm does not come keeps its row, and is published again, in its order, in the next session.
func TestWhatIsNotConfirmedIsKeptAndSentAgain(t *testing.T) {
	db := postgrestest.New(t)
	r, b := relay(db, "a"), newBroker()
	refused := errors.New("refused")
	_, end := session(t, r, b.publisher(func(id string) confirmation {
		if id == "m2" {
			return known(refused)
		}
		return known(nil)
	}))
	r.Offer(insert(t, db, 1, 1, "a", time.Minute))
	drain(t, r)
	r.Offer(insert(t, db, 2, 2, "a", time.Minute))
	if err := receive(t, end); !errors.Is(err, refused) {
		t.Fatalf("the session ended by %v", err)
	}
	if rows := left(t, db); !slices.Equal(rows, []string{"m2"}) {
		t.Fatalf("left: %v", rows)
	}
	if r.Held() != 1 {
		t.Errorf("%d events held", r.Held())
	}
	stop, end := session(t, r, b.publisher(func(string) confirmation { return known(nil) }))
	drain(t, r)
	stop()
	if err := receive(t, end); err != nil {
		t.Error(err)
	}
	if rows := left(t, db); len(rows) != 0 {
		t.Errorf("left: %v", rows)
	}
	if ids := b.wait(t, 3); !slices.Equal(ids, []string{"m1", "m2", "m2"}) {
		t.Errorf("published %v", ids)
	}
}

func TestNothingIsForgottenWithoutItsConfirm(t *testing.T) {
	db := postgrestest.New(t)
	r, b := relay(db, "a"), newBroker()
	never := make(confirmation)
	stop, end := session(t, r, b.publisher(func(id string) confirmation {
		if id == "m1" || id == "m2" {
			return known(nil)
		}
		return never
	}))
	r.Offer(insert(t, db, 1, 2, "a", time.Minute))
	drain(t, r)
	r.Offer(insert(t, db, 3, 5, "a", time.Minute))
	b.wait(t, 5)
	insert(t, db, 6, 6, "dead", -time.Second)
	b.wait(t, 1) // found by a sweep; there was time to forget the others
	stop()       // while they are on their way
	if err := receive(t, end); err != nil {
		t.Error(err)
	}
	if rows := left(t, db); !slices.Equal(rows, []string{"m3", "m4", "m5", "m6"}) {
		t.Errorf("left: %v", rows)
	}
	if r.Held() != 4 {
		t.Errorf("%d events held", r.Held())
	}
}

// A process that died between COMMIT and publish leaves rows whose lease lapses; any relay of the service takes them, and only them.
func TestTheSweepSendsWhatACrashLeft(t *testing.T) {
	db := postgrestest.New(t)
	insert(t, db, 0, 0, "dead", -time.Second)
	if _, err := db.Pool.Exec(t.Context(), `UPDATE outbox SET routing_key = 'payment.failed'`); err != nil {
		t.Fatal(err)
	}
	insert(t, db, 1, 1200, "dead", -time.Second)
	insert(t, db, 1201, 1210, "alive", time.Minute)
	insert(t, db, 1211, 1220, "ahead", time.Hour) // by a database whose clock was wrong
	if _, err := db.Pool.Exec(t.Context(), `UPDATE outbox SET relay = NULL, lease_until = NULL WHERE message_id = 'm7'`); err != nil {
		t.Fatal(err)
	}
	b := newBroker()
	confirmed := b.publisher(func(string) confirmation { return known(nil) })
	// Two relays share them.
	var stops []func()
	var ends []<-chan error
	for _, name := range []string{"a", "b"} {
		stop, end := session(t, relay(db, name), confirmed)
		stops, ends = append(stops, stop), append(ends, end)
	}
	ids := b.wait(t, 1210)
	for i, stop := range stops {
		stop()
		if err := receive(t, ends[i]); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) != 1210 {
		t.Errorf("%d different events were published", len(ids))
	}
	if n := len(b.each); n != 0 {
		t.Errorf("%d events more were published", n)
	}
	if slices.Contains(ids, "m0") {
		t.Error("an event of another service was published")
	}
}

// An event that is still on its way when its lease lapses is not published a second time by its own relay.
func TestTheSweepLeavesWhatIsOnItsWay(t *testing.T) {
	db := postgrestest.New(t)
	r, b := relay(db, "a"), newBroker()
	answers := make(confirmation, 1)
	_, _ = session(t, r, b.publisher(func(id string) confirmation {
		if id == "m1" {
			return answers
		}
		return known(nil)
	}))
	r.Offer(insert(t, db, 1, 1, "a", -time.Second))
	b.wait(t, 1)
	// m2 is found by a sweep, and so m1 was as well.
	insert(t, db, 2, 2, "dead", -time.Second)
	if ids := b.wait(t, 1); ids[0] != "m2" {
		t.Errorf("%s was published again", ids[0])
	}
	answers <- nil
	drain(t, r)
	if n := len(b.each); n != 0 {
		t.Errorf("%d events more were published", n)
	}
}

func TestMemoryIsBoundedAndTheRestIsReadAgain(t *testing.T) {
	t.Run("with its lease", func(t *testing.T) { bounded(t, time.Minute) })
	t.Run("swept", func(t *testing.T) { bounded(t, -time.Second) })
}

func bounded(t *testing.T, lease time.Duration) {
	db := postgrestest.New(t)
	r, b := relay(db, "a"), newBroker()
	const n = 22_000
	events := insert(t, db, 1, n, "a", lease)
	r.Offer(events) // while there is no session
	if held := r.Held(); held >= n || held == 0 {
		t.Errorf("%d of %d events in memory", held, n)
	}
	_, _ = session(t, r, b.publisher(func(string) confirmation { return known(nil) }))
	ids := b.wait(t, n)
	drain(t, r)
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) != n {
		t.Errorf("%d different events were published", len(ids))
	}
	if rows := left(t, db); len(rows) != 0 {
		t.Errorf("left: %d rows", len(rows))
	}
}

func TestLength(t *testing.T) {
	db := postgrestest.New(t)
	r := relay(db, "a")
	if n, age, err := r.Length(t.Context()); n != 0 || age != 0 || err != nil {
		t.Error(n, age, err)
	}
	insert(t, db, 1, 5, "a", time.Minute)
	if _, err := db.Pool.Exec(t.Context(), `UPDATE outbox SET created_at = now() - interval '1 minute' WHERE message_id = 'm3'`); err != nil {
		t.Fatal(err)
	}
	if n, age, err := r.Length(t.Context()); n != 5 || age < time.Minute || age > 2*time.Minute || err != nil {
		t.Error(n, age, err)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	db := postgrestest.New(t)
	r := relay(db, "a")
	r.Offer(insert(t, db, 1, 2, "a", time.Minute))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Drain(ctx); !errors.Is(err, context.Canceled) || fmt.Sprint(err) != "2 events left in the outbox: context canceled" {
		t.Error(err)
	}
}

// What did not fit into memory is older than what comes after it, and goes first.
func TestNobodyOvertakesWhatDidNotFit(t *testing.T) {
	db := postgrestest.New(t)
	r, b := relay(db, "a"), newBroker()
	const n, first = 12_000, 1_000
	r.Offer(insert(t, db, 1, n, "a", time.Minute)) // 2,000 more than fit
	full, goOn := r.Held(), make(chan struct{})
	sent := 0
	_, _ = session(t, r, func(ctx context.Context, e outbox.Event) (outbox.Confirmation, error) {
		if sent == first {
			<-goOn
		}
		sent++
		return b.publisher(func(string) confirmation { return known(nil) })(ctx, e)
	})
	for waited := time.Now(); r.Held() > full-first; runtime.Gosched() { // now there is room, and others are still outside
		if time.Since(waited) > patience {
			t.Fatalf("%d events are held", r.Held())
		}
	}
	r.Offer(insert(t, db, n+1, n+100, "a", time.Minute))
	close(goOn)
	ids := b.wait(t, n+100)
	for i, id := range ids {
		if want := fmt.Sprintf("m%d", i+1); id != want {
			t.Fatalf("event %d was %s, not %s", i+1, id, want)
		}
	}
	drain(t, r)
}

func TestEachConfirmIsToldWhereSomebodyWantsToSeeIt(t *testing.T) {
	db := postgrestest.New(t)
	for level, want := range map[slog.Level]string{
		slog.LevelInfo: "", slog.LevelDebug: "level=DEBUG msg=\"event confirmed\" correlation=1 message=m1 trace=00-4b-00-01 key=order.created\n",
	} {
		var said bytes.Buffer
		r, b := outbox.New("a", db.Pool, slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))), newBroker()
		stop, end := session(t, r, b.publisher(func(string) confirmation { return known(nil) }))
		events := insert(t, db, 1, 1, "a", time.Minute)
		events[0].Trace = "00-4b-00-01"
		r.Offer(events)
		drain(t, r)
		stop()
		if err := receive(t, end); err != nil {
			t.Fatal(err)
		}
		if said.String() != want {
			t.Errorf("at %s it says %q", level, said.String())
		}
	}
}
