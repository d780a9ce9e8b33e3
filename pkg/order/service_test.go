package order_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/daemon/daemontest"
	"platformctl/pkg/order"
	"platformctl/pkg/outbox"
	"platformctl/pkg/postgres"
	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit"
	"platformctl/pkg/rabbit/rabbittest"

	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"
)

const patience = 30 * time.Second

// service is order-api in a test: the same parts, as the same role, with a proxy before each server.
type service struct {
	db              postgrestest.Database // as the superuser, past the proxy
	vhost           string                // past the proxy
	database        *rabbittest.Proxy
	broker          *rabbittest.Proxy
	store           *order.Store
	intake          *order.Intake
	pace            *order.Pace
	relay           *outbox.Relay
	depths          *order.Depths
	settler         *order.Settler
	sweeper         *order.Sweeper
	publisher, subs *rabbit.Dialer
	url             string
	notes           *notes
	stop            func() // ends intake, relay, consumer and sweeper
}

// options of a service.
type options struct {
	hold     time.Duration
	deadline time.Duration // of a batch; by default that of a test, for the disk of a busy machine may be away for seconds
	noRelay  bool          // nothing speaks to the broker
}

func newService(t *testing.T, db postgrestest.Database, vhost string, o options) *service {
	t.Helper()
	if o.hold == 0 {
		o.hold = time.Hour
	}
	if o.deadline == 0 {
		o.deadline = patience
	}
	noted := &notes{}
	log := slog.New(noted)
	s := &service{notes: noted, db: db, vhost: vhost, database: rabbittest.NewProxy(t, db.URL)}
	pool, err := postgres.Open(s.database.URL(db.As("order_api")), "test", 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	registry := prometheus.NewRegistry()
	s.relay = outbox.New(t.Name(), pool, log, order.Keys()...)
	s.store = &order.Store{DB: pool, Pod: "pod-1", Relay: s.relay.Name, Hold: o.hold}
	s.pace = &order.Pace{Store: s.store, Log: log}
	s.intake = order.NewIntake(s.store, s.pace, s.relay.Offer, registry, log)
	s.intake.Deadline = o.deadline
	waiters := &order.Waiters{}
	s.depths = &order.Depths{}
	s.settler = &order.Settler{Store: s.store, Waiters: waiters, Pace: s.pace, Log: log, Ends: order.NewEndHistogram(registry)}
	s.sweeper = &order.Sweeper{Store: s.store, Waiters: waiters, Log: log, Pause: 20 * time.Millisecond}
	s.sweeper.Expired, s.sweeper.Unheard = order.NewSweeperCounters(registry)
	mux := http.NewServeMux()
	api := order.NewAPI(order.API{Store: s.store, Shows: postgres.Throttle(s.store.Shows), Intake: s.intake, Waiters: waiters, Log: log, Gone: daemontest.Gone})
	api.Routes(mux)
	url, serverStop := daemontest.Serve(t, mux, api.Direct(), log)
	s.url = url

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var parts sync.WaitGroup
	part := func(run func(context.Context) error) {
		parts.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	part(s.intake.Run)
	part(s.sweeper.Run)
	part(func(ctx context.Context) error { return waiters.Watch(ctx, s.store, log) })
	part(s.pace.Run)
	if !o.noRelay {
		s.broker = rabbittest.NewProxy(t, vhost)
		exchanges := order.Broker{Events: "events.topic", DeadLetters: "dlx.direct", Prefetch: 500}
		s.publisher = &rabbit.Dialer{URL: s.broker.URL(vhost), Name: "relay", Log: log}
		s.subs = &rabbit.Dialer{URL: s.broker.URL(vhost), Name: "consumer", Log: log}
		part(exchanges.Consumer(s.subs, s.settler, rabbit.NewConsumerMetrics(registry)).Run)
		part(func(ctx context.Context) error {
			exchanges.Relay(ctx, s.publisher, s.relay, s.pace, s.depths)
			return nil
		})
	}
	s.stop = sync.OnceFunc(func() {
		waiters.Close()
		serverStop()
		cancel()
		parts.Wait()
	})
	t.Cleanup(s.stop)
	return s
}

// notes is a log of which only the messages are kept.
type notes struct {
	mu       sync.Mutex
	messages []string
}

func (n *notes) Enabled(context.Context, slog.Level) bool { return true }
func (n *notes) WithAttrs([]slog.Attr) slog.Handler       { return n }
func (n *notes) WithGroup(string) slog.Handler            { return n }
func (n *notes) Handle(_ context.Context, r slog.Record) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.messages = append(n.messages, r.Message)
	return nil
}

func (n *notes) have(message string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.messages, message)
}

