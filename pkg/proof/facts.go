package proof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"platformctl/pkg/contract"
)

// Database answers a statement that makes one JSON document in one row of one column.
type Database interface {
	JSON(ctx context.Context, statement string) ([]byte, error)
}

// Broker lists the queues, exact at the moment of asking, and reads the dead letters, which stay where they are.
type Broker interface {
	Queues(ctx context.Context) ([]Queue, error)
	Letters(ctx context.Context) ([]Letter, error)
}

// Platform is what is read of a running platform.
type Platform struct {
	Database Database
	Broker   Broker
	History  *History // of clients; nil where there is none
}

// One statement is one snapshot: it is true also while orders flow. %[1]s is Facts.Since, %[2]d is most, %[3]s are the
// users that a history knows, %[4]d is candidates.
//
// An order's hop is written down by the statement that makes it so. That seats are taken is written behind the lock of their
// counter, and that they came back, before it: in the order of the times no more can seem to be held than were.
const readFacts = `
WITH params AS MATERIALIZED (SELECT coalesce(%[1]s, now()) AS since),
sums AS (
	SELECT show_id, sum(quantity) AS seats FROM inventory_reservations WHERE status IN ('RESERVED', 'COMMITTED') GROUP BY show_id
), states AS (
	SELECT coalesce(o.id, r.order_id, p.order_id) AS id,
		coalesce(o.status, '') AS "order", coalesce(r.status, '') AS hold, coalesce(p.status, '') AS payment,
		coalesce(p.refund_due, false) AS refund,
		o.ended_at IS NOT NULL AS ended,
		coalesce((r.show_id, r.quantity) = (o.show_id, o.quantity), true) AND coalesce(p.user_id = o.user_id, true) AS agrees,
		coalesce(r.status = 'RESERVED' AND r.expires_at < since, false) AS lapsed,
		coalesce(CASE
			WHEN o.status = 'PENDING' THEN o.created_at <= since
			WHEN o.status = 'CANCELLED' AND r.status = 'EXPIRED' AND p.status = 'SUCCEEDED' AND NOT p.refund_due THEN p.created_at <= since
		END, false) AS waiting
	FROM params, orders o FULL JOIN inventory_reservations r ON r.order_id = o.id FULL JOIN payments p ON p.order_id = coalesce(o.id, r.order_id)
), cells AS (
	SELECT "order", hold, payment, refund, ended, agrees, lapsed, waiting, count(*) AS count,
		(array_agg(id ORDER BY id) FILTER (WHERE id IS NOT NULL))[1:%[2]d] AS first
	FROM states GROUP BY "order", hold, payment, refund, ended, agrees, lapsed, waiting
), twice AS (
	SELECT 'order_id' AS what, order_id::text AS value FROM payments GROUP BY order_id HAVING count(*) > 1
	UNION ALL
	SELECT 'message_id', message_id FROM payments GROUP BY message_id HAVING count(*) > 1
), lives AS MATERIALIZED (
	SELECT order_id AS id, count(*) FILTER (WHERE hop = 'accepted') AS accepted, min(at) FILTER (WHERE hop = 'accepted') AS at,
		count(*) FILTER (WHERE hop IN ('confirmed', 'cancelled', 'expired')) AS ends, count(*) FILTER (WHERE hop = 'expired') AS lapses,
		max(hop) FILTER (WHERE hop IN ('confirmed', 'cancelled', 'expired')) AS last
	FROM order_events GROUP BY order_id
), twisted AS (
	SELECT l.id, u.invariant, u.how
	FROM lives l LEFT JOIN orders o ON o.id = l.id LEFT JOIN inventory_reservations r ON r.order_id = l.id
	CROSS JOIN LATERAL (VALUES
		('I1', CASE WHEN l.accepted > 0 AND o.id IS NULL THEN 'it was accepted, and is not there' END),
		('I9', CASE WHEN l.accepted > 1 THEN 'it was accepted ' || l.accepted || ' times' END),
		('I9', CASE WHEN l.ends > 1 THEN 'it ended ' || l.ends || ' times' END),
		('I9', CASE WHEN l.ends = 1 AND o.status <> CASE l.last WHEN 'confirmed' THEN 'CONFIRMED' ELSE 'CANCELLED' END
			THEN 'it ended as ' || l.last || ', and is ' || o.status END),
		('I10', CASE WHEN l.lapses > 1 THEN 'its hold lapsed ' || l.lapses || ' times' END),
		('I10', CASE WHEN l.lapses > 0 AND r.status IS DISTINCT FROM 'EXPIRED' THEN 'its hold lapsed, and its seats are ' || coalesce(r.status, 'not there') END),
		('I10', CASE WHEN l.lapses = 0 AND l.ends > 0 AND r.status = 'EXPIRED' THEN 'it ended as ' || l.last || ', and its hold lapsed besides' END)
	) AS u (invariant, how) WHERE u.how IS NOT NULL
), running AS (
	SELECT o.show_id, sum(CASE e.hop WHEN 'accepted' THEN o.quantity ELSE -o.quantity END)
		OVER (PARTITION BY o.show_id ORDER BY e.at, e.hop = 'accepted' ROWS UNBOUNDED PRECEDING) AS seats
	FROM order_events e JOIN orders o ON o.id = e.order_id JOIN lives l ON l.id = e.order_id LEFT JOIN inventory_reservations r ON r.order_id = e.order_id
	WHERE e.hop IN ('accepted', 'cancelled', 'expired')
		AND (l.ends > 0 OR r.status IN ('RESERVED', 'COMMITTED')) -- an old service that cancels leaves no time at which the seats came back
), peaks AS (
	SELECT show_id, max(seats) AS peak FROM running GROUP BY show_id
), unpaid AS (
	SELECT l.id FROM params, lives l LEFT JOIN payments p ON p.order_id = l.id LEFT JOIN outbox b ON b.message_id = 'order.created:' || l.id
	WHERE l.accepted > 0 AND l.at <= since AND p.order_id IS NULL AND b.id IS NULL
), unsettled AS (
	SELECT o.id FROM params, orders o JOIN payments p ON p.order_id = o.id
	WHERE o.status = 'PENDING' AND p.created_at <= since
		AND NOT EXISTS (SELECT FROM outbox b WHERE b.correlation_id = o.id::text AND b.routing_key LIKE 'payment.%%')
), unexpected AS (
	SELECT order_id AS id FROM payments WHERE message_id LIKE 'order.created:%%' AND message_id <> 'order.created:' || order_id
), shared AS (
	SELECT order_id AS id FROM order_keys GROUP BY order_id HAVING count(*) > 1
), astray AS (
	SELECT k.order_id AS id FROM order_keys k LEFT JOIN orders o ON o.id = k.order_id WHERE o.id IS NULL
)
SELECT json_build_object(
	'at', now(), 'since', (SELECT since FROM params), 'newest', (SELECT max(created_at) FROM orders),
	'orders', (SELECT count(*) FROM orders), 'payments', (SELECT count(*) FROM payments),
	'shows', (SELECT json_agg(json_build_object('id', coalesce(s.id, t.show_id), 'name', s.name, 'exists', s.id IS NOT NULL,
			'capacity', coalesce(s.capacity, 0), 'sum', coalesce(t.seats, 0), 'counter', c.held, 'limit', c.capacity,
			'peak', coalesce(k.peak, 0)) ORDER BY coalesce(s.id, t.show_id))
		FROM shows s FULL JOIN sums t ON t.show_id = s.id LEFT JOIN show_seats c ON c.show_id = coalesce(s.id, t.show_id)
		LEFT JOIN peaks k ON k.show_id = s.id),
	'cells', (SELECT json_agg(c) FROM cells c),
	'twice', (SELECT json_agg(t) FROM (
		SELECT what, count(*) AS count, (array_agg(value ORDER BY value))[1:%[2]d] AS first FROM twice GROUP BY what ORDER BY what) t),
	'outbox', (SELECT json_build_object('count', count(*), 'waiting', count(*) FILTER (WHERE created_at <= since),
			'first', (array_agg(message_id ORDER BY id) FILTER (WHERE created_at <= since))[1:%[2]d])
		FROM params, outbox),
	'keys', json_build_object('count', (SELECT count(*) FROM order_keys), 'astray', (SELECT json_build_object('count', count(*), 'first', (array_agg(id ORDER BY id))[1:%[4]d]) FROM astray),
		'shared', (SELECT json_build_object('count', count(*), 'first', (array_agg(id ORDER BY id))[1:%[4]d]) FROM shared)),
	'lives', (SELECT json_build_object('accepted', count(*) FILTER (WHERE l.accepted > 0), 'ended', count(*) FILTER (WHERE l.ends > 0),
			'lapsed', count(*) FILTER (WHERE l.lapses > 0), 'seats', coalesce(sum(o.quantity) FILTER (WHERE l.lapses > 0), 0),
			'broken', (SELECT json_agg(t) FROM (SELECT invariant, how, count(*) AS count, (array_agg(id ORDER BY id))[1:%[2]d] AS first
				FROM twisted GROUP BY invariant, how ORDER BY invariant, how) t))
		FROM lives l LEFT JOIN orders o ON o.id = l.id),
	'events', json_build_object(
		'sent', (SELECT count(*) FROM lives WHERE accepted > 0) + (SELECT count(*) FROM payments WHERE message_id LIKE 'order.created:%%'),
		'unpaid', (SELECT json_build_object('count', count(*), 'first', (array_agg(id ORDER BY id))[1:%[4]d]) FROM unpaid),
		'unsettled', (SELECT json_build_object('count', count(*), 'first', (array_agg(id ORDER BY id))[1:%[4]d]) FROM unsettled),
		'unexpected', (SELECT json_build_object('count', count(*), 'first', (array_agg(id ORDER BY id))[1:%[4]d]) FROM unexpected)),
	'rows', (SELECT json_agg(json_build_object('id', o.id, 'user', o.user_id, 'show', o.show_id, 'quantity', o.quantity, 'status', o.status,
			'payments', (SELECT count(*) FROM payments p WHERE p.order_id = o.id), 'took', coalesce(extract(epoch FROM o.ended_at - o.created_at), 0)))
		FROM orders o WHERE %[3]s))`

