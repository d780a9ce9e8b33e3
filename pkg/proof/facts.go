package proof

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Database answers a statement that makes one JSON document in one row of one column.
type Database interface {
	JSON(ctx context.Context, statement string) ([]byte, error)
}

// Broker lists the queues, exact at the moment of asking.
type Broker interface {
	Queues(ctx context.Context) ([]Queue, error)
}

// Platform is what is read of a running platform.
type Platform struct {
	Database Database
	Broker   Broker
}

// One statement is one snapshot: it is true also while orders flow. %s is Facts.Since, %d is most.
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
)
SELECT json_build_object(
	'at', now(), 'since', (SELECT since FROM params), 'newest', (SELECT max(created_at) FROM orders),
	'orders', (SELECT count(*) FROM orders), 'payments', (SELECT count(*) FROM payments),
	'shows', (SELECT json_agg(json_build_object('id', coalesce(s.id, t.show_id), 'name', s.name, 'exists', s.id IS NOT NULL,
			'capacity', coalesce(s.capacity, 0), 'sum', coalesce(t.seats, 0), 'counter', c.held, 'limit', c.capacity) ORDER BY coalesce(s.id, t.show_id))
		FROM shows s FULL JOIN sums t ON t.show_id = s.id LEFT JOIN show_seats c ON c.show_id = coalesce(s.id, t.show_id)),
	'cells', (SELECT json_agg(c) FROM cells c),
	'twice', (SELECT json_agg(t) FROM (
		SELECT what, count(*) AS count, (array_agg(value ORDER BY value))[1:%[2]d] AS first FROM twice GROUP BY what ORDER BY what) t),
	'outbox', (SELECT json_build_object('count', count(*), 'waiting', count(*) FILTER (WHERE created_at <= since),
			'first', (array_agg(message_id ORDER BY id) FILTER (WHERE created_at <= since))[1:%[2]d])
		FROM params, outbox))`

// Look reads everything. A zero since is the moment of the look.
func (p Platform) Look(ctx context.Context, since time.Time) (Facts, error) {
	// The broker first: what has left its queues by then has had its effect in the database.
	queues, err := p.Broker.Queues(ctx)
	if err != nil {
		return Facts{}, err
	}
	raw, err := p.Database.JSON(ctx, fmt.Sprintf(readFacts, timestamp(since), most))
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
	found.Queues = queues
	return found, nil
}

// What is on its way is found by the small indexes, whatever the size of the tables.
const readMotion = `
SELECT json_build_object('at', now(),
	'orders', (SELECT count(*) FROM inventory_reservations r JOIN orders o ON o.id = r.order_id
		WHERE r.status = 'RESERVED' AND o.status = 'PENDING' AND r.created_at <= coalesce(%[1]s, now())),
	'outbox', (SELECT count(*) FROM outbox WHERE created_at <= coalesce(%[1]s, now())))`

// moving is what is on its way.
type moving struct {
	At     time.Time `json:"at"`
	Orders int64     `json:"orders"`
	Outbox int64     `json:"outbox"`
	queues int64     // messages
}

func (m moving) rests() bool { return m == moving{At: m.At} }

func (p Platform) motion(ctx context.Context, since time.Time) (m moving, err error) {
	raw, err := p.Database.JSON(ctx, fmt.Sprintf(readMotion, timestamp(since)))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("read what the database answered: %w", err)
	}
	if m.Orders > 0 || m.Outbox > 0 {
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
