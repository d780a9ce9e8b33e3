package inspect

import (
	"context"
	"errors"
	"strings"
	"testing"

	"platformctl/pkg/contract"
	"platformctl/pkg/rabbit/rabbittest"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
)

var errEnough = errors.New("enough")

// A tap sees what the services get, and goes on after the connection was lost; the services get all of it.
func TestTapTakesNothing(t *testing.T) {
	s := newShop(t)
	proxy := rabbittest.NewProxy(t, s.URL)
	tapped := Broker{URL: proxy.URL(s.URL)}
	begun, seen, lost, done := make(chan bool), make(chan Event), make(chan error, 10), make(chan error, 1)
	go func() {
		done <- tapped.Tap(t.Context(), "payment.*", func() { begun <- true }, func(err error) { lost <- err }, func(e Event) error {
			seen <- e
			if e.MessageID == "last" {
				return errEnough
			}
			return nil
		})
	}()
	<-begun
	s.put(contract.ExchangeEvents, contract.KeyOrderCreated, amqp.Publishing{MessageId: "not his", Body: []byte("{}")})
	s.put(contract.ExchangeEvents, contract.KeyPaymentFailed, amqp.Publishing{MessageId: "a", Body: []byte(`{"orderId":"7"}`), Headers: amqp.Table{"traceparent": "x"}})
	if e := <-seen; e.MessageID != "a" || e.Order != 7 || e.Key != contract.KeyPaymentFailed || e.Trace != "x" {
		t.Errorf("%+v", e)
	}
	proxy.Cut()
	if err := <-lost; err == nil {
		t.Error("it does not know why")
	}
	<-begun
	s.put(contract.ExchangeEvents, contract.KeyPaymentSucceeded, amqp.Publishing{MessageId: "last", Body: []byte("no JSON")})
	if e := <-seen; e.MessageID != "last" || e.Order != 0 {
		t.Errorf("%+v", e)
	}
	if err := <-done; !errors.Is(err, errEnough) {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"a", "last"}, taken(rabbittest.Take(t, s.channel, contract.QueuePaymentResults, 2))); diff != "" {
		t.Error(diff)
	}
}

// Where there is no exchange yet, or no broker, that is said and not waited for; a tap ends with its context.
func TestTapOfNothing(t *testing.T) {
	none := func() {}
	fail := func(error) { t.Error("it goes on") }
	see := func(Event) error { return nil }
	if err := (Broker{URL: rabbittest.VHost(t)}).Tap(t.Context(), "#", none, fail, see); err == nil || !strings.Contains(err.Error(), "look for the exchange events.topic") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := newShop(t).Tap(ctx, "#", func() { cancel(errEnough) }, fail, see); !errors.Is(err, errEnough) {
		t.Error(err)
	}
}

func TestPublishByTheContract(t *testing.T) {
	s := newShop(t)
	body := `{"messageId":"m-1","orderId":5,"userId":1,"showId":1,"quantity":2}`
	if _, err := s.Publish(t.Context(), contract.KeyOrderCreated, []byte(`{"orderId":5}`)); err == nil {
		t.Error("it was published")
	}
	if id, err := s.Publish(t.Context(), contract.KeyOrderCreated, []byte(body)); err != nil || id != "m-1" {
		t.Fatal(id, err)
	}
	d := rabbittest.Take(t, s.channel, contract.QueueOrderCreated, 1)[0]
	if string(d.Body) != body || d.CorrelationId != "5" || contract.TraceOf(d.Headers) == "" {
		t.Errorf("%+v", d)
	}
}
