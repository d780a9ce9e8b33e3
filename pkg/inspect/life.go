package inspect

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"platformctl/pkg/contract"
)

// Database answers a statement that makes one JSON document in one row of one column.
type Database interface {
	JSON(ctx context.Context, statement string) ([]byte, error)
}

// Life is what the tables know of one order. Times are by the database's clock, but for those of the services that Hop.Began and
// Hop.At with it are compared to: the machine is one, and so is its clock.
type Life struct {
	At       time.Time   `json:"readAt"`
	Order    int64       `json:"order"`
	User     string      `json:"user"`
	Show     int64       `json:"show"`
	Quantity int64       `json:"quantity"`
	Status   string      `json:"status"`
	Created  time.Time   `json:"createdAt"`
	Ended    *time.Time  `json:"endedAt"` // nil while PENDING
	Expires  *time.Time  `json:"holdExpiresAt"`
	Payment  *Payment    `json:"payment"` // nil where there is none yet
	Outbox   []OutboxRow `json:"outbox"`  // its events that the broker has not confirmed
	Hops     []Hop       `json:"hops"`    // by time
}

// Payment is an order's payment.
type Payment struct {
	Status    string `json:"status"`
	Amount    int64  `json:"amount"`
	RefundDue bool   `json:"refundDue"`
}

// OutboxRow is an event on its way to the broker.
type OutboxRow struct {
	Key     string     `json:"key"`
	Relay   string     `json:"relay"` // the pod whose relay has it, and the life of that
	Lease   *time.Time `json:"leaseUntil"`
	Created time.Time  `json:"createdAt"`
}

// Hop is a row of the order's history. Began is when its message was delivered, its request came in, or its event was stored.
type Hop struct {
	Hop   string     `json:"hop"`
	At    time.Time  `json:"at"`
	Began *time.Time `json:"began"`
	Pod   string     `json:"pod"`
	Tries int64      `json:"tries"`
	Trace string     `json:"traceparent,omitempty"`
	// Before are the sessions, by their ends, that may have had its message before, where it came again: those of its queue that
	// ended while it was there.
	Before []Session `json:"before,omitempty"`
}

// Session is a consumer's, that has ended.
type Session struct {
	Pod   string     `json:"pod"`
	Seen  time.Time  `json:"seen"`  // at the last
	Ended *time.Time `json:"ended"` // nil where it ended without a word, for it was killed
}

// All by indexes on the order, but for the outbox, in which is only what is on its way. %s chooses the orders' ids.
const readLives = `
WITH chosen AS MATERIALIZED (%s)
SELECT coalesce(json_agg(l ORDER BY l.n), '[]') FROM (
	SELECT c.n, now() AS "readAt", o.id AS "order", o.user_id AS "user", o.show_id AS show, o.quantity, o.status, o.created_at AS "createdAt", o.ended_at AS "endedAt",
		(SELECT r.expires_at FROM inventory_reservations r WHERE r.order_id = o.id LIMIT 1) AS "holdExpiresAt",
		(SELECT json_build_object('status', p.status, 'amount', p.amount, 'refundDue', p.refund_due) FROM payments p WHERE p.order_id = o.id LIMIT 1) AS payment,
		(SELECT json_agg(json_build_object('key', e.routing_key, 'relay', coalesce(e.relay, ''), 'leaseUntil', e.lease_until, 'createdAt', e.created_at) ORDER BY e.id)
			FROM outbox e WHERE e.correlation_id = o.id::text) AS outbox,
		(SELECT json_agg(json_build_object('hop', h.hop, 'at', h.at, 'began', nullif(h.began, '0001-01-01 00:00:00Z'), 'pod', h.pod, 'tries', h.tries, 'traceparent', coalesce(h.traceparent, ''),
			'before', CASE WHEN h.tries > 1 THEN (` + sessionsBefore + `) END) ORDER BY h.at)
			FROM order_events h WHERE h.order_id = o.id) AS hops
	FROM chosen c JOIN orders o ON o.id = c.id
) l`

// A session says each five seconds that it is there; one that was not seen for longer is dead. The one that has the message now is not
// among them. The second is for clocks, and for an end that was noted after the broker had seen it.
const sessionsBefore = `
	SELECT json_agg(json_build_object('pod', s.pod, 'seen', s.seen, 'ended', s.ended) ORDER BY coalesce(s.ended, s.seen))
	FROM consumer_sessions s
	WHERE s.queue = CASE WHEN h.hop IN ('payment_succeeded', 'payment_failed', 'created_again') THEN '` + contract.QueueOrderCreated + `' ELSE '` + contract.QueuePaymentResults + `' END
		AND s.began < h.began AND coalesce(s.ended, s.seen) <= h.began + interval '1 second'
		AND coalesce(s.ended, s.seen + interval '7 seconds') >= o.created_at AND (s.ended IS NOT NULL OR s.seen < now() - interval '7 seconds')
		AND s.id IS DISTINCT FROM (SELECT c.id FROM consumer_sessions c WHERE c.queue = s.queue AND c.pod = h.pod AND c.began < h.began ORDER BY c.began DESC LIMIT 1)`

// What is stuck is pending for longer than that: orders end within milliseconds.
const stuckAfter = 5 * time.Second

// LifeOf reads one order; ok is false where there is none.
func LifeOf(ctx context.Context, db Database, order int64) (life Life, ok bool, err error) {
	lives, err := lives(ctx, db, fmt.Sprintf("SELECT %d::int4 AS id, 1 AS n", order))
	if err != nil || len(lives) == 0 {
		return Life{}, false, err
	}
	return lives[0], true, nil
}

// Slowest reads the n orders that took the longest from their storing to their end, the slowest first.
func Slowest(ctx context.Context, db Database, n int64) ([]Life, error) {
	return lives(ctx, db, fmt.Sprintf(`SELECT id, row_number() OVER (ORDER BY ended_at - created_at DESC, id) AS n
		FROM orders WHERE ended_at IS NOT NULL ORDER BY ended_at - created_at DESC, id LIMIT %d`, n))
}

// Stuck reads at most n orders that should have ended by now, the oldest first.
func Stuck(ctx context.Context, db Database, n int64) ([]Life, error) {
	return lives(ctx, db, fmt.Sprintf(`SELECT id, row_number() OVER (ORDER BY created_at, id) AS n
		FROM orders WHERE status = 'PENDING' AND created_at < now() - interval '%d seconds' ORDER BY created_at, id LIMIT %d`, int(stuckAfter.Seconds()), n))
}

func lives(ctx context.Context, db Database, chosen string) (lives []Life, err error) {
	raw, err := db.JSON(ctx, fmt.Sprintf(readLives, chosen))
	if err != nil {
		return nil, fmt.Errorf("read the lives of orders: %w", err)
	}
	if err := json.Unmarshal(raw, &lives); err != nil {
		return nil, fmt.Errorf("read the lives of orders: %w", err)
	}
	return lives, nil
}
