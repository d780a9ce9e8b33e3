package inspect

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/rabbit/rabbittest"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
)

// shop is a virtual host with the platform's queues.
type shop struct {
	Broker
	channel *amqp.Channel
	t       *testing.T
}

func newShop(t *testing.T) shop {
	t.Helper()
	vhost := rabbittest.Platform(t)
	s := shop{Broker{URL: vhost}, rabbittest.Channel(t, vhost), t}
	if err := s.channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return s
}

// put publishes a message and returns when the broker has it.
func (s shop) put(exchange, key string, m amqp.Publishing) {
	s.t.Helper()
	m.DeliveryMode = amqp.Persistent
	confirmation, err := s.channel.PublishWithDeferredConfirm(exchange, key, true, false, m)
	if err != nil {
		s.t.Fatal(err)
	}
	if ok, err := confirmation.WaitContext(s.t.Context()); !ok || err != nil {
		s.t.Fatalf("the broker did not take it: %v", err)
	}
}

// dies has a message among the dead letters, as our services bury it.
func (s shop) dies(id, queue, key string, order int, retries int64) {
	s.t.Helper()
	headers := amqp.Table{
		contract.HeaderReason: "it is " + id, contract.HeaderOrigin: queue, contract.HeaderKey: key, contract.HeaderTries: int64(1),
		contract.HeaderDied: time.Unix(1_700_000_000, 0), "traceparent": "00-1-2-01",
	}
	if retries > 0 {
		headers[contract.HeaderRetries] = retries
	}
	body := fmt.Sprintf(`{"messageId":%q,"orderId":"%d"}`, id, order)
	if order == 0 {
		body = "no event"
	}
	s.put(contract.ExchangeDeadLetters, contract.KeyDeadLetter, amqp.Publishing{MessageId: id, Headers: headers, Body: []byte(body)})
}

// left are the message ids among the dead letters, in their order.
func (s shop) left() (ids []string) {
	s.t.Helper()
	letters, more, err := s.Letters(s.t.Context())
	if err != nil || more != 0 {
		s.t.Fatal(more, err)
	}
	for _, l := range letters {
		ids = append(ids, l.MessageID)
	}
	return ids
}

func taken(deliveries []amqp.Delivery) (ids []string) {
	for _, d := range deliveries {
		ids = append(ids, d.MessageId)
	}
	return ids
}

// A look tells what is known of each and leaves all where they were, however often.
func TestDeadLettersAreLookedAtAndStay(t *testing.T) {
	s := newShop(t)
	if ids := s.left(); len(ids) != 0 {
		t.Fatal(ids)
	}
	s.dies("a", contract.QueuePaymentResults, "payment.failed", 7, 2)
	// The broker's own: rejected by somebody who knows nothing of reasons.
	s.put(contract.ExchangeEvents, contract.KeyOrderCreated, amqp.Publishing{MessageId: "b", CorrelationId: "8", Body: []byte("{")})
	d, ok, err := s.channel.Get(contract.QueueOrderCreated, false)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := d.Reject(false); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); len(s.left()) < 2; {
		if time.Now().After(deadline) {
			t.Fatal("the rejected message is no dead letter")
		}
	}
	for range 30 {
		if diff := cmp.Diff([]string{"a", "b"}, s.left()); diff != "" {
			t.Fatal(diff)
		}
	}
	letters, _, err := s.Letters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if letters[1].Died.IsZero() || len(letters[0].ID) != 8 || letters[0].ID == letters[1].ID {
		t.Errorf("%+v", letters)
	}
	type told struct {
		key, queue, reason    string
		order, tries, retries int64
	}
	for i, want := range []told{
		{"payment.failed", contract.QueuePaymentResults, "it is a", 7, 1, 2},
		{contract.KeyOrderCreated, contract.QueueOrderCreated, "its consumer rejected it and said no more", 8, 1, 0},
	} {
		l := letters[i]
		if got := (told{l.Key, l.Queue, l.Reason, l.Order, l.Tries, l.Retries}); got != want {
			t.Errorf("letter %d is %+v, want %+v", i, got, want)
		}
	}
}

