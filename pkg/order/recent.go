package order

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Recent is an order with its show's name and the times of its hops, in UTC; those that nobody noted yet are nil. Deliveries are by the
// clock of who got them, all else by the database's.
type Recent struct {
	ID       int32
	Show     string
	Quantity int32
	Status   string
	Payment  string // SUCCEEDED or FAILED, or "" before
	Accepted time.Time
	Sent     *time.Time // when the broker had confirmed the order's event
	Taken    *time.Time // when payment-service had it
	Paid     *time.Time // when the payment was decided, either way
	Told     *time.Time // when the broker had confirmed its result
	Back     *time.Time // when order-api had that
	Ended    *time.Time
}

// As pageOfOrders: a short walk down the primary key, and the few rows of each order's history.
const recentOrders = `
SELECT o.id, s.name, o.quantity, o.status, coalesce(p.status, ''), o.created_at, h.sent, h.taken, p.created_at, h.told, h.back, o.ended_at
FROM (SELECT * FROM orders ORDER BY id DESC LIMIT $1) o
JOIN shows s ON s.id = o.show_id
LEFT JOIN LATERAL (SELECT status, created_at FROM payments WHERE order_id = o.id LIMIT 1) p ON true
CROSS JOIN LATERAL (
	SELECT min(at) FILTER (WHERE hop = 'sent order.created') AS sent, min(began) FILTER (WHERE hop IN ('payment_succeeded', 'payment_failed')) AS taken,
		min(at) FILTER (WHERE hop LIKE 'sent payment.%') AS told, min(began) FILTER (WHERE hop IN ('confirmed', 'cancelled')) AS back
	FROM order_events WHERE order_id = o.id
) h
ORDER BY o.id DESC`

// Recent reads the newest orders, at most limit, the newest first.
func (s *Store) Recent(ctx context.Context, limit int) ([]Recent, error) {
	rows, err := s.DB.Query(ctx, recentOrders, limit)
	if err != nil {
		return nil, fmt.Errorf("read the newest orders: %w", err)
	}
	orders, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Recent])
	if err != nil {
		return nil, fmt.Errorf("read the newest orders: %w", err)
	}
	for i := range orders {
		o := &orders[i]
		o.Accepted = o.Accepted.UTC()
		for _, at := range []*time.Time{o.Sent, o.Taken, o.Paid, o.Told, o.Back, o.Ended} {
			if at != nil {
				*at = at.UTC()
			}
		}
	}
	return orders, nil
}
