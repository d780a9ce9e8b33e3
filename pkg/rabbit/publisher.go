package rabbit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Errors of a publish that the broker answered.
var (
	ErrUnroutable = errors.New("the broker has no queue for the message")
	ErrRefused    = errors.New("the broker refused the message")
)

// Message is what a Publisher sends: persistent, mandatory, JSON.
type Message struct {
	Exchange, Key string
	MessageID     string
	CorrelationID string
	Timestamp     time.Time
	Headers       amqp.Table
	Body          []byte
}

// Publisher sends messages on a channel of its own and knows which the broker has. It belongs to one session.
type Publisher struct {
	channel *amqp.Channel
	window  chan struct{}

	mu       sync.Mutex
	returned map[string]int // message id → how often it came back
	returns  chan amqp.Return
}

// NewPublisher opens a confirming channel with at most window messages on their way; declare, which may be nil, makes
// the queues that the messages need.
func NewPublisher(conn *amqp.Connection, window int, declare func(*amqp.Channel) error) (*Publisher, error) {
	channel, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	if declare != nil {
		if err := declare(channel); err != nil {
			return nil, fmt.Errorf("declare exchanges and queues: %w", err)
		}
	}
	if err := channel.Confirm(false); err != nil {
		return nil, fmt.Errorf("ask for confirms: %w", err)
	}
	return &Publisher{
		channel: channel, window: make(chan struct{}, window), returned: map[string]int{},
		// As many as can be on their way: the library's reader must never wait here, for it also brings the confirms.
		returns: channel.NotifyReturn(make(chan amqp.Return, window)),
	}, nil
}

// Confirmation is a message on its way. Wait must be called exactly once.
type Confirmation struct {
	publisher *Publisher
	id        string
	deferred  *amqp.DeferredConfirmation
}

// Publish sends a message; it blocks while the window is full. No error does not yet mean that the broker has it.
func (p *Publisher) Publish(ctx context.Context, m Message) (*Confirmation, error) {
	select {
	case p.window <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	deferred, err := p.channel.PublishWithDeferredConfirm(m.Exchange, m.Key, true, false, amqp.Publishing{
		ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: m.MessageID, CorrelationId: m.CorrelationID,
		Timestamp: m.Timestamp, Headers: m.Headers, Body: m.Body,
	})
	if err != nil {
		<-p.window
		return nil, fmt.Errorf("publish %s: %w", m.MessageID, err)
	}
	return &Confirmation{publisher: p, id: m.MessageID, deferred: deferred}, nil
}

// Wait returns nil when the broker has the message in a queue. Otherwise the message may or may not be there.
func (c *Confirmation) Wait(ctx context.Context) error {
	defer func() { <-c.publisher.window }()
	acked, err := c.deferred.WaitContext(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("wait for the confirm of %s: %w", c.id, context.Cause(ctx))
	case !acked:
		return fmt.Errorf("%s: %w", c.id, ErrRefused)
	case c.publisher.cameBack(c.id):
		return fmt.Errorf("%s: %w", c.id, ErrUnroutable)
	}
	return nil
}

// cameBack tells whether the message was returned. The broker sends a return before the confirm, and the library hands both
// on in that order, so what came back is in the channel by now.
func (p *Publisher) cameBack(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for more := true; more; {
		select {
		case r, open := <-p.returns:
			if more = open; open {
				p.returned[r.MessageId]++
			}
		default:
			more = false
		}
	}
	if p.returned[id] == 0 {
		return false
	}
	if p.returned[id]--; p.returned[id] == 0 {
		delete(p.returned, id)
	}
	return true
}