// Sent back, a letter is in its queue with its key and a count, and with nothing left of its death; one that died too often stays,
// and so do the later ones of its order.
func TestDeadLettersGoBack(t *testing.T) {
	s := newShop(t)
	s.dies("1a", contract.QueueOrderCreated, contract.KeyOrderCreated, 1, 0)
	s.dies("2a", contract.QueueOrderCreated, contract.KeyOrderCreated, 2, 3)
	s.dies("1b", contract.QueueOrderCreated, contract.KeyOrderCreated, 1, 1)
	s.dies("2b", contract.QueueOrderCreated, contract.KeyOrderCreated, 2, 0)
	s.dies("gone", "no.such.q", "x", 3, 0)
	s.dies("after", contract.QueueOrderCreated, contract.KeyOrderCreated, 3, 0)
	s.dies("1b", contract.QueueOrderCreated, contract.KeyOrderCreated, 1, 0)
	s.dies("nowhere", "", "", 0, 0)

	dry, unknown, err := s.Retry(t.Context(), Choice{IDs: []string{"1a", "no-such-id"}}, true)
	if err != nil || len(dry) != 1 || !dry[0].Sent || len(unknown) != 1 || unknown[0] != "no-such-id" {
		t.Fatalf("%+v %q %v", dry, unknown, err)
	}
	if n := len(s.left()); n != 8 {
		t.Fatalf("a dry run left %d of 8", n)
	}

	fates, _, err := s.Retry(t.Context(), Choice{All: true}, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range fates {
		got = append(got, strings.ReplaceAll(fmt.Sprint(f.MessageID, " ", f.Sent, " ", f.Why), fates[1].ID, "2a"))
	}
	want := []string{
		"1a true ", "2a false it died again after each of 3 retries", "1b true ", "2b false 2a, an earlier one of order 2, stays",
		"gone false there is no queue no.such.q", "after false " + fates[4].ID + ", an earlier one of order 3, stays", "1b true ",
		"nowhere false nobody wrote down which queue it came from",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	back := rabbittest.Take(t, s.channel, contract.QueueOrderCreated, 3)
	if diff := cmp.Diff([]string{"1a", "1b", "1b"}, taken(back)); diff != "" {
		t.Error(diff)
	}
	headers := amqp.Table{contract.HeaderRetries: int64(2), contract.HeaderKey: contract.KeyOrderCreated, "traceparent": "00-1-2-01"}
	if diff := cmp.Diff(headers, back[1].Headers); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"2a", "2b", "gone", "after", "nowhere"}, s.left()); diff != "" {
		t.Error(diff)
	}
}

func TestDeadLettersAreDropped(t *testing.T) {
	s := newShop(t)
	s.dies("a", contract.QueueOrderCreated, contract.KeyOrderCreated, 1, 0)
	s.dies("b", contract.QueuePaymentResults, "payment.failed", 2, 0)
	s.dies("c", contract.QueuePaymentResults, "payment.succeeded", 3, 0)
	if dropped, _, err := s.Drop(t.Context(), Choice{Key: "payment.*"}, true); err != nil || len(dropped) != 2 {
		t.Fatal(dropped, err)
	}
	if dropped, _, err := s.Drop(t.Context(), Choice{Key: "payment.*", Order: 3}, false); err != nil || len(dropped) != 1 {
		t.Fatal(dropped, err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, s.left()); diff != "" {
		t.Error(diff)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, key string
		want         bool
	}{
		{"payment.*", "payment.failed", true}, {"payment.*", "payment", false}, {"payment.*", "payment.failed.twice", false}, {"#", "", true},
		{"#", "a.b", true}, {"payment.#", "payment", true}, {"*.created", "order.created", true}, {"#.created", "created", true}, {"", "a", false},
	} {
		if got := Match(c.pattern, c.key); got != c.want {
			t.Errorf("Match(%q, %q) is %v", c.pattern, c.key, got)
		}
	}
}
