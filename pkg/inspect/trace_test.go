package inspect

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/postgres/postgrestest"

	"github.com/google/go-cmp/cmp"
)

// tables is a test's database.
type tables struct{ postgrestest.Database }

func (t tables) JSON(ctx context.Context, statement string) (raw []byte, err error) {
	err = t.Pool.QueryRow(ctx, statement).Scan(&raw)
	return raw, err
}

const pods = `'order-api-order-api-chart-6ffb888d48-pxvz9', 'payment-service-payment-service-chart-5ffff66d9c-rbdxc'`

// An order whose payment was delivered twice, one that is stuck in the outbox, one that waits for payment-service, and one of an
// older service.
const fourLives = `
INSERT INTO orders (id, user_id, show_id, quantity, status, created_at, ended_at) VALUES
	(1, 'u', 1, 2, 'CONFIRMED', '2025-01-01 10:00:00.010Z', '2025-01-01 10:00:00.050Z'), (2, 'u', 1, 1, 'PENDING', now() - interval '20 s', NULL),
	(3, 'u', 1, 1, 'PENDING', now() - interval '10 s', NULL), (4, 'u', 1, 1, 'CANCELLED', '2025-01-01 10:00:00Z', '2025-01-01 10:00:09Z'), (5, 'u', 1, 1, 'PENDING', now(), NULL);
INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES (1, 'u', 100, 'SUCCEEDED', 'm');
INSERT INTO outbox (message_id, correlation_id, routing_key, payload, relay, lease_until) VALUES ('order.created:2', '2', 'order.created', '{}', 'order-api-x-1-abcde/L', now() + interval '1 min');
INSERT INTO order_events (order_id, hop, at, began, pod, tries, traceparent)
SELECT 1, hop, '2025-01-01 10:00:00Z'::timestamptz + at * interval '1 ms', '2025-01-01 10:00:00Z'::timestamptz + began * interval '1 ms', (ARRAY[%s])[pod], tries, trace
FROM (VALUES ('accepted', 10, 0, 1, 1, '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'), ('sent order.created', 25, 10, 1, 1, NULL), ('payment_succeeded', 22, 20, 2, 1, NULL),
	('sent payment.succeeded', 30, 22, 2, 1, NULL), ('created_again', 45, 44, 2, 2, NULL), ('confirmed', 50, 48, 1, 1, NULL)) t (hop, at, began, pod, tries, trace);`

