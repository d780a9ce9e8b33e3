package order

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/outbox"
	"platformctl/pkg/postgres"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrNotFound says that there is no such order.
var ErrNotFound = errors.New("order not found")

// Store is the orders in the database. Each method is one statement, and so one transaction, but for Expire.
type Store struct {
	DB    *pgxpool.Pool
	Pod   string        // written into the history
	Relay string        // the relay that new events are handed to
	Hold  time.Duration // how long seats are held for a payment
}

// Request is an order that was asked for. ID and CreatedAt are given before it is stored.
type Request struct {
	ID        int32
	User      contract.UserID
	Show      int32
	Quantity  int32
	CreatedAt time.Time
	Key       string         // its idempotency key, or ""
	Came      time.Time      // when it came in
	Trace     contract.Trace // that it belongs to
}

// fingerprint tells requests apart by what they order.
func (r Request) fingerprint() []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %s", r.Show, r.Quantity, []byte(r.User)))
	return sum[:]
}

// Outcome is what became of a Request.
type Outcome struct {
	ID        int32 // the order's; not the request's where its key had been answered by an earlier order
	Accepted  bool
	KeyReused bool         // its key stands for another request
	NoShow    bool         // there is no such show
	Available int32        // the seats left, of a refused one
	Event     outbox.Event // of an accepted one: to hand to the relay
}

// The sequence is looked up once, not for each id.
const reserveIDs = `
WITH s AS MATERIALIZED (SELECT pg_get_serial_sequence('orders', 'id')::regclass AS ids)
SELECT nextval(s.ids)::int4 FROM s, generate_series(1, $1)`

