package payment

import (
	"context"
	"fmt"
	"time"

	"platformctl/pkg/outbox"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Schema is the version of the database that the statements here need; order-api's migrations bring it there.
const Schema = 10

// Store is the payments in the database. Each method is one statement, and so one transaction.
type Store struct {
	DB    *pgxpool.Pool
	Pod   string // written into the history
	Relay string // the relay that new events are handed to
}

// The unique message id and order id are the inbox: a row that is there already is not inserted again, and only what was
// inserted goes into the outbox. An order is committed before it is published, so one that is not there never was.
const insertPayments = `
WITH batch AS MATERIALIZED (
	SELECT * FROM unnest($1::int4[], $2::text[], $3::int4[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[], $12::text[], $13::int4[])
	WITH ORDINALITY AS t (order_id, user_id, amount, status, message_id, event_id, routing_key, payload, trace, tries, ord)
), known AS MATERIALIZED (
	SELECT id FROM orders WHERE id = ANY($1)
), paid AS (
	INSERT INTO payments (order_id, user_id, amount, status, message_id)
	SELECT order_id, user_id, amount, status, message_id FROM batch WHERE order_id IN (SELECT id FROM known) ON CONFLICT DO NOTHING RETURNING order_id
), events AS (
	INSERT INTO outbox (message_id, correlation_id, routing_key, payload, traceparent, relay, lease_until)
	SELECT b.event_id, b.order_id::text, b.routing_key, b.payload, b.trace, $9, now() + $10::interval
	FROM batch b WHERE b.order_id IN (SELECT order_id FROM paid) ORDER BY b.ord RETURNING id, message_id
), history AS (
	INSERT INTO order_events (order_id, hop, pod, tries, began)
	SELECT b.order_id, CASE WHEN b.order_id IN (SELECT order_id FROM paid) THEN 'payment_' || lower(b.status) ELSE 'created_again' END,
		$11, b.tries, $14::timestamptz
	FROM batch b WHERE b.order_id IN (SELECT order_id FROM paid) OR b.tries > 1 AND b.order_id IN (SELECT id FROM known)
)
SELECT b.ord::int4, e.id, b.order_id IN (SELECT id FROM known) FROM batch b LEFT JOIN events e ON e.message_id = b.event_id
WHERE e.id IS NOT NULL OR b.order_id NOT IN (SELECT id FROM known) OR NOT EXISTS (SELECT FROM payments p WHERE p.order_id = b.order_id)`

// Inserted is what became of payments, but for those whose orders had one already.
type Inserted struct {
	Events  []outbox.Event // to hand to the relay
	Unknown []int32        // orders that never were
	Unpaid  []int          // places of orders that have no payment after all: their message id is another's, or their payment was being stored
}

// Insert stores payments and their events, except those of orders or messages that have one already. The orders were delivered at came.
// No order may come twice.
func (s *Store) Insert(ctx context.Context, payments []Payment, came, at time.Time) (done Inserted, err error) {
	n := len(payments)
	orders, users, amounts, statuses, messages := make([]int32, n), make([]string, n), make([]int32, n), make([]string, n), make([]string, n)
	ids, keys, payloads := make([]string, n), make([]string, n), make([][]byte, n)
	traces, tries := make([]string, n), make([]int32, n)
	for i, p := range payments {
		traces[i], tries[i] = string(p.Trace.Next()), p.Tries
		orders[i], users[i], amounts[i], statuses[i], messages[i] = p.Order.OrderID, p.Order.UserID.Text(), p.Amount, string(p.Status), p.Order.MessageID
		e := p.event(at)
		ids[i], keys[i], payloads[i] = e.MessageID, e.Type, e.Encode()
	}
	rows, err := s.DB.Query(ctx, insertPayments, orders, users, amounts, statuses, messages, ids, keys, payloads, s.Relay, outbox.Lease, s.Pod, traces, tries, came)
	if err != nil {
		return Inserted{}, fmt.Errorf("store %d payments: %w", n, err)
	}
	done.Events = make([]outbox.Event, 0, n)
	var ord int32
	var id *int64
	var known bool
	if _, err := pgx.ForEachRow(rows, []any{&ord, &id, &known}, func() error {
		switch i := int(ord - 1); {
		case id != nil:
			done.Events = append(done.Events, outbox.Event{
				ID: *id, MessageID: ids[i], CorrelationID: fmt.Sprint(orders[i]), Key: keys[i], Payload: payloads[i], Trace: traces[i], CreatedAt: at,
			})
		case known:
			done.Unpaid = append(done.Unpaid, i)
		default:
			done.Unknown = append(done.Unknown, orders[i])
		}
		return nil
	}); err != nil {
		return Inserted{}, fmt.Errorf("store %d payments: %w", n, err)
	}
	return done, nil
}

// Row is a payment as GET /payments shows it: the table's columns under their names.
type Row struct {
	ID        int32     `json:"id"`
	OrderID   int32     `json:"order_id"`
	UserID    string    `json:"user_id"`
	Amount    int32     `json:"amount"`
	Status    Status    `json:"status"`
	MessageID string    `json:"message_id"`
	CreatedAt time.Time `json:"created_at"`
	RefundDue bool      `json:"refund_due"` // paid, but the order had been cancelled
}

const newestPayments = `SELECT id, order_id, user_id, amount, status, message_id, created_at, refund_due FROM payments ORDER BY id DESC LIMIT $1`

// Newest lists the newest payments first.
func (s *Store) Newest(ctx context.Context, limit int) ([]Row, error) {
	rows, err := s.DB.Query(ctx, newestPayments, limit)
	if err != nil {
		return nil, fmt.Errorf("list payments: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Row])
	if err != nil {
		return nil, fmt.Errorf("list payments: %w", err)
	}
	for i := range list {
		list[i].CreatedAt = list[i].CreatedAt.UTC()
	}
	return list, nil
}
