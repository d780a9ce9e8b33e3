package contract_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/contract"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"
)

// recorder writes down what is declared.
type recorder struct{ lines []string }

func (r *recorder) ExchangeDeclare(name, kind string, durable, autoDelete, internal, noWait bool, args amqp.Table) error {
	r.lines = append(r.lines, fmt.Sprintf("exchange %s %s durable=%t %v", name, kind, durable, args))
	return nil
}

func (r *recorder) QueueDeclare(name string, durable, autoDelete, exclusive, noWait bool, args amqp.Table) (amqp.Queue, error) {
	r.lines = append(r.lines, fmt.Sprintf("queue %s durable=%t %v", name, durable, args))
	return amqp.Queue{}, nil
}

func (r *recorder) QueueBind(name, key, exchange string, noWait bool, args amqp.Table) error {
	r.lines = append(r.lines, fmt.Sprintf("bind %s %s %s", name, key, exchange))
	return nil
}

func TestTopologyIsWhatOldServicesDeclare(t *testing.T) {
	var r recorder
	topology := contract.Topology{Events: "events.topic", DeadLetters: "dlx.direct", PaymentEvents: true, PaymentEventsTTL: time.Minute}
	if err := topology.Declare(&r); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"exchange events.topic topic durable=true map[]",
		"exchange dlx.direct direct durable=true map[]",
		"queue events.dlq.q durable=true map[]",
		"bind events.dlq.q events.dlq dlx.direct",
		"queue payment.order-created.q durable=true map[x-dead-letter-exchange:dlx.direct x-dead-letter-routing-key:events.dlq]",
		"bind payment.order-created.q order.created events.topic",
		"queue order.payment-results.q durable=true map[x-dead-letter-exchange:dlx.direct x-dead-letter-routing-key:events.dlq]",
		"bind order.payment-results.q payment.* events.topic",
		"queue payment.events.q durable=true map[x-dead-letter-exchange:dlx.direct x-dead-letter-routing-key:events.dlq x-message-ttl:60000]",
		"bind payment.events.q payment.* events.topic",
	}
	if diff := cmp.Diff(want, r.lines); diff != "" {
		t.Error(diff)
	}
}

func TestAServiceDeclaresWhatItConsumes(t *testing.T) {
	var r recorder
	topology := contract.Topology{Events: "events.topic", DeadLetters: "dlx.direct"}
	if err := topology.Declare(&r, contract.QueueOrderCreated, contract.QueuePaymentEvents); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"exchange events.topic topic durable=true map[]",
		"exchange dlx.direct direct durable=true map[]",
		"queue events.dlq.q durable=true map[]",
		"bind events.dlq.q events.dlq dlx.direct",
		"queue payment.order-created.q durable=true map[x-dead-letter-exchange:dlx.direct x-dead-letter-routing-key:events.dlq]",
		"bind payment.order-created.q order.created events.topic",
	}
	if diff := cmp.Diff(want, r.lines); diff != "" {
		t.Error(diff)
	}
}

func TestOrderCreatedOnTheWire(t *testing.T) {
	at := time.Date(2025, 1, 2, 3, 4, 5, 678e6, time.UTC)
	e := contract.OrderCreated{
		MessageID: "order.created:7", CreatedAt: at, OrderID: 7, UserID: contract.UserID(`"a<\u0062>&/ü"`), ShowID: 1, Quantity: 2,
		Status: "PENDING", ExpiresAt: at.Add(time.Minute),
	}
	want := `{"messageId":"order.created:7","createdAt":"2025-01-02T03:04:05.678Z","type":"order.created","orderId":7,` +
		`"userId":"a<\u0062>&/ü","showId":1,"quantity":2,"status":"PENDING","expiresAt":"2025-01-02T03:05:05.678Z"}`
	if got := string(e.Encode()); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	back, err := contract.DecodeOrderCreated(e.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e, back); diff != "" {
		t.Error(diff)
	}
}

func TestPaymentResultOnTheWire(t *testing.T) {
	e := contract.PaymentResult{
		MessageID: "payment.failed:7", CreatedAt: time.Unix(0, 0).UTC(), Type: contract.KeyPaymentFailed, OrderID: 7, UserID: contract.UserID(`12345678901234567890`),
		ShowID: 1, Quantity: 2, Amount: 100, Status: "FAILED",
	}
	want := `{"messageId":"payment.failed:7","createdAt":"1970-01-01T00:00:00.000Z","type":"payment.failed","orderId":7,` +
		`"userId":12345678901234567890,"amount":100,"status":"FAILED","showId":1,"quantity":2}`
	if got := string(e.Encode()); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	back, err := contract.DecodePaymentResult(e.Encode(), "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e, back); diff != "" {
		t.Error(diff)
	}
}