// candidates is how many orders are looked for among the dead letters.
const candidates = 10_000

// Look reads everything. A zero since is the moment of the look.
func (p Platform) Look(ctx context.Context, since time.Time) (Facts, error) {
	// The broker before the rest: what has left its queues by then has had its effect in the database. And the outbox before the broker:
	// what goes from the one to the other meanwhile is in neither.
	leaving, err := p.leaving(ctx, since)
	if err != nil {
		return Facts{}, err
	}
	queues, err := p.Broker.Queues(ctx)
	if err != nil {
		return Facts{}, err
	}
	var letters []Letter
	if messages(queues, contract.QueueDeadLetters) > 0 {
		if letters, err = p.Broker.Letters(ctx); err != nil {
			return Facts{}, err
		}
	}
	raw, err := p.Database.JSON(ctx, fmt.Sprintf(readFacts, timestamp(since), most, ofRuns(p.History), candidates))
	if err != nil {
		return Facts{}, err
	}
	var found Facts
	if err := json.Unmarshal(raw, &found); err != nil {
		return Facts{}, fmt.Errorf("read what the database answered: %w", err)
	}
	if found.At.IsZero() || found.Since.IsZero() {
		return Facts{}, errors.New("read what the database answered: there is no time in it")
	}
	found.Leaving, found.Queues, found.Letters, found.History = leaving, queues, letters, p.History
	return found, nil
}

