package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/rabbit"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Event is a message as it flew by.
type Event struct {
	Time      time.Time `json:"time"` // when it was seen
	Key       string    `json:"key"`
	MessageID string    `json:"messageId"`
	Order     int64     `json:"order"` // 0 where it tells none
	Trace     string    `json:"traceparent,omitempty"`
	Body      Body      `json:"body"`
}

const (
	// tapLength is how many messages wait for a tap that is slower than they come; beyond it the oldest are let go, so that a tap that
	// nobody reads costs the broker little.
	tapLength = 10_000
	tapPause  = time.Second // between two tries to tap again
)

// Tap shows the events of a key (as topics match: "#" is all) to see, one after another, until ctx ends, whose cause it returns, or see
// fails. The broker copies them for it into a queue of its own, which goes with the connection: they are taken from nobody. When
// the connection is lost it taps again, and tells lost why; what flies by meanwhile is not seen. begun is called at each beginning.
func (b Broker) Tap(ctx context.Context, key string, begun func(), lost func(error), see func(Event) error) error {
	for first := true; ; first = false {
		err := b.session(ctx, func(ctx context.Context, conn *amqp.Connection) error { return tap(ctx, conn, key, begun, see) })
		var enough enoughError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &enough):
			return enough.error
		case first && !errors.Is(err, errLost):
			return fmt.Errorf("tap the events: %w", err)
		}
		lost(err)
		timer := time.NewTimer(tapPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// errLost says that a tap was at work and came to its end.
var errLost = errors.New("the broker ended the tap")

// enoughError is the error of who sees: it is not the broker's.
type enoughError struct{ error }

func tap(ctx context.Context, conn *amqp.Connection, key string, begun func(), see func(Event) error) error {
	ch, err := channel(conn)
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclarePassive(contract.ExchangeEvents, amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
		return fmt.Errorf("look for the exchange %s: %w", contract.ExchangeEvents, err)
	}
	queue, err := ch.QueueDeclare("", false, true, true, false, amqp.Table{"x-max-length": int64(tapLength), "x-overflow": "drop-head"})
	if err != nil {
		return fmt.Errorf("declare a queue: %w", err)
	}
	if err := ch.QueueBind(queue.Name, key, contract.ExchangeEvents, false, nil); err != nil {
		return fmt.Errorf("bind the queue: %w", err)
	}
	deliveries, err := ch.Consume(queue.Name, "", true, true, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume the queue: %w", err)
	}
	begun()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errLost, context.Cause(ctx))
		case d, open := <-deliveries:
			if !open {
				return errLost
			}
			err := see(Event{
				Time: time.Now(), Key: d.RoutingKey, MessageID: d.MessageId, Order: orderOf(d.CorrelationId, d.Body),
				Trace: text(d.Headers, contract.HeaderTrace), Body: d.Body,
			})
			if err != nil {
				return enoughError{err}
			}
		}
	}
}

// Line is an event in one line: when, its key, its order, and what it tells.
func (e Event) Line() string {
	order := "order -"
	if e.Order > 0 {
		order = fmt.Sprintf("order %d", e.Order)
	}
	return fmt.Sprintf("%s  %-17s  %-12s  %s", e.Time.UTC().Format("15:04:05.000"), e.Key, order, e.tells())
}

// tells is what is worth knowing of the body.
func (e Event) tells() string {
	switch {
	case e.Key == contract.KeyOrderCreated:
		if o, err := contract.DecodeOrderCreated(e.Body); err == nil {
			seats := "seats"
			if o.Quantity == 1 {
				seats = "seat"
			}
			return fmt.Sprintf("%d %s of show %d for %s", o.Quantity, seats, o.ShowID, o.UserID.Text())
		}
	case strings.HasPrefix(e.Key, "payment."):
		if p, err := contract.DecodePaymentResult(e.Body, e.Key); err == nil {
			return fmt.Sprintf("amount %d", p.Amount)
		}
	}
	return string(e.Body)
}

// Publish publishes an event on the events' exchange and returns when the broker has it in its queues. The body must be one by the
// contract: contract.Check says so.
func (b Broker) Publish(ctx context.Context, key string, body []byte) (messageID string, err error) {
	messageID, order, err := contract.Check(key, body)
	if err != nil {
		return "", err
	}
	err = b.session(ctx, func(ctx context.Context, conn *amqp.Connection) error {
		publisher, err := rabbit.NewPublisher(conn, 1, nil)
		if err != nil {
			return err
		}
		confirmation, err := publisher.Publish(ctx, rabbit.Message{
			Exchange: contract.ExchangeEvents, Key: key, MessageID: messageID, CorrelationID: fmt.Sprint(order), Timestamp: time.Now(),
			Headers: contract.NewTrace().Headers(), Body: body,
		})
		if err != nil {
			return err
		}
		return confirmation.Wait(ctx)
	})
	if err != nil {
		return "", fmt.Errorf("publish %s: %w", key, err)
	}
	return messageID, nil
}

// JSON is an event as one line of JSON.
func (e Event) JSON() ([]byte, error) {
	raw, err := json.Marshal(e)
	return append(raw, '\n'), err
}
