package order

import (
	"context"
	"fmt"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/outbox"
	"platformctl/pkg/rabbit"

	amqp "github.com/rabbitmq/amqp091-go"
)

const settleBatch = 500 // results settled by one statement

// Broker says how the broker is used.
type Broker struct {
	Events, DeadLetters string // exchanges
	Prefetch            int
}

func (b Broker) declare(ch *amqp.Channel) error {
	return contract.Topology{Events: b.Events, DeadLetters: b.DeadLetters}.Declare(ch)
}

// Relay publishes what relay holds until ctx ends, in one session after another, and tells pace what waits at the broker.
func (b Broker) Relay(ctx context.Context, dialer *rabbit.Dialer, relay *outbox.Relay, pace *Pace) {
	dialer.Run(ctx, func(ctx context.Context, s rabbit.Session) error {
		publisher, err := rabbit.NewPublisher(s.Conn, outbox.Window, b.declare)
		if err != nil {
			return err
		}
		channel, err := s.Conn.Channel()
		if err != nil {
			return fmt.Errorf("open a channel: %w", err)
		}
		go count(ctx, channel, pace)
		s.Up()
		return relay.Session(ctx, s.Stop, func(ctx context.Context, e outbox.Event) (outbox.Confirmation, error) {
			return publisher.Publish(ctx, rabbit.Message{
				Exchange: b.Events, Key: e.Key, MessageID: e.MessageID, CorrelationID: e.CorrelationID, Timestamp: e.CreatedAt, Body: e.Payload,
			})
		})
	})
}

// count asks each second how many messages wait for the services, until the session ends; then nobody knows.
func count(ctx context.Context, channel *amqp.Channel, pace *Pace) {
	defer pace.Queued(0)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		waiting := 0
		for _, name := range []string{contract.QueueOrderCreated, contract.QueuePaymentResults} {
			queue, err := channel.QueueDeclarePassive(name, true, false, false, false, nil)
			if err != nil {
				return // the session is over, or a queue was deleted: who publishes to it learns that
			}
			waiting += queue.Messages
		}
		pace.Queued(waiting)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Consumer is the consumer of the payments' results.
func (b Broker) Consumer(dialer *rabbit.Dialer, settler *Settler, metrics *rabbit.ConsumerMetrics) *rabbit.Consumer {
	return &rabbit.Consumer{
		Dialer: dialer, Queue: contract.QueuePaymentResults, Declare: b.declare, Prefetch: b.Prefetch, Batch: settleBatch,
		Handle: settler.Handle, DeadExchange: b.DeadLetters, DeadKey: contract.KeyDeadLetter, Metrics: metrics,
		HeaderNames: rabbit.Headers{Reason: contract.HeaderReason, Origin: contract.HeaderOrigin, Tries: contract.HeaderTries},
	}
}
