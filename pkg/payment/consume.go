package payment

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/failpoint"
	"platformctl/pkg/outbox"
	"platformctl/pkg/postgres"
	"platformctl/pkg/rabbit"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Cashier takes the payments of created orders.
type Cashier struct {
	Store   *Store
	Gateway Gateway
	Offer   func([]outbox.Event) // gets the events of what was stored
	Log     *slog.Logger
	Now     func() time.Time
}

// created is an order and the message that brought it.
type created struct {
	payment  Payment
	delivery amqp.Delivery
}

// Handle takes the payments of a batch. It is a rabbit.Consumer's Handle: it waits for the database by itself.
func (c *Cashier) Handle(ctx context.Context, batch []amqp.Delivery) ([]rabbit.Reject, error) {
	came := c.Now()
	var rejects []rabbit.Reject
	due := make([]created, 0, len(batch))
	seen := make(map[int32]bool, len(batch))
	for _, d := range batch {
		order, err := contract.DecodeOrderCreated(d.Body)
		var amount int32
		if err == nil {
			amount, err = Amount(order.Quantity)
		}
		switch {
		case err != nil:
			rejects = append(rejects, rabbit.Reject{Delivery: d, Reason: err.Error()})
		case !seen[order.OrderID]: // else it is a duplicate
			seen[order.OrderID] = true
			p := Payment{Order: order, Amount: amount, Tries: int32(rabbit.Tries(d)), Trace: contract.TraceOf(d.Headers)}
			due = append(due, created{p, d})
			if p.Tries > 1 {
				c.Log.InfoContext(ctx, "delivered again", "order", order.OrderID, "message", d.MessageId, "trace", p.Trace.ID(), "tries", p.Tries)
			}
		}
	}
	if err := c.charge(ctx, due); err != nil {
		return nil, fmt.Errorf("charge %d orders: %w", len(due), err)
	}
	failed := func(err error) {
		c.Log.WarnContext(ctx, "payments wait for the database", "messages", len(due), "error", err.Error())
	}
	unknown := map[int32]bool{}
	err := postgres.Retry(ctx, failed, func(ctx context.Context) error {
		return postgres.EachGood(due,
			func(part []created) error {
				done, unpaid, err := c.store(ctx, part, came)
				if err != nil {
					return err
				}
				// Another replica may have been storing it; that is over now.
				if len(unpaid) > 0 {
					var again Inserted
					if again, unpaid, err = c.store(ctx, unpaid, came); err != nil {
						return err
					}
					done.Unknown = append(done.Unknown, again.Unknown...)
				}
				for _, order := range done.Unknown {
					unknown[order] = true
				}
				for _, p := range unpaid {
					reason := fmt.Sprintf("the message id %q is that of another order's payment", p.payment.Order.MessageID)
					rejects = append(rejects, rabbit.Reject{Delivery: p.delivery, Reason: reason})
				}
				return nil
			},
			func(p created, err error) {
				rejects = append(rejects, rabbit.Reject{Delivery: p.delivery, Reason: err.Error()})
			})
	})
	if len(unknown) > 0 && err == nil {
		rejects = append(rejects, ofUnknown(batch, unknown)...)
	}
	return rejects, err
}

// store stores payments, hands over their events, and returns besides those whose orders have none all the same.
func (c *Cashier) store(ctx context.Context, part []created, came time.Time) (done Inserted, unpaid []created, err error) {
	payments := make([]Payment, len(part))
	for i, p := range part {
		payments[i] = p.payment
	}
	if done, err = c.Store.Insert(ctx, payments, came, c.Now()); err != nil {
		return Inserted{}, nil, err
	}
	failpoint.Hit(failpoint.Committed)
	c.Offer(done.Events)
	c.tell(ctx, came, done.Events)
	for _, i := range done.Unpaid {
		unpaid = append(unpaid, part[i])
	}
	return done, unpaid, nil
}

// ofUnknown are all messages of orders that never were, those among them that were taken for duplicates.
func ofUnknown(batch []amqp.Delivery, unknown map[int32]bool) (rejects []rabbit.Reject) {
	for _, d := range batch {
		if order, err := contract.DecodeOrderCreated(d.Body); err == nil && unknown[order.OrderID] {
			rejects = append(rejects, rabbit.Reject{Delivery: d, Reason: fmt.Sprintf("there is no order %d", order.OrderID)})
		}
	}
	return rejects
}

// tell writes a line a payment where somebody wants to see each.
func (c *Cashier) tell(ctx context.Context, came time.Time, events []outbox.Event) {
	if !c.Log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	for _, e := range events {
		order, err := strconv.Atoi(e.CorrelationID)
		if err != nil {
			continue // it always is the order's number
		}
		c.Log.DebugContext(ctx, "payment taken", "order", order, "message", e.MessageID, "trace", contract.Trace(e.Trace).ID(), "delivered", came, "key", e.Key)
	}
}

// charge decides the payments. An order whose hold is over is declined and not charged: its seats may be gone.
func (c *Cashier) charge(ctx context.Context, due []created) error {
	now := c.Now()
	var ids []int32
	var at []int
	for i := range due {
		p := &due[i].payment
		if !p.Order.ExpiresAt.IsZero() && !now.Before(p.Order.ExpiresAt) {
			p.Status = Failed
			continue
		}
		ids, at = append(ids, p.Order.OrderID), append(at, i)
	}
	statuses, err := c.Gateway.Charge(ctx, ids)
	if err != nil {
		return err
	}
	for i, status := range statuses {
		due[at[i]].payment.Status = status
	}
	return nil
}
