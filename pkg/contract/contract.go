// Package contract is what crosses the broker: the names, the topology and the payloads of the ordering platform's events.
//
// Everything here is relied on by services that are not ours, so a name or a field changes only together with them.
package contract

import (
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Routing keys; an event's type is the key it travels on.
const (
	KeyOrderCreated     = "order.created"
	KeyPaymentSucceeded = "payment.succeeded"
	KeyPaymentFailed    = "payment.failed"
	KeyDeadLetter       = "events.dlq"
)

// Queues.
const (
	QueueOrderCreated   = "payment.order-created.q" // order.created, for the payment service
	QueuePaymentResults = "order.payment-results.q" // payment.*, for order-api
	QueuePaymentEvents  = "payment.events.q"        // payment.*, for the old payment service
	QueueDeadLetters    = "events.dlq.q"            // what could not be handled
	bindPaymentResults  = "payment.*"               // both results of a payment
	argDeadExchange     = "x-dead-letter-exchange"  // with the next, the only arguments of a queue of ours
	argDeadKey          = "x-dead-letter-routing-key"
	argTTL              = "x-message-ttl" // payment.events.q alone
)

// Exchanges, as they are called where the services are not told otherwise.
const (
	ExchangeEvents      = "events.topic"
	ExchangeDeadLetters = "dlx.direct"
)

// Headers of a dead letter. HeaderKey and HeaderRetries stay on a message that is sent back to its queue, the others do not.
const (
	HeaderReason  = "x-reason"       // why it could not be handled, a sentence
	HeaderOrigin  = "x-origin-queue" // the queue it was taken from
	HeaderKey     = "x-origin-key"   // the routing key it was published on
	HeaderTries   = "x-tries"        // how often it was delivered, this time included (int64)
	HeaderDied    = "x-died-at"      // when it was given up (an AMQP timestamp, in whole seconds)
	HeaderRetries = "x-retries"      // how often it was sent back to its queue (int64)
)

// HeaderTrace is the header of every event that says which trace it belongs to, as W3C's Trace Context writes it.
const HeaderTrace = "traceparent"

// Limits of what an order may hold.
const (
	MaxUserID   = 255       // bytes of a user's id as text
	MaxQuantity = 1_000_000 // seats in one order; it keeps every sum of money within 32 bits
)

// Topology is what there is at the broker. Every entity is durable. A queue's type is left to the virtual host's default, for an old
// service declares the same queues without one, and the broker compares arguments.
type Topology struct {
	Events      string // the topic exchange
	DeadLetters string // the direct exchange of dead letters

	PaymentEvents    bool          // whether payment.events.q is declared too
	PaymentEventsTTL time.Duration // how long a message stays in it; 0 is for ever
}

// Declarer is the part of an AMQP channel that declares.
type Declarer interface {
	ExchangeDeclare(name, kind string, durable, autoDelete, internal, noWait bool, args amqp.Table) error
	QueueDeclare(name string, durable, autoDelete, exclusive, noWait bool, args amqp.Table) (amqp.Queue, error)
	QueueBind(name, key, exchange string, noWait bool, args amqp.Table) error
}

// Declare makes what is not there yet: the exchanges, the queue of the dead letters, and those of queues that belong to it; all where
// none are named. A service names the queues that it consumes, for whoever may declare a queue may delete it. It is safe to repeat
// and beside others who declare the same.
func (t Topology) Declare(d Declarer, queues ...string) error {
	if err := d.ExchangeDeclare(t.Events, amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
		return err
	}
	if err := d.ExchangeDeclare(t.DeadLetters, amqp.ExchangeDirect, true, false, false, false, nil); err != nil {
		return err
	}
	dead := amqp.Table{argDeadExchange: t.DeadLetters, argDeadKey: KeyDeadLetter}
	all := []struct {
		name, key, exchange string
		args                amqp.Table
	}{
		{QueueDeadLetters, KeyDeadLetter, t.DeadLetters, nil},
		{QueueOrderCreated, KeyOrderCreated, t.Events, dead},
		{QueuePaymentResults, bindPaymentResults, t.Events, dead},
	}
	if t.PaymentEvents {
		args := amqp.Table{argDeadExchange: t.DeadLetters, argDeadKey: KeyDeadLetter}
		if t.PaymentEventsTTL > 0 {
			args[argTTL] = t.PaymentEventsTTL.Milliseconds()
		}
		all = append(all, struct {
			name, key, exchange string
			args                amqp.Table
		}{QueuePaymentEvents, bindPaymentResults, t.Events, args})
	}
	for _, q := range all {
		if len(queues) > 0 && q.name != QueueDeadLetters && !slices.Contains(queues, q.name) {
			continue
		}
		if _, err := d.QueueDeclare(q.name, true, false, false, false, q.args); err != nil {
			return err
		}
		if err := d.QueueBind(q.name, q.key, q.exchange, false, nil); err != nil {
			return err
		}
	}
	return nil
}
