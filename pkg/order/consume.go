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
	return once(rejects), err
}

// settle has results take effect, the first of each order before its others, and returns those of orders that never were.
func (s *Settler) settle(ctx context.Context, results []result, by Arrival) ([]rabbit.Reject, error) {
	var orders, paid []int32
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
	settled, err := s.Store.Settle(ctx, orders, paid, by)
	if err != nil {
		return nil, err
	}
	ended := make([]int32, 0, len(settled))
	first := make(map[int32]bool, len(settled)) // the order was ended by its first result here, and more may follow
	for _, o := range settled {
		s.Ends.Observe(o.Age.Seconds())
		ended = append(ended, o.ID)
		first[o.ID] = true
	}
	if len(settled) > 0 {
		youngest := slices.MinFunc(settled, func(a, b Settled) int { return cmp.Compare(a.Age, b.Age) })
		s.Pace.Settled(len(settled), youngest.Age, time.Now())
	}
	s.Waiters.Ended(ended)
	late := orders[:0:0]
	paid = paid[:0:0]
	var later []result
	for _, r := range results {
		if first[r.order] {
			first[r.order] = false
			if s.Log.Enabled(ctx, slog.LevelDebug) {
				s.Log.DebugContext(ctx, "order ended", "order", r.order, "message", r.delivery.MessageId, "trace", contract.TraceOf(r.delivery.Headers).ID(), "delivered", by.At, "paid", r.paid)
			}
			continue
		}
		later = append(later, r)
		if late = append(late, r.order); r.paid {
			paid = append(paid, r.order)
		}
	}
	if len(late) == 0 {
		return nil, nil
	}
	exist, err := s.Store.Late(ctx, late, paid, by)
	if err != nil {
		return nil, err
	}
	known := make(map[int32]bool, len(exist))
	for _, id := range exist {
		known[id] = true
	}
	var unknown []rabbit.Reject
	for _, r := range later {
		if !known[r.order] {
			unknown = append(unknown, rabbit.Reject{Delivery: r.delivery, Reason: fmt.Sprintf("there is no order %d", r.order)})
		}
	}
	return unknown, nil
}

// once drops what a repetition rejected again.
func once(rejects []rabbit.Reject) []rabbit.Reject {
	seen := make(map[uint64]bool, len(rejects))
	kept := rejects[:0]
	for _, r := range rejects {
		if !seen[r.Delivery.DeliveryTag] {
			seen[r.Delivery.DeliveryTag] = true
			kept = append(kept, r)
		}
	}
	return kept
}
