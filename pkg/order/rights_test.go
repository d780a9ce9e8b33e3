package order_test

import (
	"testing"

	"platformctl/pkg/contract"
	"platformctl/pkg/rabbit/rabbittest"

	amqp "github.com/rabbitmq/amqp091-go"
)

// At the broker order-api's user may do what order-api does, and nothing past it. That it may do that is also shown by every test
// with services beside servers that the start script made.
func TestRightsAtTheBroker(t *testing.T) {
	address := rabbittest.As(t, "order_api")
	channel := rabbittest.Channel(t, address)
	topology := contract.Topology{Events: contract.ExchangeEvents, DeadLetters: contract.ExchangeDeadLetters}
	if err := topology.Declare(channel, contract.QueuePaymentResults); err != nil {
		t.Fatal(err)
	}
	if _, err := channel.Consume(contract.QueuePaymentResults, "", false, false, false, false, nil); err != nil {
		t.Error(err)
	}
	if _, err := channel.QueueDeclarePassive(contract.QueueOrderCreated, true, false, false, false, nil); err != nil {
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
		"to read payment-service's queue": read(contract.QueueOrderCreated),
		"to read the dead letters":        read(contract.QueueDeadLetters),
		"to consume payment-service's queue": func(ch *amqp.Channel) error {
			_, err := ch.Consume(contract.QueueOrderCreated, "", true, false, false, false, nil)
			return err
		},
		"to empty payment-service's queue": func(ch *amqp.Channel) error { _, err := ch.QueuePurge(contract.QueueOrderCreated, false); return err },
		"to delete payment-service's queue": func(ch *amqp.Channel) error {
			_, err := ch.QueueDelete(contract.QueueOrderCreated, false, false, false)
			return err
		},
		"to unbind payment-service's queue": func(ch *amqp.Channel) error {
			return ch.QueueUnbind(contract.QueueOrderCreated, contract.KeyOrderCreated, contract.ExchangeEvents, nil)
		},
		"to make a queue": func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare("mine", true, false, false, false, nil)
			return err
		},
		"to publish what payment-service says": publish(contract.ExchangeEvents, contract.KeyPaymentSucceeded),
		"to publish past the exchanges":        publish("", contract.QueuePaymentResults),
		"to hear what is not for it": func(ch *amqp.Channel) error {
			return ch.QueueBind(contract.QueuePaymentResults, "#", contract.ExchangeEvents, false, nil)
		},
	})
}
