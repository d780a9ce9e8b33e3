package payment_test

import (
	"testing"

	"platformctl/pkg/contract"
	"platformctl/pkg/rabbit/rabbittest"

	amqp "github.com/rabbitmq/amqp091-go"
)

// At the broker payment-service's user may do what payment-service does, and nothing past it. That it may do that is also shown by every test
// with services beside servers that the start script made.
func TestRightsAtTheBroker(t *testing.T) {
	address := rabbittest.As(t, "payment_service")
	channel := rabbittest.Channel(t, address)
	topology := contract.Topology{Events: contract.ExchangeEvents, DeadLetters: contract.ExchangeDeadLetters}
	if err := topology.Declare(channel, contract.QueueOrderCreated); err != nil {
		t.Fatal(err)
	}
	if _, err := channel.Consume(contract.QueueOrderCreated, "", false, false, false, false, nil); err != nil {
		t.Error(err)
	}
	if _, err := channel.QueueDeclarePassive(contract.QueuePaymentResults, true, false, false, false, nil); err != nil {
		t.Errorf("the queue that it publishes to is not there: %v", err)
	}
	publish := func(exchange, key string) func(*amqp.Channel) error {
		return func(ch *amqp.Channel) error { // of an event that nobody wants: it comes back
			return ch.PublishWithContext(t.Context(), exchange, key, true, false, amqp.Publishing{Body: []byte("{}")})
		}
	}
	if err := publish(contract.ExchangeDeadLetters, "nowhere")(channel); err != nil {
		t.Error(err)
	}
	if err := channel.Qos(1, 0, false); err != nil {
		t.Errorf("it may not publish a dead letter: %v", err)
	}
	read := func(queue string) func(*amqp.Channel) error {
		return func(ch *amqp.Channel) error { _, _, err := ch.Get(queue, false); return err }
	}
	rabbittest.Denied(t, address, map[string]func(*amqp.Channel) error{
		"to read order-api's queue": read(contract.QueuePaymentResults),
		"to read the dead letters":  read(contract.QueueDeadLetters),
		"to consume order-api's queue": func(ch *amqp.Channel) error {
			_, err := ch.Consume(contract.QueuePaymentResults, "", true, false, false, false, nil)
			return err
		},
		"to empty order-api's queue": func(ch *amqp.Channel) error { _, err := ch.QueuePurge(contract.QueuePaymentResults, false); return err },
		"to delete order-api's queue": func(ch *amqp.Channel) error {
			_, err := ch.QueueDelete(contract.QueuePaymentResults, false, false, false)
			return err
		},
		"to unbind order-api's queue": func(ch *amqp.Channel) error {
			return ch.QueueUnbind(contract.QueuePaymentResults, contract.KeyPaymentSucceeded, contract.ExchangeEvents, nil)
		},
		"to make a queue": func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare("mine", true, false, false, false, nil)
			return err
		},
		"to publish what order-api says": publish(contract.ExchangeEvents, contract.KeyOrderCreated),
		"to publish past the exchanges":  publish("", contract.QueueOrderCreated),
		"to hear what is not for it": func(ch *amqp.Channel) error {
			return ch.QueueBind(contract.QueueOrderCreated, "#", contract.ExchangeEvents, false, nil)
		},
	})
}
