package order

import (
	"context"

	"platformctl/pkg/contract"
	"platformctl/pkg/outbox"
	"platformctl/pkg/presence"
	"platformctl/pkg/rabbit"

	amqp "github.com/rabbitmq/amqp091-go"
)

const settleBatch = 500 // results settled by one statement

// Broker says how the broker is used.
type Broker struct {
	Events, DeadLetters string // exchanges
	Prefetch            int
}

// Keys are the routing keys of what order-api publishes.
func Keys() []string { return []string{contract.KeyOrderCreated} }

func (b Broker) declare(ch *amqp.Channel) error {
	return contract.Topology{Events: b.Events, DeadLetters: b.DeadLetters}.Declare(ch, contract.QueuePaymentResults)
}

// Relay publishes what relay holds until ctx ends, in one session after another, and tells pace and depths what lies at the broker.
func (b Broker) Relay(ctx context.Context, dialer *rabbit.Dialer, relay *outbox.Relay, pace *Pace, depths *Depths) {
	dialer.Run(ctx, func(ctx context.Context, s rabbit.Session) error {
		publisher, err := rabbit.NewPublisher(s.Conn, outbox.Window, b.declare)
		if err != nil {
			return err
		}
		go depths.watch(ctx, s.Conn, pace, dialer.Log)
		s.Up()
		return relay.Session(ctx, s.Stop, func(ctx context.Context, e outbox.Event) (outbox.Confirmation, error) {
			return publisher.Publish(ctx, rabbit.Message{
				Exchange: b.Events, Key: e.Key, MessageID: e.MessageID, CorrelationID: e.CorrelationID, Timestamp: e.CreatedAt, Body: e.Payload,
				Headers: contract.Trace(e.Trace).Headers(),
			})
		})
	})
}

// Consumer is the consumer of the payments' results.
func (b Broker) Consumer(dialer *rabbit.Dialer, settler *Settler, metrics *rabbit.ConsumerMetrics) *rabbit.Consumer {
	return &rabbit.Consumer{
		Dialer: dialer, Queue: contract.QueuePaymentResults, Declare: b.declare, Prefetch: b.Prefetch, Batch: settleBatch,
		Handle: settler.Handle, Beside: presence.Note{DB: settler.Store.DB, Queue: contract.QueuePaymentResults, Pod: settler.Store.Pod, Log: settler.Log}.Session,
		DeadExchange: b.DeadLetters, DeadKey: contract.KeyDeadLetter, Metrics: metrics,
		HeaderNames: rabbit.Headers{
			Reason: contract.HeaderReason, Origin: contract.HeaderOrigin, Key: contract.HeaderKey, Tries: contract.HeaderTries, Died: contract.HeaderDied,
		},
	}
}
