package payment_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/outbox"
	"platformctl/pkg/payment"
	"platformctl/pkg/postgres"
	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit"
	"platformctl/pkg/rabbit/rabbittest"

	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"
	"pgregory.net/rapid"
)

const patience = 30 * time.Second

// lastOrder is the last order that a service's database has, from 1 on.
const lastOrder = 5000

// service is the payment service in a test: the same parts, as the same role, with a proxy before each server.
type service struct {
	db       postgrestest.Database
	vhost    string
	channel  *amqp.Channel // the test's own
	database *rabbittest.Proxy
	broker   *rabbittest.Proxy
	cashier  *payment.Cashier
	store    *payment.Store
	handled  chan int // the size of each batch that took effect, before it is acknowledged
}

func newService(t *testing.T, gateway payment.Gateway) *service {
	t.Helper()
	return newServiceWith(t, gateway, func(context.Context, *service) {})
}

// newServiceWith makes a service that calls after when a batch has taken effect and is not yet acknowledged.
func newServiceWith(t *testing.T, gateway payment.Gateway, after func(context.Context, *service)) *service {
	t.Helper()
	s := &service{db: postgrestest.New(t), vhost: rabbittest.Platform(t), handled: make(chan int, 10_000)}
	s.database, s.broker = rabbittest.NewProxy(t, s.db.URL), rabbittest.NewProxy(t, s.vhost)
	s.channel = rabbittest.Channel(t, s.vhost)
	if _, err := s.db.Pool.Exec(t.Context(), `INSERT INTO orders (id, user_id, show_id, quantity, status) SELECT i, 1000 + i, 1, 2, 'PENDING' FROM generate_series(1, $1::int) i`, lastOrder); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	pool, err := postgres.Open(s.database.URL(s.db.As("payment_service")), "test", 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	relay := outbox.New(t.Name(), pool, log, payment.Keys()...)
	s.store = &payment.Store{DB: pool, Pod: "pod-1", Relay: relay.Name}
	s.cashier = &payment.Cashier{Store: s.store, Gateway: gateway, Offer: relay.Offer, Log: log, Now: time.Now}
	exchanges := payment.Broker{Events: "events.topic", DeadLetters: "dlx.direct", Prefetch: 500}
	dialer := func() *rabbit.Dialer { return &rabbit.Dialer{URL: s.broker.URL(s.vhost), Name: t.Name(), Log: log} }
	consumer := exchanges.Consumer(dialer(), s.cashier, rabbit.NewConsumerMetrics(prometheus.NewRegistry()))
	consumer.Handle = func(ctx context.Context, batch []amqp.Delivery) ([]rabbit.Reject, error) {
		rejects, err := s.cashier.Handle(ctx, batch)
		if err == nil {
			after(ctx, s)
			s.handled <- len(batch)
		}
		return rejects, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := consumer.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	parts.Go(func() { exchanges.Relay(ctx, dialer(), relay) })
	t.Cleanup(func() {
		cancel()
		parts.Wait()
	})
	return s
}

func (s *service) send(t *testing.T, bodies ...string) {
	t.Helper()
	for _, b := range bodies {
		if err := s.channel.PublishWithContext(t.Context(), "events.topic", contract.KeyOrderCreated, true, false, amqp.Publishing{Body: []byte(b), DeliveryMode: amqp.Persistent}); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *service) number(t *testing.T, sql string) (n int) {
	t.Helper()
	if err := s.db.Pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// order is an order.created as an old order-api sends it.
func order(id int) string {
	return fmt.Sprintf(`{"messageId":"m-%d","createdAt":"2025-01-01T00:00:00.000Z","type":"order.created","orderId":%d,"userId":%d,"showId":1,"quantity":2,"status":"PENDING"}`, id, id, 1000+id)
}

func TestEachOrderIsPaidOnceAndToldOnce(t *testing.T) {
	s := newService(t, payment.Gateway{FailureRate: 0.1})
	const n = 100
	for range 3 {
		for id := 1; id <= n; id++ {
			s.send(t, order(id))
		}
	}
	// The same orders under other message ids, as a sender that forgot what it had sent.
	for id := 1; id <= n; id++ {
		s.send(t, strings.Replace(order(id), "m-", "again-", 1))
	}
	results := rabbittest.Take(t, s.channel, contract.QueuePaymentResults, n)
	failed := 0
	for _, d := range results {
		r, err := contract.DecodePaymentResult(d.Body, d.RoutingKey)
		if err != nil || d.RoutingKey != r.Type || d.MessageId != fmt.Sprintf("%s:%d", r.Type, r.OrderID) || d.CorrelationId != fmt.Sprint(r.OrderID) ||
			string(r.UserID) != fmt.Sprint(1000+r.OrderID) || r.Amount != 100 || r.ShowID != 1 || r.Quantity != 2 || d.DeliveryMode != amqp.Persistent {
			t.Errorf("%s %+v %v", d.Body, d, err)
		}
		if r.Type == contract.KeyPaymentFailed {
			failed++
		}
	}
	for total := 0; total < 4*n; {
		select {
		case k := <-s.handled:
			total += k
		case <-time.After(patience):
			t.Fatalf("%d of %d messages were handled", total, 4*n)
		}
	}
	if payments, wrong := s.number(t, `SELECT count(*) FROM payments`), s.number(t, `SELECT count(*) FROM payments WHERE amount <> 100 OR user_id <> (1000 + order_id)::text`); payments != n || wrong != 0 {
		t.Errorf("%d payments of %d orders, %d wrong", payments, n, wrong)
	}
	if hops := s.number(t, `SELECT count(*) FROM order_events WHERE hop LIKE 'payment%'`); hops != n {
		t.Errorf("%d hops", hops)
	}
	if failed != s.number(t, `SELECT count(*) FROM payments WHERE status = 'FAILED'`) || failed == 0 || failed > n/4 {
		t.Errorf("%d payments failed", failed)
	}
	if q, err := s.channel.QueueDeclarePassive(contract.QueuePaymentResults, true, false, false, false, nil); err != nil || q.Messages != 0 || len(results) != n {
		t.Errorf("%d results, %d more", len(results), q.Messages)
	}
}

// An old payment service takes its share beside ours, from an old order-api that writes ids as numbers and as strings, and
// is killed with orders in hand: each order is paid once, and told.
func TestBesideAnOldPaymentService(t *testing.T) {
	s := newService(t, payment.Gateway{})
	old := rabbittest.Channel(t, s.vhost)
	if err := old.Qos(1, 0, false); err != nil {
		t.Fatal(err)
	}
	orders, err := old.Consume(contract.QueueOrderCreated, "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	const share = 10
	served := make(chan struct{}, share)
	go func() {
		defer close(served)
		for range share {
			d := <-orders
			e, err := contract.DecodeOrderCreated(d.Body)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.db.Pool.Exec(t.Context(), `INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES ($1, $2, 100, 'SUCCEEDED', $3)`,
				e.OrderID, e.UserID.Text(), e.MessageID); err != nil {
				t.Error(err)
				return
			}
			body := fmt.Sprintf(`{"messageId":"old-%[1]d","createdAt":"2025-01-01T00:00:00.000Z","type":"payment.succeeded","orderId":"%[1]d","userId":%[2]s}`, e.OrderID, e.UserID)
			if err := old.PublishWithContext(t.Context(), "events.topic", contract.KeyPaymentSucceeded, false, false, amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent}); err != nil {
				t.Error(err)
				return
			}
			if err := d.Ack(false); err != nil {
				t.Error(err)
				return
			}
			served <- struct{}{}
		}
	}()
	sent := 0
	more := func() {
		sent++
		body := order(sent)
		if sent%2 == 0 {
			body = fmt.Sprintf(`{"messageId":"m-%[1]d","createdAt":"2025-01-01T00:00:00.000Z","type":"order.created","orderId":"%[1]d","userId":"%[2]d","showId":"1","quantity":"2","status":"PENDING"}`, sent, 1000+sent)
		}
		s.send(t, body)
	}
	for gone := false; !gone; { // until the old one has had its share; each takes its turn
		more()
		select {
		case _, open := <-served:
			gone = !open
		case <-s.handled:
		case <-time.After(patience):
			t.Fatal("nobody takes the order")
		}
	}
	if err := old.Close(); err != nil { // what it has in hand comes back
		t.Fatal(err)
	}
	for range 50 {
		more()
	}
	told := map[int32]int{}
	for _, d := range rabbittest.Take(t, s.channel, contract.QueuePaymentResults, sent) {
		r, err := contract.DecodePaymentResult(d.Body, d.RoutingKey)
		if err != nil {
			t.Errorf("%s: %v", d.Body, err)
		}
		told[r.OrderID]++
	}
	for id := range sent {
		if told[int32(id+1)] != 1 {
			t.Errorf("order %d was told %d times", id+1, told[int32(id+1)])
		}
	}
	if n, users := s.number(t, `SELECT count(*) FROM payments`), s.number(t, `SELECT count(*) FROM payments WHERE user_id = (1000 + order_id)::text`); n != sent || users != sent {
		t.Errorf("%d payments of %d orders, %d with their user", n, sent, users)
	}
	if n := s.number(t, `SELECT count(*) FROM payments WHERE message_id LIKE 'm-%' AND amount = 100`); n < share {
		t.Errorf("the old service made %d payments", n)
	}
}

// The connection is cut when the payments are stored and nothing is acknowledged: all comes again, and has no second effect.
func TestACutBetweenEffectAndAck(t *testing.T) {
	undisturbed := make(chan struct{}, 1000)
	cuts := make(chan struct{}, 3)
	for range cap(cuts) {
		cuts <- struct{}{}
	}
	s := newServiceWith(t, payment.Gateway{}, func(ctx context.Context, s *service) {
		select {
		case <-cuts:
			s.broker.Cut()
			<-ctx.Done()
		default:
			undisturbed <- struct{}{}
		}
	})
	const n = 50
	for id := 1; id <= n; id++ {
		s.send(t, order(id))
	}
	// The relay's connection is cut as well, so a result may come twice; the consumers of results bear that.
	seen := map[string]bool{}
	for len(seen) < n {
		for _, d := range rabbittest.Take(t, s.channel, contract.QueuePaymentResults, 1) {
			seen[d.MessageId] = true
		}
	}
	select {
	case <-undisturbed: // after the cuts
	case <-time.After(patience):
		t.Errorf("no batch after the cuts, of which %d were not made", len(cuts))
	}
	if payments := s.number(t, `SELECT count(*) FROM payments`); payments != n {
		t.Errorf("%d payments of %d orders", payments, n)
	}
}

// While the database is away nothing is lost and nothing dead-lettered; poison is, with its reason, beside good orders.
func TestTheDatabaseIsAwayAndPoison(t *testing.T) {
	s := newService(t, payment.Gateway{})
	s.database.Away()
	poison := map[string]string{
		`not JSON`: "not an event",
		strings.Replace(order(500), `"quantity":2`, `"quantity":-1`, 1):      "quantity",
		strings.Replace(order(501), `"userId":1501`, `"userId":"\u0000"`, 1): "NUL",
		strings.Replace(order(502), `"orderId":502`, `"orderId":1e99`, 1):    "32 bits",
		order(lastOrder + 1): "there is no order 5001",
	}
	for id := 1; id <= 20; id++ {
		s.send(t, order(id))
	}
	for body := range poison {
		s.send(t, body)
	}
	s.database.Back()
	rabbittest.Take(t, s.channel, contract.QueuePaymentResults, 20)
	for _, d := range rabbittest.Take(t, s.channel, contract.QueueDeadLetters, len(poison)) {
		reason, _ := d.Headers[contract.HeaderReason].(string)
		if want, known := poison[string(d.Body)]; !known || !strings.Contains(reason, want) || d.Headers[contract.HeaderOrigin] != contract.QueueOrderCreated {
			t.Errorf("%s: %v", d.Body, d.Headers)
		}
		delete(poison, string(d.Body))
	}
	if payments := s.number(t, `SELECT count(*) FROM payments`); payments != 20 {
		t.Errorf("%d payments", payments)
	}
}

// There is nothing to be paid of an order that never was, however often it is told of; its neighbours do not notice.
func TestAnOrderThatNeverWasIsNotCharged(t *testing.T) {
	s := newService(t, payment.Gateway{})
	var batch []amqp.Delivery
	for tag, id := range []int{lastOrder + 1, 1, lastOrder + 1, 2, lastOrder + 2} {
		batch = append(batch, amqp.Delivery{DeliveryTag: uint64(tag), Body: []byte(order(id)), Redelivered: true})
	}
	rejects, err := s.cashier.Handle(t.Context(), batch)
	if err != nil {
		t.Fatal(err)
	}
	var tags []uint64
	for _, r := range rejects {
		tags = append(tags, r.Delivery.DeliveryTag)
		if !strings.HasPrefix(r.Reason, "there is no order 500") {
			t.Errorf("message %d: %s", r.Delivery.DeliveryTag, r.Reason)
		}
	}
	if !slices.Equal(tags, []uint64{0, 2, 4}) {
		t.Errorf("rejected are %v", tags)
	}
	if paid, others := s.number(t, `SELECT count(*) FROM payments WHERE order_id IN (1, 2)`), s.number(t, `SELECT count(*) FROM payments`); paid != 2 || others != 2 {
		t.Errorf("%d of the two are paid, and %d in all", paid, others)
	}
	if hops := s.number(t, `SELECT count(*) FROM order_events WHERE order_id > 2`); hops != 0 {
		t.Errorf("%d hops of orders that never were", hops)
	}
}

// One order that the database refuses does not harm its neighbours.
func TestADataErrorIsTheOrdersOwn(t *testing.T) {
	s := newService(t, payment.Gateway{})
	if _, err := s.db.Pool.Exec(t.Context(), `ALTER TABLE payments ADD CHECK (order_id <> 7)`); err != nil {
		t.Fatal(err)
	}
	var batch []amqp.Delivery
	for id := 1; id <= 10; id++ {
		batch = append(batch, amqp.Delivery{DeliveryTag: uint64(id), Body: []byte(order(id))})
	}
	rejects, err := s.cashier.Handle(t.Context(), batch)
	if err != nil || len(rejects) != 1 || rejects[0].Delivery.DeliveryTag != 7 || !strings.Contains(rejects[0].Reason, "check constraint") {
		t.Errorf("%v %v", rejects, err)
	}
	if payments := s.number(t, `SELECT count(*) FROM payments`); payments != 9 {
		t.Errorf("%d payments", payments)
	}
}

// A message id that another order's payment has is not taken for that order's own: it would not be paid, and nobody would know.
func TestTheMessageIDOfAnotherOrder(t *testing.T) {
	s := newService(t, payment.Gateway{})
	wrong := strings.Replace(order(2), `"m-2"`, `"m-1"`, 1)
	rejects, err := s.cashier.Handle(t.Context(), []amqp.Delivery{{DeliveryTag: 1, Body: []byte(order(1))}, {DeliveryTag: 2, Body: []byte(wrong)}, {DeliveryTag: 3, Body: []byte(order(3))}})
	if err != nil || len(rejects) != 1 || rejects[0].Delivery.DeliveryTag != 2 || !strings.Contains(rejects[0].Reason, `the message id "m-1" is that of another order's payment`) {
		t.Errorf("%v %v", rejects, err)
	}
	if payments := s.number(t, `SELECT count(*) FROM payments WHERE order_id IN (1, 3)`); payments != 2 {
		t.Errorf("%d payments", payments)
	}
}

func TestALapsedHoldIsDeclinedAndNotCharged(t *testing.T) {
	s := newService(t, payment.Gateway{FailureRate: 0})
	now := time.Now()
	event := func(id int32, expires time.Time) amqp.Delivery {
		return amqp.Delivery{Body: contract.OrderCreated{
			MessageID: fmt.Sprint(id), CreatedAt: now, OrderID: id, UserID: contract.UserID("1"), ShowID: 1, Quantity: 1, ExpiresAt: expires,
		}.Encode()}
	}
	batch := []amqp.Delivery{event(1, now.Add(-time.Second)), event(2, now.Add(time.Hour)), event(3, time.Time{})}
	if rejects, err := s.cashier.Handle(t.Context(), batch); err != nil || len(rejects) != 0 {
		t.Fatal(rejects, err)
	}
	if n := s.number(t, `SELECT count(*) FROM payments WHERE (order_id = 1) = (status = 'FAILED')`); n != 3 {
		t.Errorf("%d of 3 are right", n)
	}
}

func TestGatewayRepeatsItself(t *testing.T) {
	ids := make([]int32, 20_000)
	for i := range ids {
		ids[i] = int32(i + 1)
	}
	for rate, within := range map[float64][2]int{0: {0, 0}, 0.1: {1_800, 2_200}, 0.5: {9_700, 10_300}, 1: {20_000, 20_000}} {
		g := payment.Gateway{FailureRate: rate}
		first, err := g.Charge(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		failed := 0
		for i, s := range first {
			if s == payment.Failed {
				failed++
			}
			if again, err := g.Charge(t.Context(), ids[i:i+1]); err != nil || again[0] != s {
				t.Fatalf("order %d: %s, then %s, %v", ids[i], s, again[0], err)
			}
		}
		if failed < within[0] || failed > within[1] {
			t.Errorf("rate %v: %d of %d failed", rate, failed, len(ids))
		}
		if rate < 0.5 && first[0] != payment.Succeeded {
			t.Errorf("rate %v: order 1 failed", rate)
		}
	}
}

func TestAmountsFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := rapid.Int32().Draw(t, "quantity")
		amount, err := payment.Amount(q)
		if fits := q >= 1 && int64(q)*50 <= 1<<31-1; fits != (err == nil) || fits && int64(amount) != int64(q)*50 {
			t.Fatalf("%d seats: %d, %v", q, amount, err)
		}
	})
	if _, err := payment.Amount(contract.MaxQuantity); err != nil {
		t.Error(err)
	}
}

func TestGetPayments(t *testing.T) {
	s := newService(t, payment.Gateway{})
	if _, err := s.db.Pool.Exec(t.Context(), `INSERT INTO payments (order_id, user_id, amount, status, message_id) SELECT i, 'u', i, 'SUCCEEDED', 'm' || i FROM generate_series(1, 60) i`); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	(&payment.API{Store: s.store, Log: slog.New(slog.DiscardHandler)}).Routes(mux)
	get := func(method string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/payments", nil))
		return w
	}
	w := get("GET")
	var rows []struct {
		ID      int
		OrderID int    `json:"order_id"`
		UserID  string `json:"user_id"`
		Amount  int
		Status  string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &rows); err != nil || w.Code != 200 || len(rows) != 50 || rows[0].OrderID != 60 || rows[49].OrderID != 11 || rows[0].Amount != 60 || rows[0].UserID != "u" {
		t.Errorf("%d %s %v", w.Code, w.Body, err)
	}
	if w := get("POST"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d %s", w.Code, w.Body)
	}
	s.database.Away()
	if w := get("GET"); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"error":"unavailable"`) {
		t.Errorf("database away: %d %s", w.Code, w.Body)
	}
}
