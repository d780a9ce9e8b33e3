// Package inspect looks into the running platform: the dead letters and their way back, the events as they fly, and the life of
// one order. What it reads it takes from nobody; only Retry, Drop and Publish change anything.
//
// Reading is apart from telling: what was read are plain values, and what they mean is decided by pure functions.
package inspect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"platformctl/pkg/contract"
	"platformctl/pkg/rabbit"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Broker is where the platform's broker is reached, by AMQP: its confirms alone say that a message is safe.
type Broker struct {
	URL  string                                                               // amqp://user:password@host:port/vhost
	Dial func(ctx context.Context, network, address string) (net.Conn, error) // nil is the usual way
}

// session does something on a connection of its own. ctx covers all of it; the connection is closed at its end, and with it what
// was taken and not acknowledged is where it was.
func (b Broker) session(ctx context.Context, do func(context.Context, *amqp.Connection) error) error {
	dialer := rabbit.Dialer{URL: b.URL, Name: "platformctl", Log: slog.New(slog.DiscardHandler), Dial: b.Dial}
	return dialer.Once(ctx, func(life context.Context, s rabbit.Session) error {
		life, cancel := context.WithCancelCause(life)
		defer cancel(nil)
		defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
		return do(life, s.Conn)
	})
}

func channel(conn *amqp.Connection) (*amqp.Channel, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	return ch, nil
}

// Queues are the states of the platform's queues, those that are declared.
func (b Broker) Queues(ctx context.Context) (states []QueueState, err error) {
	err = b.session(ctx, func(_ context.Context, conn *amqp.Connection) error {
		for _, name := range []string{contract.QueueOrderCreated, contract.QueuePaymentResults, contract.QueueDeadLetters} {
			ch, err := channel(conn) // of its own: one that asks for a queue that is not there is over
			if err != nil {
				return err
			}
			queue, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
			var refused *amqp.Error
			switch {
			case errors.As(err, &refused) && refused.Code == amqp.NotFound:
				continue
			case err != nil:
				return fmt.Errorf("look at %s: %w", name, err)
			}
			states = append(states, QueueState{Name: name, Messages: queue.Messages, Consumers: queue.Consumers})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the queues: %w", err)
	}
	return states, nil
}
