package order

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/postgres"
	"platformctl/pkg/rabbit"

	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Settler ends orders by the results of their payments.
type Settler struct {
	Store   *Store
	Waiters *Waiters
	Pace    *Pace
	Log     *slog.Logger
	Ends    prometheus.Histogram // in seconds, from an order's acceptance to its end
}

// NewEndHistogram registers the histogram of how long orders take to end.
func NewEndHistogram(registry prometheus.Registerer) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "order_end_seconds", Help: "From an order's acceptance to its end by its payment's result.", Buckets: latencies(),
	})
	registry.MustRegister(h)
	return h
}

// result is a payment's result and the message that brought it.
type result struct {
	order    int32
	paid     bool
	delivery amqp.Delivery
}

// Handle settles the orders of a batch. It is a rabbit.Consumer's Handle: it waits for the database by itself.
func (s *Settler) Handle(ctx context.Context, batch []amqp.Delivery) ([]rabbit.Reject, error) {
	var rejects []rabbit.Reject
	results, by := make([]result, 0, len(batch)), Arrival{At: time.Now()}
	for _, d := range batch {
		event, err := contract.DecodePaymentResult(d.Body, d.RoutingKey)
		if err != nil {
			rejects = append(rejects, rabbit.Reject{Delivery: d, Reason: err.Error()})
			continue
		}
		if tries := rabbit.Tries(d); tries > 1 {
			by.Again, by.Tries = append(by.Again, event.OrderID), append(by.Tries, int32(tries))
			s.Log.InfoContext(ctx, "delivered again", "order", event.OrderID, "message", d.MessageId, "trace", contract.TraceOf(d.Headers).ID(), "tries", tries)
		}
		results = append(results, result{event.OrderID, event.Type == contract.KeyPaymentSucceeded, d})
	}
	failed := func(err error) {
		s.Log.WarnContext(ctx, "payment results wait for the database", "messages", len(results), "error", err.Error())
	}
	err := postgres.Retry(ctx, failed, func(ctx context.Context) error {
		return postgres.EachGood(results,
			func(part []result) error {
				unknown, err := s.settle(ctx, part, by)
				rejects = append(rejects, unknown...)
				return err
			},
			func(r result, err error) {
				rejects = append(rejects, rabbit.Reject{Delivery: r.delivery, Reason: err.Error()})
			})
	})
	return rejects, err
}

// settle has results take effect, the first of each order before its others, and returns those of orders that never were.
func (s *Settler) settle(ctx context.Context, results []result, by Arrival) ([]rabbit.Reject, error) {
	orders, paid := firsts(results)
	settled, err := s.Store.Settle(ctx, orders, paid, by)
	if err != nil {
		return nil, err
	}
	s.tell(settled)
	late := s.others(ctx, results, settled, by.At)
	if len(late) == 0 {
		return nil, nil
	}
	return s.late(ctx, late, by)
}

// firsts are the orders of results, each once, and those of them that are paid by their first one.
func firsts(results []result) (orders, paid []int32) {
	seen := make(map[int32]bool, len(results))
	for _, r := range results {
		if seen[r.order] {
			continue
		}
		seen[r.order] = true
		if orders = append(orders, r.order); r.paid {
			paid = append(paid, r.order)
		}
	}
	return orders, paid
}

// tell has everybody know of orders that ended who wants to.
func (s *Settler) tell(settled []Settled) {
	if len(settled) == 0 {
		return
	}
	ended := make([]int32, 0, len(settled))
	for _, o := range settled {
		s.Ends.Observe(o.Age.Seconds())
		ended = append(ended, o.ID)
	}
	s.keepPace(settled)
	s.Waiters.Ended(ended)
}

// keepPace tells how old orders are when their results come. It matters also of those that have ended before, as their holds lapsed: where
// nobody knew how far the results are behind, all that came would be let in, to lapse in its turn.
func (s *Settler) keepPace(settled []Settled) {
	if len(settled) > 0 {
		youngest := slices.MinFunc(settled, func(a, b Settled) int { return cmp.Compare(a.Age, b.Age) })
		s.Pace.Settled(len(settled), youngest.Age, time.Now())
	}
}

// others are the results that have not ended an order just now: it has had another one, its hold has lapsed, or it never was.
func (s *Settler) others(ctx context.Context, results []result, settled []Settled, at time.Time) (others []result) {
	open := make(map[int32]bool, len(settled)) // ended, and the result that did it has not come by yet
	for _, o := range settled {
		open[o.ID] = true
	}
	for _, r := range results {
		if !open[r.order] {
			others = append(others, r)
			continue
		}
		open[r.order] = false
		if s.Log.Enabled(ctx, slog.LevelDebug) {
			s.Log.DebugContext(ctx, "order ended", "order", r.order, "message", r.delivery.MessageId, "trace", contract.TraceOf(r.delivery.Headers).ID(), "delivered", at, "paid", r.paid)
		}
	}
	return others
}

// late has results of orders take effect that had ended before, and returns those of orders that never were.
func (s *Settler) late(ctx context.Context, results []result, by Arrival) (unknown []rabbit.Reject, err error) {
	var orders, paid []int32
	for _, r := range results {
		if orders = append(orders, r.order); r.paid {
			paid = append(paid, r.order)
		}
	}
	exist, err := s.Store.Late(ctx, orders, paid, by)
	if err != nil {
		return nil, err
	}
	s.keepPace(slices.DeleteFunc(slices.Clone(exist), func(o Settled) bool { return slices.Contains(by.Again, o.ID) })) // that tells nothing of today
	known := make(map[int32]bool, len(exist))
	for _, o := range exist {
		known[o.ID] = true
	}
	for _, r := range results {
		if !known[r.order] {
			unknown = append(unknown, rabbit.Reject{Delivery: r.delivery, Reason: fmt.Sprintf("there is no order %d", r.order)})
		}
	}
	return unknown, nil
}
