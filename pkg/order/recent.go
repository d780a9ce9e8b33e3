package order

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Recent is an order with its show's name and the times of its hops, which are all by the database's clock and UTC.
type Recent struct {
	ID       int32
	Show     string
	Quantity int32
	Status   string
	Payment  string // SUCCEEDED or FAILED, or "" before
	Accepted time.Time
	Paid     *time.Time // when the payment was decided, either way
	Ended    *time.Time
}

// As pageOfOrders: a short walk down the primary key.
const recentOrders = `
SELECT o.id, s.name, o.quantity, o.status, coalesce(p.status, ''), o.created_at, p.created_at, o.ended_at
FROM (SELECT * FROM orders ORDER BY id DESC LIMIT $1) o
JOIN shows s ON s.id = o.show_id
LEFT JOIN LATERAL (SELECT status, created_at FROM payments WHERE order_id = o.id LIMIT 1) p ON true
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
		for _, at := range []*time.Time{o.Paid, o.Ended} {
			if at != nil {
				*at = at.UTC()
			}
		}
	}
	return orders, nil
}

// Figures are what this process did since it began: two of them, compared, say what it did in between. They are the metrics' own,
// so that keeping them costs an order nothing.
type Figures struct {
	Accepted, Ended float64        // orders
	Answers, Ends   *dto.Histogram // in seconds, as intake_wait_seconds and order_end_seconds
}

// Figures reads the figures of an intake, and of a settler's and a sweeper's ends.
func (in *Intake) Figures(ends prometheus.Histogram, expired prometheus.Counter) (Figures, error) {
	var accept, wait, end, lapse dto.Metric
	for _, m := range []struct {
		from prometheus.Metric
		into *dto.Metric
	}{{in.metrics.orders[accepted], &accept}, {in.metrics.wait, &wait}, {ends, &end}, {expired, &lapse}} {
		if err := m.from.Write(m.into); err != nil {
			return Figures{}, fmt.Errorf("read the metric %s: %w", m.from.Desc(), err)
		}
	}
	return Figures{
		Accepted: accept.GetCounter().GetValue(), Ended: float64(end.GetHistogram().GetSampleCount()) + lapse.GetCounter().GetValue(),
		Answers: wait.GetHistogram(), Ends: end.GetHistogram(),
	}, nil
}
