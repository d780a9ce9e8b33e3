package main

import (
	"context"
	"time"

	"platformctl/pkg/order"
	"platformctl/pkg/outbox"
	"platformctl/pkg/page"
	"platformctl/pkg/rabbit"

	amqp "github.com/rabbitmq/amqp091-go"
)

// brokerSilent is how old what the broker told may be while its connection stands: it is asked each second.
const brokerSilent = 2500 * time.Millisecond

// source is what the page shows, read of the parts that have it.
type source struct {
	store   *order.Store
	relay   *outbox.Relay
	depths  *order.Depths
	broker  func() error // nil while both sessions are up
	figures func() (order.Figures, error)
}

// Shows implements page.Source.
func (s source) Shows(ctx context.Context) ([]page.Show, error) {
	all, err := s.store.Shows(ctx)
	if err != nil {
		return nil, err
	}
	shows := make([]page.Show, 0, len(all))
	for _, one := range all {
		show := page.Show{ID: one.ShowID, Name: one.Name, Capacity: one.Capacity, Free: one.Free, Held: one.Held, Sold: one.Sold}
		if one.Venue != nil {
			show.Venue = *one.Venue
		}
		shows = append(shows, show)
	}
	return shows, nil
}

// Free implements page.Source.
func (s source) Free(ctx context.Context) ([]page.Show, error) {
	all, err := s.store.Free(ctx)
	if err != nil {
		return nil, err
	}
	shows := make([]page.Show, 0, len(all))
	for _, one := range all {
		shows = append(shows, page.Show{ID: one.ShowID, Capacity: one.Capacity, Free: one.Free})
	}
	return shows, nil
}

// Orders implements page.Source.
func (s source) Orders(ctx context.Context, limit int) ([]page.Order, error) {
	all, err := s.store.Recent(ctx, limit)
	if err != nil {
		return nil, err
	}
	orders := make([]page.Order, 0, len(all))
	for _, one := range all {
		orders = append(orders, page.Order(one))
	}
	return orders, nil
}

// Outbox implements page.Source.
func (s source) Outbox(ctx context.Context) (page.Outbox, error) {
	events, oldest, err := s.relay.Length(ctx)
	return page.Outbox{Events: events, OldestSeconds: oldest.Round(100 * time.Millisecond).Seconds()}, err
}

// Broker implements page.Source. What is wrong is told without the broker's address: the page is for everybody who can open it.
func (s source) Broker() page.Broker {
	queues, at := s.depths.Now()
	b := page.Broker{Queues: []page.Queue{}, Dead: queues[order.DeadLetters]}
	for _, q := range []page.Queue{{Name: order.ToBePaid, What: "Wait for payment"}, {Name: order.ToBeSettled, What: "Results to settle"}} {
		q.Messages = queues[q.Name]
		b.Queues = append(b.Queues, q)
	}
	switch {
	case s.broker() != nil:
		b.Trouble = "There is no connection to the broker. Orders are taken, and wait in the outbox."
	case time.Since(at) > brokerSilent:
		b.Trouble = "The broker does not answer. Orders are taken, and wait in the outbox."
	}
	return b
}

// Figures implements page.Source.
func (s source) Figures() (page.Figures, error) {
	f, err := s.figures()
	return page.Figures(f), err
}

// offered has the page see what goes to the broker.
func offered(p *page.Page, offer func([]outbox.Event)) func([]outbox.Event) {
	return func(events []outbox.Event) {
		offer(events)
		p.Happened(len(events), func(i int) page.Event {
			return page.Event{Key: events[i].Key, Order: events[i].CorrelationID, At: time.Now()}
		})
	}
}

// handled has the page see what came from the broker, when it has taken effect.
func handled(p *page.Page, handle func(context.Context, []amqp.Delivery) ([]rabbit.Reject, error)) func(context.Context, []amqp.Delivery) ([]rabbit.Reject, error) {
	return func(ctx context.Context, batch []amqp.Delivery) ([]rabbit.Reject, error) {
		rejects, err := handle(ctx, batch)
		if err == nil {
			p.Happened(len(batch), func(i int) page.Event {
				return page.Event{Key: batch[i].RoutingKey, Order: batch[i].CorrelationId, At: time.Now()}
			})
		}
		return rejects, err
	}
}
