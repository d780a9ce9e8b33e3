package chaos

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"time"

	"platformctl/pkg/contract"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Messages is a client of the broker that is no service.
type Messages struct {
	URL      string                                                               // amqp://user:password@host:port/vhost
	Exchange string                                                               // of the events
	Dial     func(ctx context.Context, network, address string) (net.Conn, error) // nil is the usual way
}

const dialTime = 10 * time.Second

// with gives do a channel whose publishes are confirmed, and closes its connection after it.
func (m Messages) with(ctx context.Context, do func(*amqp.Channel) error) (err error) {
	dial := m.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName("platformctl chaos")
	conn, err := amqp.DialConfig(m.URL, amqp.Config{Properties: properties, Dial: func(network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTime)
		defer cancel()
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if err := c.SetDeadline(time.Now().Add(dialTime)); err != nil { // of the handshake; the library lifts it
			return nil, errors.Join(err, c.Close())
		}
		return c, nil
	}})
	if err != nil {
		return fmt.Errorf("connect to the broker: %w", err)
	}
	defer func() {
		if e := conn.CloseDeadline(time.Now().Add(dialTime)); err == nil && e != nil {
			err = fmt.Errorf("close the broker's connection: %w", e)
		}
	}()
	channel, err := conn.Channel()
	if err == nil {
		err = channel.Confirm(false)
	}
	if err != nil {
		return fmt.Errorf("open a channel at the broker: %w", err)
	}
	return do(channel)
}

// stored is a message as it was published.
type stored struct {
	key string
	p   amqp.Publishing
}

// Again listens until it has least events of orders, or ctx ends, and publishes each of them once more, in an order that draw
// shuffles. told is called before each with its id. It returns how many were published.
func (m Messages) Again(ctx context.Context, least int, draw *mathrand.Rand, told func(message string)) (n int, err error) {
	err = m.with(ctx, func(ch *amqp.Channel) error {
		heard, err := m.listen(ctx, ch, least)
		if err != nil {
			return err
		}
		draw.Shuffle(len(heard), func(i, j int) { heard[i], heard[j] = heard[j], heard[i] })
		n = len(heard)
		return publish(context.WithoutCancel(ctx), ch, m.Exchange, heard, told)
	})
	return n, err
}

// listen takes copies of the next events; the queue that they come by goes with the connection.
func (m Messages) listen(ctx context.Context, ch *amqp.Channel, least int) ([]stored, error) {
	queue, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return nil, fmt.Errorf("listen to the events: %w", err)
	}
	if err := ch.QueueBind(queue.Name, "#", m.Exchange, false, nil); err != nil {
		return nil, fmt.Errorf("listen to the events: %w", err)
	}
	deliveries, err := ch.Consume(queue.Name, "", true, true, false, false, nil)
	if err != nil {
		return nil, fmt.Errorf("listen to the events: %w", err)
	}
	var heard []stored
	for len(heard) < least {
		select {
		case <-ctx.Done():
			return heard, nil
		case d, open := <-deliveries:
			if !open {
				return nil, errors.New("listen to the events: the broker ended it")
			}
			heard = append(heard, stored{d.RoutingKey, amqp.Publishing{
				ContentType: d.ContentType, DeliveryMode: d.DeliveryMode, MessageId: d.MessageId, CorrelationId: d.CorrelationId, Timestamp: d.Timestamp, Headers: d.Headers, Body: d.Body,
			}})
		}
	}
	return heard, nil
}

// largeBody is more than any service sends.
const largeBody = 5 << 20

// Poison publishes one of each kind of message that can never be handled. told is called before each with its id.
func (m Messages) Poison(ctx context.Context, told func(message string)) (n int, err error) {
	run := strings.ToLower(rand.Text()[:10])
	var all []stored
	for kind, p := range poison() {
		p.p.MessageId, p.p.DeliveryMode, p.p.ContentType = fmt.Sprintf("poison:%s:%d", run, kind), amqp.Persistent, "application/json"
		all = append(all, p)
	}
	return len(all), m.with(ctx, func(ch *amqp.Channel) error { return publish(ctx, ch, m.Exchange, all, told) })
}

// poison is one body of each kind: no JSON, of wrong types, of an order that never was, nothing at all, and far too much.
func poison() []stored {
	body := func(key, text string) stored { return stored{key, amqp.Publishing{Body: []byte(text)}} }
	return []stored{
		body(contract.KeyOrderCreated, `{"orderId":`),
		body(contract.KeyOrderCreated, `{"messageId":7,"orderId":"one","userId":[],"showId":{},"quantity":"many"}`),
		body(contract.KeyOrderCreated, `{"messageId":"m","type":"order.created","orderId":2147483647,"userId":1,"showId":1,"quantity":1,"status":"PENDING"}`),
		body(contract.KeyPaymentSucceeded, `{"messageId":"m","type":"payment.succeeded","orderId":2147483647,"userId":1,"status":"SUCCEEDED"}`),
		body(contract.KeyPaymentFailed, ``),
		body(contract.KeyOrderCreated, `{"padding":"`+strings.Repeat("x", largeBody)+`"}`),
	}
}

// publish returns when the broker has confirmed all of them.
func publish(ctx context.Context, ch *amqp.Channel, exchange string, all []stored, told func(message string)) error {
	for _, s := range all {
		told(s.p.MessageId)
		confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, exchange, s.key, false, false, s.p)
		if err != nil {
			return fmt.Errorf("publish %s: %w", s.p.MessageId, err)
		}
		acked, err := confirm.WaitContext(ctx)
		if err == nil && !acked {
			err = errors.New("the broker refused it")
		}
		if err != nil {
			return fmt.Errorf("publish %s: %w", s.p.MessageId, err)
		}
	}
	return nil
}