func TestBodiesOfOldServices(t *testing.T) {
	order, err := contract.DecodeOrderCreated([]byte(`{"messageId":"m-1","createdAt":"yesterday","type":"order.created","orderId":"12","userId":"u","showId":"3","quantity":"4","status":"PENDING"}`))
	if err != nil || order.OrderID != 12 || order.ShowID != 3 || order.Quantity != 4 || !order.CreatedAt.IsZero() {
		t.Errorf("%+v %v", order, err)
	}
	for body, key := range map[string]string{
		`{"messageId":"m","type":"payment.succeeded","orderId":12,"userId":5}`:       "payment.failed", // the type decides
		`{"messageId":"m","orderId":"12","amount":"12.50","userId":null}`:            "payment.succeeded",
		`{"messageId":"m","orderId":12,"userId":"` + strings.Repeat("x", 300) + `"}`: "payment.succeeded", // an old service's: the order ends all the same
		`{"type":"payment.succeeded","orderId":12,"status":"FAILED","quantity":{}}`:  "x",
	} {
		result, err := contract.DecodePaymentResult([]byte(body), key)
		if err != nil || result.OrderID != 12 || result.Type != contract.KeyPaymentSucceeded {
			t.Errorf("%s: %+v %v", body, result, err)
		}
	}
}

func TestPoisonIsNamed(t *testing.T) {
	for body, want := range map[string]string{
		`{`:  "not an event",
		`[]`: "not an event",
		`{"messageId":"m","type":"order.created","userId":1,"showId":1,"quantity":1}`:                       "orderId is missing",
		`{"messageId":"m","orderId":99999999999,"userId":1,"showId":1,"quantity":1}`:                        "32 bits",
		`{"messageId":"m","orderId":1.5,"userId":1,"showId":1,"quantity":1}`:                                "32 bits",
		`{"messageId":"m","orderId":1,"showId":1,"quantity":1}`:                                             "userId is missing",
		`{"messageId":"m","orderId":1,"userId":{},"showId":1,"quantity":1}`:                                 "number or a string",
		`{"messageId":"m","orderId":1,"userId":"a\u0000b","showId":1,"quantity":1}`:                         "NUL",
		`{"messageId":"m","orderId":1,"userId":1,"quantity":1}`:                                             "showId",
		`{"messageId":"m","orderId":1,"userId":1,"showId":1,"quantity":0}`:                                  "quantity",
		`{"messageId":"m","orderId":1,"userId":1,"showId":1,"quantity":"2000000"}`:                          "quantity",
		`{"orderId":1,"userId":1,"showId":1,"quantity":1}`:                                                  "messageId",
		`{"messageId":"m","type":"payment.failed","orderId":1,"userId":1,"showId":1,"quantity":1}`:          "is not order.created",
		`{"messageId":"m","orderId":1,"userId":"` + strings.Repeat("x", 300) + `","showId":1,"quantity":1}`: "at most 255",
	} {
		if _, err := contract.DecodeOrderCreated([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	if _, err := contract.DecodePaymentResult([]byte(`{"orderId":1}`), "payment.unknown"); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Errorf("unknown type: %v", err)
	}
}

func TestUserIDGoesThroughByteForByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		notBlank := func(s string) bool { return strings.TrimSpace(s) != "" }
		raw, err := json.Marshal(rapid.StringMatching(`[^\x00]{1,60}`).Filter(notBlank).Draw(t, "user"))
		if err != nil {
			t.Fatal(err)
		}
		user := contract.UserID(raw)
		order, err := contract.DecodeOrderCreated(contract.OrderCreated{MessageID: "m", OrderID: 1, UserID: user, ShowID: 1, Quantity: 1}.Encode())
		if err != nil {
			t.Fatal(err)
		}
		result, err := contract.DecodePaymentResult(contract.PaymentResult{Type: contract.KeyPaymentFailed, OrderID: 1, UserID: order.UserID}.Encode(), "")
		if err != nil {
			t.Fatal(err)
		}
		if string(result.UserID) != string(raw) || result.UserID.Text() != user.Text() {
			t.Fatalf("%s became %s", raw, result.UserID)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"messageId":"m","orderId":"1","userId":1,"showId":1,"quantity":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if e, err := contract.DecodeOrderCreated(body); err == nil {
			if again, err := contract.DecodeOrderCreated(e.Encode()); err != nil || again.OrderID != e.OrderID || string(again.UserID) != string(e.UserID) {
				t.Errorf("%s: %+v became %+v, %v", body, e, again, err)
			}
		}
		if r, err := contract.DecodePaymentResult(body, ""); err == nil && r.OrderID < 1 {
			t.Errorf("%s: order %d", body, r.OrderID)
		}
		for _, key := range contract.Keys() {
			if id, order, err := contract.Check(key, body); err == nil && (id == "" || order < 1) {
				t.Errorf("%s may be published on %s: message %q, order %d", body, key, id, order)
			}
		}
	})
}
