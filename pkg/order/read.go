package order

import (
	"context"
	"errors"
	"fmt"
	"time"

	"platformctl/pkg/postgres"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// View is an order as GET /orders/{id} shows it. Times are UTC.
type View struct {
	OrderID       int32      `json:"orderId"`
	ShowID        int32      `json:"showId"`
	Quantity      int32      `json:"quantity"`
	Status        Status     `json:"status"`
	PaymentStatus *string    `json:"paymentStatus"` // SUCCEEDED or FAILED; null before
	Amount        *int32     `json:"amount"`        // null before the payment
	CreatedAt     time.Time  `json:"createdAt"`
	EndedAt       *time.Time `json:"endedAt"` // null while PENDING
}

const oneOrder = `
SELECT o.id, o.show_id, o.quantity, o.status, p.status, p.amount, o.created_at, o.ended_at
FROM orders o LEFT JOIN payments p ON p.order_id = o.id WHERE o.id = $1`

// Order reads one; ErrNotFound if there is none.
func (s *Store) Order(ctx context.Context, id int32) (View, error) {
	rows, err := s.DB.Query(ctx, oneOrder, id)
	if err != nil {
		return View{}, fmt.Errorf("read order %d: %w", id, err)
	}
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[View])
	if errors.Is(err, pgx.ErrNoRows) {
		return View{}, ErrNotFound
	}
	if err != nil {
		return View{}, fmt.Errorf("read order %d: %w", id, err)
	}
	return v.utc(), nil
}

func (v View) utc() View {
	v.CreatedAt = v.CreatedAt.UTC()
	if v.EndedAt != nil {
		ended := v.EndedAt.UTC()
		v.EndedAt = &ended
	}
	return v
}

const endedOrders = `SELECT id FROM orders WHERE id = ANY($1::int4[]) AND status <> 'PENDING'`

// Ended returns which of the orders are PENDING no more.
func (s *Store) Ended(ctx context.Context, orders []int32) ([]int32, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	rows, err := s.DB.Query(ctx, endedOrders, orders)
	if err != nil {
		return nil, fmt.Errorf("ask for %d orders: %w", len(orders), err)
	}
	ended, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return nil, fmt.Errorf("ask for %d orders: %w", len(orders), err)
	}
	return ended, nil
}

// A page is a short walk down the primary key, and a look-up a payment: LATERAL with its limit keeps the planner from joining
// the whole of both tables.
const pageOfOrders = `
SELECT o.id, o.show_id, o.quantity, o.status, p.status, p.amount, o.created_at, o.ended_at
FROM (SELECT * FROM orders WHERE id < $1::int8 ORDER BY id DESC LIMIT $2) o
LEFT JOIN LATERAL (SELECT status, amount FROM payments WHERE order_id = o.id LIMIT 1) p ON true
ORDER BY o.id DESC`

// Orders reads at most limit orders whose ids are below before, the newest first.
func (s *Store) Orders(ctx context.Context, before int64, limit int) ([]View, error) {
	rows, err := s.DB.Query(ctx, pageOfOrders, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read a page of orders: %w", err)
	}
	views, err := pgx.CollectRows(rows, pgx.RowToStructByPos[View])
	if err != nil {
		return nil, fmt.Errorf("read a page of orders: %w", err)
	}
	for i, v := range views {
		views[i] = v.utc()
	}
	return views, nil
}

// Show is a show with its seats: free + held + sold = capacity.
type Show struct {
	ShowID   int32      `json:"showId"`
	Name     string     `json:"name"`
	Venue    *string    `json:"venue"`
	StartsAt *time.Time `json:"startsAt"`
	Capacity int32      `json:"capacity"`
	Free     int32      `json:"free"`
	Held     int32      `json:"held"` // for orders that are PENDING
	Sold     int32      `json:"sold"` // to orders that are CONFIRMED
}

// For what is held the reservations are read that have not ended long ago: an index that names their state would have each that ends
// written anew into all indexes. Of the others the sweeper leaves, in a moment, none but those that an old service confirmed: they are sold.
const allShows = `
SELECT s.id, s.name, s.venue, s.starts_at, c.capacity, c.capacity - c.held, coalesce(h.seats, 0)::int4, (c.held - coalesce(h.seats, 0))::int4
FROM shows s JOIN show_seats c ON c.show_id = s.id
LEFT JOIN (SELECT show_id, sum(quantity) AS seats FROM inventory_reservations
	WHERE status = 'RESERVED' AND expires_at > now() - interval '1 minute' GROUP BY show_id) h ON h.show_id = s.id
ORDER BY s.id`

// Shows lists all shows by id.
func (s *Store) Shows(ctx context.Context) ([]Show, error) {
	rows, err := s.DB.Query(ctx, allShows)
	if err != nil {
		return nil, fmt.Errorf("read the shows: %w", err)
	}
	shows, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Show])
	if err != nil {
		return nil, fmt.Errorf("read the shows: %w", err)
	}
	return shows, nil
}

const freeSeats = `SELECT show_id, capacity, capacity - held FROM show_seats ORDER BY show_id`

// Free lists the shows by id with their capacity and free seats alone: three columns of a few rows, however many orders there are.
func (s *Store) Free(ctx context.Context) ([]Show, error) {
	rows, err := s.DB.Query(ctx, freeSeats)
	if err != nil {
		return nil, fmt.Errorf("read the free seats: %w", err)
	}
	shows, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (show Show, err error) {
		err = row.Scan(&show.ShowID, &show.Capacity, &show.Free)
		return show, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the free seats: %w", err)
	}
	return shows, nil
}

// Seats are the metrics of the shows' seats, read when they are asked for.
type Seats struct{ Shows *postgres.Throttled[[]Show] }

const scrapeTimeout = time.Second

// Describe implements prometheus.Collector.
func (s Seats) Describe(out chan<- *prometheus.Desc) { out <- seatsDesc }

// Collect implements prometheus.Collector; what the database does not tell in a second is left out.
func (s Seats) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	shows, err := s.Shows.Get(ctx)
	if err != nil {
		return
	}
	for _, show := range shows {
		for state, n := range map[string]int32{"free": show.Free, "held": show.Held, "sold": show.Sold} {
			out <- prometheus.MustNewConstMetric(seatsDesc, prometheus.GaugeValue, float64(n), decimal(show.ShowID), state)
		}
	}
}

var seatsDesc = prometheus.NewDesc("show_seats", "Seats of a show by state: free, held for orders that are pending, sold.", []string{"show", "state"}, nil)