const readLeaving = `
SELECT coalesce(json_agg(message_id), '[]') FROM (SELECT message_id FROM outbox WHERE created_at <= coalesce(%[1]s, now()) ORDER BY id LIMIT %[2]d) t`

func (p Platform) leaving(ctx context.Context, since time.Time) (messages []string, err error) {
	raw, err := p.Database.JSON(ctx, fmt.Sprintf(readLeaving, timestamp(since), candidates))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &messages); err != nil {
		return nil, fmt.Errorf("read what the database answered: %w", err)
	}
	return messages, nil
}

// ofRuns is the condition on an order to be one of a history's runs.
func ofRuns(h *History) string {
	if h == nil {
		return "false"
	}
	var any []string
	for _, run := range h.Runs {
		any = append(any, "starts_with(o.user_id, '"+run+"-')")
	}
	return "(" + strings.Join(any, " OR ") + ")"
}

// It reads all orders: an index of those that wait would have each that ends written anew into all indexes.
const readMotion = `
SELECT json_build_object('at', now(),
	'orders', count(*) FILTER (WHERE status = 'PENDING' AND created_at <= coalesce(%[1]s, now())),
	'refunds', CASE WHEN count(*) FILTER (WHERE status = 'PENDING' AND created_at <= coalesce(%[1]s, now())) > 0 THEN 0 ELSE (
		SELECT count(*) FROM payments p JOIN orders o ON o.id = p.order_id JOIN inventory_reservations r ON r.order_id = p.order_id
		WHERE p.status = 'SUCCEEDED' AND NOT p.refund_due AND o.status = 'CANCELLED' AND r.status = 'EXPIRED' AND p.created_at <= coalesce(%[1]s, now())) END,
	'flowing', coalesce(max(created_at) > %[1]s, false),
	'outbox', (SELECT count(*) FROM outbox WHERE created_at <= coalesce(%[1]s, now())))
FROM orders`

// moving is what is on its way.
type moving struct {
	At      time.Time `json:"at"`
	Orders  int64     `json:"orders"`
	Refunds int64     `json:"refunds"` // paid after their end, and not marked yet to be paid back; 0 where orders are PENDING
	Outbox  int64     `json:"outbox"`
	Flowing bool      `json:"flowing"` // orders came after the time that is asked for
	queues  int64     // messages; not counted while they may be of orders that came later
}

func (m moving) rests() bool {
	return m.Orders == 0 && m.Refunds == 0 && m.Outbox == 0 && m.queues == 0
}

func (p Platform) motion(ctx context.Context, since time.Time) (m moving, err error) {
	raw, err := p.Database.JSON(ctx, fmt.Sprintf(readMotion, timestamp(since)))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("read what the database answered: %w", err)
	}
	if m.Orders > 0 || m.Refunds > 0 || m.Outbox > 0 || m.Flowing {
		return m, nil
	}
	queues, err := p.Broker.Queues(ctx)
	if err != nil {
		return m, err
	}
	m.queues = inQueues(queues)
	return m, nil
}

// timestamp is t as SQL.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return "NULL::timestamptz"
	}
	return "'" + t.UTC().Format("2006-01-02T15:04:05.999999Z") + "'::timestamptz"
}