// ReserveIDs takes n order ids that nobody else gets.
func (s *Store) ReserveIDs(ctx context.Context, n int) ([]int32, error) {
	rows, err := s.DB.Query(ctx, reserveIDs, n)
	if err != nil {
		return nil, fmt.Errorf("reserve order ids: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return nil, fmt.Errorf("reserve order ids: %w", err)
	}
	return ids, nil
}

const acceptOrders = `
SELECT accepted, order_id, available, event_id, key_reused
FROM accept_orders($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`

// Accept decides a batch in the order it came, stores what was accepted and answers for each. repeated says that an earlier
// call with this very batch may have committed. No key may come twice in a batch.
func (s *Store) Accept(ctx context.Context, batch []Request, repeated bool) ([]Outcome, error) {
	n := len(batch)
	ids, users, shows, quantities, payloads := make([]int32, n), make([]string, n), make([]int32, n), make([]int32, n), make([][]byte, n)
	keys, hashes := []*string{}, [][]byte{} // empty where no order has a key
	var once []int32                        // the shows, each once
	came, traces := make([]time.Time, n), make([]string, n)
	seats := int64(0)
	for i, r := range batch {
		if r.Key != "" {
			if len(keys) == 0 {
				keys, hashes = make([]*string, n), make([][]byte, n)
			}
			keys[i], hashes[i] = &r.Key, r.fingerprint()
		}
		came[i], traces[i] = r.Came, string(r.Trace)
		ids[i], users[i], shows[i], quantities[i] = r.ID, r.User.Text(), r.Show, r.Quantity
		if seats += int64(r.Quantity); !slices.Contains(once, r.Show) {
			once = append(once, r.Show)
		}
		payloads[i] = contract.OrderCreated{
			MessageID: messageID(r.ID), CreatedAt: r.CreatedAt, OrderID: r.ID, UserID: r.User, ShowID: r.Show, Quantity: r.Quantity,
			Status: string(Pending), ExpiresAt: r.CreatedAt.Add(s.Hold),
		}.Encode()
	}
	rows, err := s.DB.Query(ctx, acceptOrders, ids, users, shows, quantities, payloads, keys, hashes, once, seats, s.Hold, s.Relay, outbox.Lease, s.Pod, repeated, came, traces)
	if err != nil {
		return nil, fmt.Errorf("accept %d orders: %w", n, err)
	}
	outcomes := make([]Outcome, 0, n)
	var accepted, reused bool
	var id, available *int32
	var event *int64
	_, err = pgx.ForEachRow(rows, []any{&accepted, &id, &available, &event, &reused}, func() error {
		r := batch[len(outcomes)]
		o := Outcome{ID: r.ID, Accepted: accepted, KeyReused: reused, NoShow: available == nil}
		if id != nil {
			o.ID = *id
		}
		if available != nil {
			o.Available = *available
		}
		if event != nil {
			o.Event = outbox.Event{
				ID: *event, MessageID: messageID(r.ID), CorrelationID: decimal(r.ID), Key: contract.KeyOrderCreated,
				Payload: payloads[len(outcomes)], Trace: string(r.Trace), CreatedAt: r.CreatedAt,
			}
		}
		outcomes = append(outcomes, o)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("accept %d orders: %w", n, err)
	}
	if len(outcomes) != n {
		return nil, fmt.Errorf("accept %d orders: %d answers", n, len(outcomes))
	}
	return outcomes, nil
}

// messageID is the same whenever the event of an order is made. accept_orders makes it too.
func messageID(order int32) string { return contract.KeyOrderCreated + ":" + decimal(order) }

func decimal(n int32) string { return strconv.Itoa(int(n)) }

// Arrival says how messages came, for the history: when, and which orders' had been delivered before, and how often until then.
type Arrival struct {
	At           time.Time
	Again, Tries []int32 // an order and its number of deliveries, this one included
}

// Guarded by the state: what is not PENDING any more is not touched. The reservations' rows are locked after the orders',
// and the seat counters, by trigger, after both. "= ANY" and no join with unnest, whose plan on cold tables is a scan a row.
const settleOrders = `
WITH settled AS (
	UPDATE orders SET status = CASE WHEN id = ANY($2::int4[]) THEN 'CONFIRMED' ELSE 'CANCELLED' END, ended_at = now()
	WHERE id = ANY($1::int4[]) AND status = 'PENDING' RETURNING id, status, created_at
), reservations AS (
	UPDATE inventory_reservations SET status = CASE WHEN order_id = ANY($2::int4[]) THEN 'COMMITTED' ELSE 'RELEASED' END
	WHERE order_id = ANY(ARRAY(SELECT id FROM settled)) AND status = 'RESERVED' -- an order that had ended keeps what it has
), history AS (
	INSERT INTO order_events (order_id, hop, pod, tries, began)
	SELECT id, lower(status), $3, coalesce(($6::int4[])[array_position($5::int4[], id)], 1), $4 FROM settled
)
SELECT id, extract(epoch FROM now() - created_at)::float8 FROM settled`

// Settled is an order that had its payment's result, and its age then.
type Settled struct {
	ID  int32
	Age time.Duration
}

// Settle ends the given orders, those in paid by CONFIRMED and the others by CANCELLED, and returns those that were still
// PENDING. paid is a part of orders; no id may come twice.
func (s *Store) Settle(ctx context.Context, orders, paid []int32, by Arrival) ([]Settled, error) {
	settled, err := s.settled(ctx, settleOrders, orders, paid, s.Pod, by.At, by.Again, by.Tries)
	if err != nil {
		return nil, fmt.Errorf("settle %d orders: %w", len(orders), err)
	}
	return settled, nil
}

func (s *Store) settled(ctx context.Context, statement string, args ...any) ([]Settled, error) {
	rows, err := s.DB.Query(ctx, statement, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (o Settled, err error) {
		var age float64
		err = row.Scan(&o.ID, &age)
		o.Age = time.Duration(age * float64(time.Second))
		return o, err
	})
}

const lateResults = `
WITH refunds AS (
	UPDATE payments SET refund_due = true
	WHERE order_id = ANY($2::int4[]) AND status = 'SUCCEEDED' AND NOT refund_due
		AND EXISTS (SELECT FROM orders o WHERE o.id = payments.order_id AND o.status = 'CANCELLED')
	RETURNING order_id
), history AS (
	INSERT INTO order_events (order_id, hop, pod) SELECT order_id, 'refund_due', $3 FROM refunds
), again AS (
	INSERT INTO order_events (order_id, hop, pod, tries, began)
	SELECT t.id, 'result_again', $3, t.tries, $4 FROM unnest($5::int4[], $6::int4[]) AS t (id, tries) WHERE t.id = ANY($1::int4[])
), heard AS (
	INSERT INTO order_events (order_id, hop, pod) SELECT e.order_id, 'heard', $3 FROM order_events e WHERE e.order_id = ANY($2::int4[]) AND e.hop = 'unheard'
		AND NOT EXISTS (SELECT FROM order_events h WHERE h.order_id = e.order_id AND h.hop = 'heard')
)
SELECT id, extract(epoch FROM now() - created_at)::float8 FROM orders WHERE id = ANY($1::int4[])`

// Late takes results that came for orders which had ended before, or never were: payments that succeeded for a cancelled
// order become due to be paid back. It returns the orders that exist. paid is a part of orders.
func (s *Store) Late(ctx context.Context, orders, paid []int32, by Arrival) ([]Settled, error) {
	exist, err := s.settled(ctx, lateResults, orders, paid, s.Pod, by.At, by.Again, by.Tries)
	if err != nil {
		return nil, fmt.Errorf("look at %d late results: %w", len(orders), err)
	}
	return exist, nil
}

// Without locks: what is found is only a hint for expireOrders. Reservations of orders that an old service confirmed and
// left RESERVED are not due, and one that belongs to no order is. Most that it looks at were paid, and only the others' orders
// are asked for. One that has lapsed, and was paid in that moment, is unpaid until its money is due back. Holds that end at the same
// moment are looked at together, so that the next look can begin after it.
const dueHolds = `
SELECT now(), pg_relation_filenode('inventory_reservations'), count(*) >= $2, max(expires_at),
	array_agg(id) FILTER (WHERE due), array_agg(order_id) FILTER (WHERE due), array_agg(order_id) FILTER (WHERE unpaid)
FROM (
	SELECT id, coalesce(order_id, 0) AS order_id, expires_at,
		status = 'RESERVED' AND coalesce((SELECT o.status IN ('PENDING', 'CANCELLED') FROM orders o WHERE o.id = r.order_id), true) AS due,
		status = 'EXPIRED' AND EXISTS (SELECT FROM payments p WHERE p.order_id = r.order_id AND p.status = 'SUCCEEDED' AND NOT p.refund_due) AS unpaid
	FROM (
		SELECT id, order_id, status, expires_at FROM inventory_reservations
		WHERE expires_at > $1 AND expires_at < now() ORDER BY expires_at FETCH FIRST ($2) ROWS WITH TIES
	) r
) t`

// A hold ends with its order, or after it. One whose order an old service confirms in this moment stays: the order is waited for,
// and then it is not in ended, while the hold's own row has not changed, and shows what was there when the statement began. An order
// whose payment is known to have succeeded is not cancelled for that nobody told of it: the result may be late, or lost with its queue.
const expireOrders = `
WITH ended AS (
	UPDATE orders o SET ended_at = now(), status = CASE
		WHEN EXISTS (SELECT FROM payments p WHERE p.order_id = o.id AND p.status = 'SUCCEEDED') THEN 'CONFIRMED' ELSE 'CANCELLED' END
	WHERE id = ANY($1::int4[]) AND status = 'PENDING' RETURNING id, status
), reservations AS (
	UPDATE inventory_reservations r SET status = CASE
		WHEN order_id = ANY(ARRAY(SELECT id FROM ended WHERE status = 'CONFIRMED')) THEN 'COMMITTED' ELSE 'EXPIRED' END
	WHERE id = ANY($2::int4[]) AND status = 'RESERVED' AND (
		order_id = ANY(ARRAY(SELECT id FROM ended))
		OR NOT EXISTS (SELECT FROM orders o WHERE o.id = r.order_id AND o.status IN ('PENDING', 'CONFIRMED'))) RETURNING id
), history AS (
	INSERT INTO order_events (order_id, hop, pod)
	SELECT id, CASE status WHEN 'CONFIRMED' THEN 'confirmed' ELSE 'expired' END, $3 FROM ended
	UNION ALL SELECT id, 'unheard', $3 FROM ended WHERE status = 'CONFIRMED'
)
SELECT ARRAY(SELECT id FROM ended WHERE status = 'CANCELLED'), ARRAY(SELECT id FROM ended WHERE status = 'CONFIRMED'), (SELECT count(*) FROM reservations)`

// Lapsed is what Expire found.
type Lapsed struct {
	Orders []int32   // that it cancelled
	Paid   []int32   // that it confirmed: their payments had succeeded
	More   bool      // there may be holds that ended after Last
	Last   time.Time // when the last one that it looked at ended
	At     time.Time // the database's time
	Table  uint32    // another one once all reservations were replaced, as a snapshot does it
	Faulty []error   // why holds that lapsed stay as they are, each
}

// LastEnd is when the hold ended that ended last, by the database's clock; where none has, it is now.
func (s *Store) LastEnd(ctx context.Context) (last time.Time, err error) {
	const query = `SELECT coalesce(max(expires_at), now()) FROM inventory_reservations WHERE expires_at < now()`
	if err := s.DB.QueryRow(ctx, query).Scan(&last); err != nil {
		return time.Time{}, fmt.Errorf("look for the hold that ended last: %w", err)
	}
	return last, nil
}

// Expire looks at about as many holds as it is told, the first that ended after since by the database's clock, and ends the orders
// of those that lapsed.
func (s *Store) Expire(ctx context.Context, since time.Time, many int) (Lapsed, error) {
	var found Lapsed
	var last *time.Time
	var orders, reservations, refunds []int32
	if err := s.DB.QueryRow(ctx, dueHolds, since, many).Scan(&found.At, &found.Table, &found.More, &last, &reservations, &orders, &refunds); err != nil {
		return Lapsed{}, fmt.Errorf("look for lapsed holds: %w", err)
	}
	if last != nil {
		found.Last = *last
	}
	holds := make([]hold, len(reservations))
	for i := range holds {
		holds[i] = hold{reservations[i], orders[i]}
	}
	for some := range slices.Chunk(holds, expireLimit) {
		err := postgres.EachGood(some,
			func(part []hold) error {
				ended, err := s.expire(ctx, part, &found)
				if err == nil && ended < len(part) { // somebody was at an order meanwhile: now it can be seen what he did
					_, err = s.expire(ctx, part, &found)
				}
				return err
			},
			func(h hold, err error) {
				found.Faulty = append(found.Faulty, fmt.Errorf("reservation %d of order %d: %w", h.id, h.order, err))
			})
		if err != nil {
			return found, err
		}
	}
	if len(refunds) > 0 {
		if _, err := s.Late(ctx, refunds, refunds, Arrival{}); err != nil {
			return found, err
		}
	}
	return found, nil
}

// hold is a reservation and the order that it is for.
type hold struct{ id, order int32 }

// expire ends holds with their orders, which it adds to found, and returns how many it ended.
func (s *Store) expire(ctx context.Context, holds []hold, found *Lapsed) (ended int, err error) {
	orders, reservations := make([]int32, len(holds)), make([]int32, len(holds))
	for i, h := range holds {
		orders[i], reservations[i] = h.order, h.id
	}
	var cancelled, paid []int32
	if err := s.DB.QueryRow(ctx, expireOrders, orders, reservations, s.Pod).Scan(&cancelled, &paid, &ended); err != nil {
		return 0, fmt.Errorf("expire %d holds: %w", len(holds), err)
	}
	found.Orders, found.Paid = append(found.Orders, cancelled...), append(found.Paid, paid...)
	return ended, nil
}

const forgetKeys = `
DELETE FROM order_keys WHERE key = ANY(ARRAY(
	SELECT key FROM order_keys WHERE created_at < now() - $1::interval ORDER BY created_at LIMIT $2))`

// ForgetKeys deletes at most limit idempotency keys that are older than age, and returns how many it deleted.
func (s *Store) ForgetKeys(ctx context.Context, age time.Duration, limit int) (int, error) {
	tag, err := s.DB.Exec(ctx, forgetKeys, age, limit)
	if err != nil {
		return 0, fmt.Errorf("forget old idempotency keys: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

const unsent = `SELECT count(*) FROM (SELECT FROM outbox LIMIT $1) t`

// Unsent counts the events in the outbox, up to a limit.
func (s *Store) Unsent(ctx context.Context, limit int) (n int, err error) {
	if err := s.DB.QueryRow(ctx, unsent, limit).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the events in the outbox: %w", err)
	}
	return n, nil
}