// answer is an HTTP answer whose body was read.
type answer struct {
	code   int
	header http.Header
	body   string
}

func (s *service) post(t testing.TB, body string) answer {
	t.Helper()
	r, err := http.Post(s.url+"/orders", "application/json", strings.NewReader(body))
	return read(t, r, err)
}

func (s *service) get(t testing.TB, path string) answer {
	t.Helper()
	r, err := http.Get(s.url + path)
	return read(t, r, err)
}

func read(t testing.TB, r *http.Response, err error) answer {
	t.Helper()
	if err != nil {
		t.Error(err)
		return answer{}
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return answer{r.StatusCode, r.Header, strings.TrimSuffix(string(body), "\n")}
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.code, a.body) }

// accepted is the id of an accepted order.
func (a answer) accepted(t testing.TB) int32 {
	t.Helper()
	var body struct {
		Status  string
		OrderID int32
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil || a.code != http.StatusAccepted || body.Status != "accepted" || body.OrderID < 1 {
		t.Fatalf("not accepted: %s %v", a, err)
	}
	return body.OrderID
}

// state is all of an order as the tables have it.
type state struct {
	Order, Hold string
	RefundDue   bool
}

func stateOf(t testing.TB, db postgrestest.Database, id int32) (s state) {
	t.Helper()
	if err := db.Pool.QueryRow(t.Context(), `
		SELECT o.status, r.status, coalesce((SELECT refund_due FROM payments p WHERE p.order_id = o.id), false)
		FROM orders o JOIN inventory_reservations r ON r.order_id = o.id WHERE o.id = $1`, id).Scan(&s.Order, &s.Hold, &s.RefundDue); err != nil {
		t.Fatalf("order %d: %v", id, err)
	}
	return s
}

// number reads one number.
func number(t testing.TB, db postgrestest.Database, sql string, args ...any) (n int) {
	t.Helper()
	if err := db.Pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// counted fails the test where a counter is not the sum of its reservations, or above the capacity.
func counted(t testing.TB, db postgrestest.Database) {
	t.Helper()
	if n := number(t, db, `
		SELECT count(*) FROM shows s LEFT JOIN show_seats c ON c.show_id = s.id
		WHERE c.held IS DISTINCT FROM (SELECT coalesce(sum(quantity), 0) FROM inventory_reservations r WHERE r.show_id = s.id AND r.status IN ('RESERVED', 'COMMITTED'))
			OR c.capacity <> s.capacity OR c.held > s.capacity`); n != 0 {
		t.Errorf("%d shows are counted wrongly", n)
	}
}

// ended waits for an order's end by the API.
func (s *service) ended(t testing.TB, id int32) order.View {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		a := s.get(t, fmt.Sprintf("/orders/%d?wait=5s", id))
		var v order.View
		if err := json.Unmarshal([]byte(a.body), &v); a.code == http.StatusOK && err != nil {
			t.Fatalf("%s: %v", a, err)
		}
		if a.code == http.StatusOK && v.Status != order.Pending {
			return v
		}
		if time.Now().After(deadline) {
			t.Fatalf("order %d does not end: %s", id, a)
		}
	}
}

// result is a payment's result as our payment service sends it.
func result(id int32, paid bool) []byte {
	kind, status := contract.KeyPaymentFailed, "FAILED"
	if paid {
		kind, status = contract.KeyPaymentSucceeded, "SUCCEEDED"
	}
	return contract.PaymentResult{
		MessageID: fmt.Sprintf("%s:%d", kind, id), CreatedAt: time.Now(), Type: kind, OrderID: id, UserID: contract.UserID("1"), Amount: 50, Status: status,
	}.Encode()
}

// delivery is a message as the consumer gets it.
func delivery(tag uint64, body []byte) amqp.Delivery {
	return amqp.Delivery{DeliveryTag: tag, Body: body, RoutingKey: "payment.unknown"}
}

// send publishes a body on a key, confirmed.
func send(t testing.TB, channel *amqp.Channel, key string, body []byte) {
	t.Helper()
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	confirm, err := channel.PublishWithDeferredConfirm("events.topic", key, true, false, amqp.Publishing{Body: body, DeliveryMode: amqp.Persistent})
	if err != nil || !confirm.Wait() {
		t.Fatalf("publish on %s: %v", key, err)
	}
}

// oldPaymentService consumes and answers as the replaced one did: bodies without amount and status, ids as strings.
func oldPaymentService(t *testing.T, vhost string, paid func(order int32) bool) {
	t.Helper()
	oldPaymentServiceWith(t, vhost, `"%d"`, paid)
}

// oldPaymentServiceWith writes ids as in format. It stops as if it were killed, with messages in hand that it has not answered.
func oldPaymentServiceWith(t *testing.T, vhost, format string, paid func(order int32) bool) (kill func()) {
	t.Helper()
	channel := rabbittest.Channel(t, vhost)
	if err := (contract.Topology{Events: "events.topic", DeadLetters: "dlx.direct"}).Declare(channel); err != nil {
		t.Fatal(err)
	}
	orders, err := channel.Consume(contract.QueueOrderCreated, "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for d := range orders {
			e, err := contract.DecodeOrderCreated(d.Body)
			if err != nil {
				t.Errorf("%s: %v", d.Body, err)
				continue
			}
			kind := contract.KeyPaymentFailed
			if paid(e.OrderID) {
				kind = contract.KeyPaymentSucceeded
			}
			body := fmt.Sprintf(`{"messageId":"old-%d","createdAt":"2025-01-01T00:00:00.000Z","type":%q,"orderId":`+format+`,"userId":%s}`, e.OrderID, kind, e.OrderID, e.UserID)
			if err := channel.PublishWithContext(context.Background(), "events.topic", kind, false, false, amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent}); err != nil {
				return // the test is over
			}
			if err := d.Ack(false); err != nil {
				return
			}
		}
	}()
	return func() { _ = channel.Close() } // the test's end closes what is left
}

// oldOrder is an order of the replaced order-api: rows that name only the old columns, and an event after the COMMIT.
func oldOrder(t testing.TB, db postgrestest.Database, channel *amqp.Channel, format string) (id int32) {
	t.Helper()
	if err := db.Pool.QueryRow(t.Context(), `
		WITH o AS (INSERT INTO orders (user_id, show_id, quantity, status) VALUES ('77', 1, 1, 'PENDING') RETURNING id),
		r AS (INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) SELECT 1, id, 1, 'RESERVED', now() + interval '1 hour' FROM o)
		SELECT id FROM o`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	send(t, channel, contract.KeyOrderCreated, fmt.Appendf(nil,
		`{"messageId":"old-order-%d","createdAt":"2025-01-01T00:00:00.000Z","type":"order.created","orderId":`+format+`,"userId":77,"showId":1,"quantity":1,"status":"PENDING"}`, id, id))
	return id
}

// until waits for something that is only to be seen by asking.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}
