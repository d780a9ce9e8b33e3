package payment

import (
	"context"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/outbox"
	"platformctl/pkg/presence"
	"platformctl/pkg/rabbit"

	amqp "github.com/rabbitmq/amqp091-go"
)

const chargeBatch = 500 // payments stored by one statement

// Broker says how the broker is used.
type Broker struct {
	Events, DeadLetters string // exchanges
	Prefetch            int

	EventsQueue    bool          // whether the old payment service's own queue is declared
	EventsQueueTTL time.Duration // how long a message stays in it; 0 is for ever
}

// Keys are the routing keys of what payment-service publishes.
func Keys() []string { return []string{contract.KeyPaymentSucceeded, contract.KeyPaymentFailed} }

func (b Broker) declare(ch *amqp.Channel) error {
	return contract.Topology{
		Events: b.Events, DeadLetters: b.DeadLetters, PaymentEvents: b.EventsQueue, PaymentEventsTTL: b.EventsQueueTTL,
	}.Declare(ch, contract.QueueOrderCreated, contract.QueuePaymentEvents)
}

// Relay publishes what relay holds until ctx ends, in one session after another.
func (b Broker) Relay(ctx context.Context, dialer *rabbit.Dialer, relay *outbox.Relay) {
	dialer.Run(ctx, func(ctx context.Context, s rabbit.Session) error {
		publisher, err := rabbit.NewPublisher(s.Conn, outbox.Window, b.declare)
		if err != nil {
			return err
		}
		s.Up()
		return relay.Session(ctx, s.Stop, func(ctx context.Context, e outbox.Event) (outbox.Confirmation, error) {
			return publisher.Publish(ctx, rabbit.Message{
				Exchange: b.Events, Key: e.Key, MessageID: e.MessageID, CorrelationID: e.CorrelationID, Timestamp: e.CreatedAt, Body: e.Payload,
				Headers: contract.Trace(e.Trace).Headers(),
			})
		})
	})
}

// Consumer is the consumer of created orders.
func (b Broker) Consumer(dialer *rabbit.Dialer, cashier *Cashier, metrics *rabbit.ConsumerMetrics) *rabbit.Consumer {
	c := b.consumer(dialer, contract.QueueOrderCreated, cashier.Handle, metrics)
	c.Beside = presence.Note{DB: cashier.Store.DB, Queue: contract.QueueOrderCreated, Pod: cashier.Store.Pod, Log: cashier.Log}.Session
	return c
}

// Drain is a consumer that keeps the old payment service's queue empty.
func (b Broker) Drain(dialer *rabbit.Dialer, metrics *rabbit.ConsumerMetrics) *rabbit.Consumer {
	discard := func(context.Context, []amqp.Delivery) ([]rabbit.Reject, error) { return nil, nil }
	return b.consumer(dialer, contract.QueuePaymentEvents, discard, metrics)
}

func (b Broker) consumer(dialer *rabbit.Dialer, queue string, handle func(context.Context, []amqp.Delivery) ([]rabbit.Reject, error), metrics *rabbit.ConsumerMetrics) *rabbit.Consumer {
	return &rabbit.Consumer{
		Dialer: dialer, Queue: queue, Declare: b.declare, Prefetch: b.Prefetch, Batch: chargeBatch, Handle: handle,
		DeadExchange: b.DeadLetters, DeadKey: contract.KeyDeadLetter, Metrics: metrics,
		HeaderNames: rabbit.Headers{
			Reason: contract.HeaderReason, Origin: contract.HeaderOrigin, Key: contract.HeaderKey, Tries: contract.HeaderTries, Died: contract.HeaderDied,
		},
	}
}