func TestTraceOfWhatTheTablesHave(t *testing.T) {
	db := tables{postgrestest.New(t)}
	if _, err := db.Pool.Exec(t.Context(), fmt.Sprintf(fourLives, pods)); err != nil {
		t.Fatal(err)
	}
	life, ok, err := LifeOf(t.Context(), db, 1)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	trace := Tell(life, nil, nil)
	want := `   0.0ms           request at order-api pxvz9
    10ms    +10ms  ├─ 2 seats held, order and event stored
    25ms    +15ms  ├─ order.created confirmed by the broker after 15ms
    20ms   +0.0ms  ├─ delivered to payment-service rbdxc
    22ms   +2.0ms  │  ├─ payment SUCCEEDED, 100, and its event stored
    30ms   +8.0ms  │  └─ payment.succeeded confirmed by the broker after 8.0ms
    44ms    +14ms  ├─ delivered before, nobody noted to whom
    44ms   +0.0ms  └─ delivered for the 2nd time, to payment-service rbdxc
    45ms   +1.0ms     ├─ nothing to do: it had a payment
    48ms   +3.0ms     └─ delivered to order-api pxvz9
    50ms   +2.0ms        └─ CONFIRMED, 2 seats sold`
	if diff := cmp.Diff(want, strings.Join(trace.Lines(), "\n")); diff != "" {
		t.Error(diff)
	}
	if trace.ID != "4bf92f3577b34da6a3ce929d0e0e4736" || trace.Waits != "" {
		t.Errorf("trace %q waits %q", trace.ID, trace.Waits)
	}
	for _, line := range trace.Lines() {
		if n := len([]rune(line)); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if _, ok, err := LifeOf(t.Context(), db, 99); ok || err != nil {
		t.Error(ok, err)
	}

	slow, err := Slowest(t.Context(), db, 1)
	if err != nil || len(slow) != 1 || slow[0].Order != 4 || len(slow[0].Hops) != 0 {
		t.Errorf("%+v %v", slow, err)
	}
	stuck, err := Stuck(t.Context(), db, 10)
	if err != nil || len(stuck) != 2 || stuck[0].Order != 2 || stuck[1].Order != 3 {
		t.Fatalf("%+v %v", stuck, err)
	}
	queues := []QueueState{{Name: "payment.order-created.q", Messages: 7}}
	if w := Tell(stuck[0], queues, nil).Waits; !strings.HasPrefix(w, "for the broker to confirm order.created: it is in the outbox since ") || !strings.HasSuffix(w, "in the hands of order-api abcde") {
		t.Error(w)
	}
	if w := Tell(stuck[1], queues, nil).Waits; w != "for payment-service to take order.created from payment.order-created.q (7 waiting there, 0 consumers)" {
		t.Error(w)
	}
	letters := []Letter{{ID: "5f2c81ab", Key: "order.created", Order: 3, Reason: "no such thing"}}
	if w := Tell(stuck[1], queues, letters).Waits; w != "for you: its order.created is dead letter 5f2c81ab: no such thing" {
		t.Error(w)
	}
}

// Order 1 came to payment-service three times: a pod was killed with it, one lost its connection, and the third took the payment,
// which came to order-api twice. What is noted of others, before, after, alive, or of another queue, is of no concern.
const redelivered = `
INSERT INTO orders (id, user_id, show_id, quantity, status, created_at, ended_at) VALUES (1, 'u', 1, 1, 'CONFIRMED', '2025-01-01 10:00:00Z', '2025-01-01 10:00:09Z');
INSERT INTO order_events (order_id, hop, at, began, pod, tries) VALUES
	(1, 'payment_succeeded', '2025-01-01 10:00:06Z', '2025-01-01 10:00:05Z', 'payment-service-x-1-ccccc', 3),
	(1, 'confirmed', '2025-01-01 10:00:09Z', '2025-01-01 10:00:08Z', 'order-api-x-1-ddddd', 2);
INSERT INTO consumer_sessions (id, queue, pod, began, seen, ended) VALUES
	('a', 'payment.order-created.q', 'payment-service-x-1-aaaaa', '2025-01-01 09:00Z', '2025-01-01 09:59:58Z', NULL),
	('b', 'payment.order-created.q', 'payment-service-x-1-bbbbb', '2025-01-01 10:00:02Z', '2025-01-01 10:00:03Z', '2025-01-01 10:00:03Z'),
	('c', 'payment.order-created.q', 'payment-service-x-1-ccccc', '2025-01-01 10:00:04Z', '2025-01-01 10:00:05Z', NULL),
	('old', 'payment.order-created.q', 'payment-service-x-1-eeeee', '2025-01-01 08:00Z', '2025-01-01 09:00Z', '2025-01-01 09:00Z'),
	('killed long ago', 'payment.order-created.q', 'payment-service-x-1-fffff', '2025-01-01 08:00Z', '2025-01-01 09:59:52Z', NULL),
	('later', 'payment.order-created.q', 'payment-service-x-1-ggggg', '2025-01-01 11:00Z', '2025-01-01 11:00Z', '2025-01-01 11:00Z'),
	('alive', 'payment.order-created.q', 'payment-service-x-1-hhhhh', '2025-01-01 09:00Z', now(), NULL),
	('another', 'payment.events.q', 'payment-service-x-1-iiiii', '2025-01-01 09:00Z', '2025-01-01 10:00:01Z', '2025-01-01 10:00:01Z'),
	('d', 'order.payment-results.q', 'order-api-x-1-ddddd', '2025-01-01 09:00Z', '2025-01-01 10:00:09Z', '2025-01-01 12:00Z');`

func TestTraceTellsWhoHadAMessageBefore(t *testing.T) {
	db := tables{postgrestest.New(t)}
	if _, err := db.Pool.Exec(t.Context(), redelivered); err != nil {
		t.Fatal(err)
	}
	told := func() string {
		t.Helper()
		life, ok, err := LifeOf(t.Context(), db, 1)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		for _, line := range Tell(life, nil, nil).Lines() {
			if n := len([]rune(line)); n > 80 {
				t.Errorf("%d columns: %s", n, line)
			}
		}
		return strings.Join(Tell(life, nil, nil).Lines(), "\n")
	}
	want := `   0.0ms           ├─ unfinished by a pod that died: payment-service aaaaa
   0.0ms   +0.0ms  ├─ let go, as its session ended, by payment-service bbbbb
   0.0ms   +0.0ms  └─ delivered for the 3rd time, to payment-service ccccc
      1s      +1s     ├─ payment SUCCEEDED, and its event stored
      3s      +2s     ├─ delivered before, nobody noted to whom
      3s   +0.0ms     └─ delivered for the 2nd time, to order-api ddddd
      4s      +1s        └─ CONFIRMED, 1 seat sold`
	if diff := cmp.Diff(want, told()); diff != "" {
		t.Error(diff)
	}
	// Two that ended meanwhile, and one of them had it.
	if _, err := db.Pool.Exec(t.Context(), "UPDATE order_events SET tries = 2 WHERE hop = 'payment_succeeded'"); err != nil {
		t.Fatal(err)
	}
	if text := told(); !strings.Contains(text, "perhaps with one that died: payment-service aaaaa") || !strings.Contains(text, "perhaps with one that ended: payment-service bbbbb") {
		t.Error(text)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{-1: "0.0ms", 1500 * time.Microsecond: "1.5ms", 25 * time.Millisecond: "25ms", 2340 * time.Millisecond: "2.3s"} {
		if got := span(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}
