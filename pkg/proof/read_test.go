package proof

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit/rabbittest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	amqp "github.com/rabbitmq/amqp091-go"
)

// connection is one to the test's database, or a transaction there.
type connection struct {
	to interface {
		Exec(ctx context.Context, statement string, args ...any) (pgconn.CommandTag, error)
		QueryRow(ctx context.Context, statement string, args ...any) pgx.Row
	}
}

func (c connection) JSON(ctx context.Context, statement string) (raw []byte, err error) {
	err = c.to.QueryRow(ctx, statement).Scan(&raw)
	return raw, err
}

func (c connection) do(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := c.to.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// resting is a broker with nothing in its queues.
type resting struct{}

func (resting) Queues(context.Context) ([]Queue, error)   { return nil, nil }
func (resting) Letters(context.Context) ([]Letter, error) { return nil, nil }

// life has one order in each way to end, and one that is new.
var life = []string{
	`INSERT INTO orders (id, user_id, show_id, quantity, status, ended_at, created_at) VALUES
		(1, 'u', 1, 2, 'CONFIRMED', now(), now() - interval '1 minute'), (2, 'u', 1, 2, 'CANCELLED', now(), now() - interval '1 minute'),
		(3, 'u', 1, 2, 'CANCELLED', now(), now() - interval '1 minute'), (4, 'u', 2, 1, 'PENDING', NULL, now() + interval '1 hour')`,
	`INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at, created_at) VALUES
		(1, 1, 2, 'COMMITTED', now(), now()), (1, 2, 2, 'RELEASED', now(), now()), (1, 3, 2, 'EXPIRED', now(), now()),
		(2, 4, 1, 'RESERVED', now() + interval '2 hours', now() + interval '1 hour')`,
	`INSERT INTO payments (order_id, user_id, amount, status, message_id, refund_due) VALUES
		(1, 'u', 100, 'SUCCEEDED', 'order.created:1', false), (2, 'u', 100, 'FAILED', 'order.created:2', false), (3, 'u', 100, 'SUCCEEDED', 'order.created:3', true)`,
}

func TestTheRowsOfASoundDatabase(t *testing.T) {
	db := connection{postgrestest.New(t).Pool}
	platform := Platform{Database: db, Broker: resting{}}
	r, err := Verify(t.Context(), platform, 0, func(int64, int64, int64) { t.Error("it waits for an empty platform") })
	if err != nil || !r.Holds {
		t.Fatalf("an empty database: %+v %v", r, err)
	}
	db.do(t, life...)
	r, err = Verify(t.Context(), platform, 0, func(int64, int64, int64) { t.Error("it waits for what came later") })
	if err != nil || !r.Holds || r.Orders != 4 || r.Payments != 3 {
		t.Fatalf("%+v %v", r, err)
	}
	want := "I1: 0 orders accepted; I2: 3 shows, 3 of 5920 seats held; I3: 1 PENDING, 0 late, outbox 0, queues 0, dead letters 0; orders are arriving; " +
		"I4: 3 payments, 4 orders; I5: 3 sent, 0 lost, 0 unexpected, 0 published again by others; I6: 1 CONFIRMED, 2 CANCELLED, 1 PENDING; " +
		"I7: 0 keys; I8: 0 dead letters; I9: 0 of 0 ended; I10: 0 holds lapsed, 0 seats back; I11: a client history tells of it"
	var said []string
	for _, f := range r.Invariants {
		said = append(said, f.ID+": "+f.Counted)
	}
	if got := strings.Join(said, "; "); got != want {
		t.Errorf("it counted %s", got)
	}
}

// Each protection of the schema is taken away in turn, and what it kept out is put in.
func TestEveryInvariantGoesRed(t *testing.T) {
	db := postgrestest.New(t)
	connection{db.Pool}.do(t, life...)
	damaged(t, db, nil, []damage{
		{"oversold", []string{
			`ALTER TABLE show_seats DROP CONSTRAINT show_seats_not_oversold`,
			`INSERT INTO orders (id, user_id, show_id, quantity, status, ended_at) VALUES (9, 'u', 3, 125, 'CONFIRMED', now())`,
			`INSERT INTO inventory_reservations (show_id, order_id, quantity, status) VALUES (3, 9, 125, 'COMMITTED')`,
			`INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES (9, 'u', 1, 'SUCCEEDED', 'm')`,
		}, []string{"seats"}, "show 3 (Standup Night): oversold: 125 of 120 seats"},
		{"not counted", []string{
			`ALTER TABLE inventory_reservations DISABLE TRIGGER seats_of_updated`,
			`UPDATE inventory_reservations SET status = 'COMMITTED' WHERE order_id = 2`,
			`UPDATE orders SET status = 'CONFIRMED' WHERE id = 2`, `UPDATE payments SET status = 'SUCCEEDED' WHERE order_id = 2`,
		}, []string{"seats"}, "show 1 (Rock Festival 2025): the counter says 2 held, its reservations are 4"},
		{"another capacity", []string{`UPDATE show_seats SET capacity = 9 WHERE show_id = 2`}, []string{"seats"}, "show 2 (Tech Conference Keynote): the counter's capacity is 9, the show's 800"},
		{"no counter", []string{`DELETE FROM show_seats WHERE show_id = 3`}, []string{"seats"}, "show 3 (Standup Night): it has no counter"},
		{"no show", []string{
			`ALTER TABLE inventory_reservations DISABLE TRIGGER seats_of_inserted`,
			`INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) VALUES (77, 9, 1, 'RESERVED', now() + interval '1 hour')`,
		}, []string{"seats"}, "show 77: 1 seats are held, and there is no such show"},
		{"a payment twice", []string{
			`DROP INDEX payments_order`,
			`INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES (1, 'u', 100, 'SUCCEEDED', 'again')`,
		}, []string{"payments"}, "payments with order_id 1: more than one"},
		{"a message twice", []string{
			`ALTER TABLE payments DROP CONSTRAINT payments_message_id_key`, `UPDATE payments SET message_id = 'order.created:1'`,
		}, []string{"payments", "events"}, "order 2: paid for by another order's event"},
		{"stuck", []string{`UPDATE orders SET created_at = now() - interval '1 minute' WHERE id = 4`, `UPDATE inventory_reservations SET created_at = now() - interval '1 minute' WHERE order_id = 4`},
			[]string{"rest"}, "order 4: PENDING"},
		{"past its time", []string{`UPDATE orders SET status = 'CANCELLED' WHERE id = 4`, `UPDATE inventory_reservations SET expires_at = now() - interval '1 s' WHERE order_id = 4`,
			`INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES (4, 'u', 1, 'FAILED', 'm')`},
			[]string{"rest"}, "order 4: its hold is past its time"},
		{"no refund", []string{`UPDATE payments SET refund_due = false`}, []string{"rest"}, "order 3: CANCELLED and paid, but not marked to be paid back"},
		{"an event left", []string{`INSERT INTO outbox (message_id, correlation_id, routing_key, payload, created_at) VALUES ('order.created:1', '1', 'order.created', '{}', now() - interval '1 minute')`},
			[]string{"rest"}, "outbox: order.created:1, there before"},
		{"confirmed without money", []string{`DELETE FROM payments WHERE order_id = 1`}, []string{"states"}, "order 1: CONFIRMED COMMITTED -: no legal combination"},
		{"money and no seats", []string{`UPDATE orders SET status = 'CANCELLED' WHERE id = 1`, `UPDATE inventory_reservations SET status = 'RELEASED' WHERE order_id = 1`},
			[]string{"states"}, "order 1: CANCELLED RELEASED SUCCEEDED: no legal combination"},
		{"money for nothing", []string{`INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES (9, 'u', 1, 'SUCCEEDED', 'm')`},
			[]string{"states"}, "order 9: - - SUCCEEDED: no legal combination"},
		{"an order without seats", []string{`DELETE FROM inventory_reservations WHERE order_id = 1`}, []string{"states"}, "order 1: CONFIRMED - SUCCEEDED: no legal combination"},
		{"other seats", []string{`UPDATE inventory_reservations SET quantity = 1 WHERE order_id = 1`}, []string{"states"}, "order 1: CONFIRMED COMMITTED SUCCEEDED: show, quantity or user differ"},
		{"another's money", []string{`UPDATE payments SET user_id = 'v' WHERE order_id = 1`}, []string{"states"}, "order 1: CONFIRMED COMMITTED SUCCEEDED: show, quantity or user differ"},
	})
}

// An old service cancels an order and leaves its hold, which lapses later: nobody notes when its seats came back, and they may be sold again.
func TestSeatsThatCameBackUnnoted(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	connection{db.Pool}.do(t, life...)
	connection{db.Pool}.do(t,
		`INSERT INTO order_events (order_id, hop, at, pod) SELECT id, 'accepted', now() - interval '60 s', 'p' FROM orders WHERE id < 4`,
		`INSERT INTO order_events (order_id, hop, at, pod) VALUES (1, 'confirmed', now() - interval '58 s', 'p'), (2, 'cancelled', now() - interval '58 s', 'p')`,
		`UPDATE shows SET capacity = 4 WHERE id = 1`)
	r, err := Verify(t.Context(), Platform{Database: connection{db.Pool}, Broker: resting{}}, 0, func(int64, int64, int64) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Invariants {
		if f.ID == "I2" && !f.Holds {
			t.Errorf("%+v", f)
		}
	}
}

// What the orders' own history tells of, and what a client's does.
func TestTheOrdersHistoryGoesRed(t *testing.T) {
	db := postgrestest.New(t)
	connection{db.Pool}.do(t, life...)
	connection{db.Pool}.do(t,
		`INSERT INTO order_events (order_id, hop, at, pod) VALUES
			(1, 'accepted', now() - interval '60 s', 'p'), (1, 'payment_succeeded', now() - interval '59 s', 'p'), (1, 'confirmed', now() - interval '58 s', 'p'),
			(1, 'unheard', now() - interval '58 s', 'p'), (1, 'heard', now() - interval '57 s', 'p'),
			(2, 'accepted', now() - interval '60 s', 'p'), (2, 'payment_failed', now() - interval '59 s', 'p'), (2, 'cancelled', now() - interval '58 s', 'p'),
			(3, 'accepted', now() - interval '60 s', 'p'), (3, 'expired', now() - interval '58 s', 'p'), (3, 'refund_due', now() - interval '57 s', 'p'),
			(4, 'accepted', now() + interval '1 hour', 'p')`,
		`INSERT INTO order_keys (key, order_id, request_hash) VALUES ('r1-1', 1, ''), ('r1-2', 2, '')`,
		`UPDATE orders SET user_id = 'r1-' || id`, `UPDATE payments SET user_id = 'r1-' || order_id`)
	told := &History{Runs: []string{"r1"}}
	for i, quantity := range []int64{2, 2, 2, 1} {
		a := &Asked{Key: fmt.Sprintf("r1-%d", i+1), Show: 1 + int64(i/3), Quantity: quantity, Answers: []Answer{{}, {Status: 202, Order: int64(i + 1)}}}
		told.Asked = append(told.Asked, a)
	}
	r, err := Verify(t.Context(), Platform{Database: connection{db.Pool}, Broker: resting{}, History: told}, 0, func(int64, int64, int64) {})
	if err != nil || !r.Holds {
		t.Fatalf("%+v %v", r, err)
	}
	var said []string
	for _, f := range r.Invariants {
		switch f.ID {
		case "I1", "I5", "I7", "I9", "I10", "I11":
			said = append(said, f.ID+": "+f.Counted)
		}
	}
	want := "I1: 4 orders accepted; 4 clients told, 0 in doubt of which 0 are there; I5: 7 sent, 0 lost, 0 unexpected, 0 published again by others; " +
		"I7: 2 keys kept; 4 asked with, 4 times again; I9: 3 of 4 ended; I10: 1 hold lapsed, 2 seats back; I11: 0 outages of 2s and more, 0 orders accepted"
	if got := strings.Join(said, "; "); got != want {
		t.Errorf("it counted %s", got)
	}
	damaged(t, db, told, []damage{
		{"gone", []string{`DELETE FROM orders WHERE id = 4`, `DELETE FROM inventory_reservations WHERE order_id = 4`}, []string{"accepted"}, "order 4: it was accepted, and is not there"},
		{"gone with its history", []string{`DELETE FROM orders WHERE id = 4`, `DELETE FROM inventory_reservations WHERE order_id = 4`, `DELETE FROM order_events WHERE order_id = 4`},
			[]string{"accepted"}, "r1-4: order 4 was accepted, and is not there"},
		{"oversold for a time", []string{`UPDATE shows SET capacity = 5 WHERE id = 1`}, []string{"seats"}, "show 1 (Rock Festival 2025): oversold for a time: 6 of 5 seats"},
		{"a lost event", []string{`DELETE FROM payments WHERE order_id = 3`}, []string{"events"}, "order 3: its order.created is lost"},
		{"a lost result", []string{
			`UPDATE orders SET status = 'PENDING', ended_at = NULL WHERE id = 2`, `UPDATE inventory_reservations SET status = 'RESERVED', expires_at = now() + interval '1 hour' WHERE order_id = 2`,
			`DELETE FROM order_events WHERE order_id = 2 AND hop = 'cancelled'`,
		}, []string{"rest", "events"}, "order 2: its payment's result is lost"},
		{"a result that nobody heard", []string{`DELETE FROM order_events WHERE order_id = 1 AND hop = 'heard'`}, []string{"events"}, "order 1: its payment's result is lost"},
		{"another's event", []string{`UPDATE payments SET message_id = 'order.created:77' WHERE order_id = 1`}, []string{"events"}, "order 1: paid for by another order's event"},
		{"a key for nothing", []string{`UPDATE order_keys SET order_id = 99 WHERE order_id = 1`}, []string{"keys"}, "order 99 has a key, and is not there"},
		{"two keys", []string{`UPDATE order_keys SET order_id = 1`}, []string{"keys"}, "order 1 has several keys"},
		{"two orders", []string{
			`INSERT INTO orders (id, user_id, show_id, quantity, status, ended_at) VALUES (9, 'r1-1', 1, 2, 'CANCELLED', now())`,
			`INSERT INTO inventory_reservations (show_id, order_id, quantity, status) VALUES (1, 9, 2, 'EXPIRED')`,
		}, []string{"keys"}, "r1-1: orders 1 and 9"},
		{"accepted again", []string{`INSERT INTO order_events (order_id, hop, pod) VALUES (1, 'accepted', 'p')`}, []string{"ends"}, "order 1: it was accepted 2 times"},
		{"ended again", []string{`INSERT INTO order_events (order_id, hop, pod) VALUES (1, 'cancelled', 'p')`}, []string{"ends"}, "order 1: it ended 2 times"},
		{"left its end", []string{
			`UPDATE orders SET status = 'CANCELLED' WHERE id = 1`, `UPDATE inventory_reservations SET status = 'RELEASED' WHERE order_id = 1`,
			`UPDATE payments SET status = 'FAILED' WHERE order_id = 1`,
		}, []string{"ends"}, "order 1: it ended as confirmed, and is CANCELLED"},
		{"lapsed again", []string{`INSERT INTO order_events (order_id, hop, pod) VALUES (3, 'expired', 'p')`}, []string{"ends", "lapses"}, "order 3: its hold lapsed 2 times"},
		{"lapsed, and kept", []string{`UPDATE inventory_reservations SET status = 'RELEASED' WHERE order_id = 3`, `UPDATE payments SET status = 'FAILED', refund_due = false WHERE order_id = 3`},
			[]string{"lapses"}, "order 3: its hold lapsed, and its seats are RELEASED"},
		{"back twice", []string{`UPDATE inventory_reservations SET status = 'EXPIRED' WHERE order_id = 2`}, []string{"lapses"}, "order 2: it ended as cancelled, and its hold lapsed besides"},
	})
}

// damage is what is done to a sound database, the invariants that it breaks, and the first row that the last of them names.
type damage struct {
	name       string
	statements []string
	broken     []string
	row        string
}

// damaged does each damage for itself.
func damaged(t *testing.T, db postgrestest.Database, told *History, all []damage) {
	t.Helper()
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			tx, err := db.Pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := tx.Rollback(t.Context()); err != nil {
					t.Error(err)
				}
			}()
			connection{tx}.do(t, c.statements...)
			r, err := Verify(t.Context(), Platform{Database: connection{tx}, Broker: resting{}, History: told}, 0, func(int64, int64, int64) {})
			if err != nil || !slices.Equal(r.Broken(), c.broken) {
				t.Fatalf("broken are %q %v", r.Broken(), err)
			}
			last := ""
			for _, f := range r.Invariants {
				if !f.Holds {
					last = f.Rows[0]
				}
			}
			if !strings.HasPrefix(last, c.row) {
				t.Errorf("it names %q", last)
			}
		})
	}
}

// What is on its way is waited for; what comes to its end in time breaks nothing.
func TestItWaitsForWhatIsOnItsWay(t *testing.T) {
	db := connection{postgrestest.New(t).Pool}
	db.do(t, life...)
	db.do(t, `UPDATE inventory_reservations SET created_at = now() - interval '1 minute'`, `UPDATE orders SET created_at = now() - interval '1 minute'`)
	waits := false
	r, err := Verify(t.Context(), Platform{Database: db, Broker: resting{}}, time.Minute, func(orders, events, messages int64) {
		waits = orders == 1 && events == 0 && messages == 0
		db.do(t, `UPDATE orders SET status = 'CANCELLED', ended_at = now() WHERE id = 4`, `UPDATE inventory_reservations SET status = 'EXPIRED' WHERE order_id = 4`)
	})
	if err != nil || !r.Holds || !waits || r.Waited > 30*time.Second {
		t.Errorf("%v %+v %v", waits, r, err)
	}
	// A payment that came too late is marked to be paid back by a message that nothing else tells of.
	waits = false
	db.do(t, `UPDATE payments SET refund_due = false, created_at = now() - interval '1 minute' WHERE order_id = 3`)
	r, err = Verify(t.Context(), Platform{Database: db, Broker: resting{}}, time.Minute, func(int64, int64, int64) {
		waits = true
		db.do(t, `UPDATE payments SET refund_due = true WHERE order_id = 3`)
	})
	if err != nil || !r.Holds || !waits {
		t.Errorf("%v %+v %v", waits, r, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	db.do(t, `INSERT INTO outbox (message_id, correlation_id, routing_key, payload) VALUES ('m', '1', 'order.created', '{}')`)
	_, err = Verify(ctx, Platform{Database: db, Broker: resting{}}, time.Minute, func(int64, int64, int64) { cancel(context.Canceled) })
	if err == nil {
		t.Error("it goes on although nobody waits")
	}
}

// crowded is a broker whose queues are never empty, and which tells what is asked of it.
type crowded struct {
	resting
	asked func()
}

func (b crowded) Queues(context.Context) ([]Queue, error) {
	b.asked()
	return []Queue{{Name: contract.QueueOrderCreated, Ready: 3}}, nil
}

// Where orders go on coming, what lies in the queues is theirs: who waits for those of before does not wait for that.
func TestItDoesNotWaitForWhatComesLater(t *testing.T) {
	db := connection{postgrestest.New(t).Pool}
	db.do(t, `INSERT INTO orders (id, user_id, show_id, quantity, status) VALUES (1, 'u', 1, 2, 'PENDING')`,
		`INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) VALUES (1, 1, 2, 'RESERVED', now() + interval '1 hour')`)
	asked := 0
	r, err := Verify(t.Context(), Platform{Database: db, Broker: crowded{asked: func() { asked++ }}}, time.Minute, func(int64, int64, int64) {
		db.do(t, `INSERT INTO orders (id, user_id, show_id, quantity, status) VALUES (2, 'u', 1, 2, 'PENDING')`,
			`INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) VALUES (1, 2, 2, 'RESERVED', now() + interval '1 hour')`,
			`UPDATE orders SET status = 'CANCELLED', ended_at = now() WHERE id = 1`, `UPDATE inventory_reservations SET status = 'EXPIRED' WHERE order_id = 1`)
	})
	if err != nil || !r.Holds || r.Waited > 30*time.Second {
		t.Errorf("%+v %v", r, err)
	}
	if asked != 1 { // for the look that is judged; each starts a program beside the broker
		t.Errorf("the broker was asked %d times", asked)
	}
}

// The counts are those of the moment, also of what a consumer has in its hands.
func TestTheBrokersQueuesAreCountedExactly(t *testing.T) {
	vhost := rabbittest.Platform(t)
	channel := rabbittest.Channel(t, vhost)
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 3))
	for range 3 {
		if err := channel.PublishWithContext(t.Context(), contract.ExchangeEvents, contract.KeyOrderCreated, true, false, amqp.Publishing{Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		<-confirms
	}
	if _, ok, err := channel.Get(contract.QueueOrderCreated, false); err != nil || !ok {
		t.Fatal(ok, err)
	}
	u, err := url.Parse(vhost)
	if err != nil {
		t.Fatal(err)
	}
	queues, err := Rabbitmqctl{Exec: besideTheBroker(t, u.Port()), VHost: strings.TrimPrefix(u.Path, "/")}.Queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(queues, func(a, b Queue) int { return strings.Compare(a.Name, b.Name) })
	want := []Queue{{contract.QueueDeadLetters, 0, 0}, {contract.QueuePaymentResults, 0, 0}, {contract.QueueOrderCreated, 2, 1}}
	if !slices.Equal(queues, want) {
		t.Errorf("%v", queues)
	}
}

// Dead letters are read with what they say, and stay.
func TestTheDeadLettersAreRead(t *testing.T) {
	vhost := rabbittest.Platform(t)
	channel := rabbittest.Channel(t, vhost)
	if err := channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	confirms := channel.NotifyPublish(make(chan amqp.Confirmation, 3))
	for _, p := range []amqp.Publishing{
		{MessageId: "with ü and \n", Headers: amqp.Table{contract.HeaderReason: "there is no order 7", contract.HeaderTries: int64(1)}, Body: []byte("{}")},
		{Body: []byte("{")},
	} {
		if err := channel.PublishWithContext(t.Context(), contract.ExchangeDeadLetters, contract.KeyDeadLetter, true, false, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := channel.PublishWithContext(t.Context(), contract.ExchangeEvents, contract.KeyOrderCreated, true, false, amqp.Publishing{MessageId: "rejected"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		<-confirms
	}
	d, ok, err := channel.Get(contract.QueueOrderCreated, false)
	if err != nil || !ok || d.Reject(false) != nil {
		t.Fatal(ok, err)
	}
	u, err := url.Parse(vhost)
	if err != nil {
		t.Fatal(err)
	}
	broker := Rabbitmqctl{Exec: besideTheBroker(t, u.Port()), VHost: strings.TrimPrefix(u.Path, "/")}
	want := []Letter{{"with ü and \n", "there is no order 7"}, {"", ""}, {"rejected", "rejected"}}
	for range 2 {
		letters, err := broker.Letters(t.Context())
		for len(letters) < 3 && err == nil && t.Context().Err() == nil { // the rejected one is still on its way
			letters, err = broker.Letters(t.Context())
		}
		if err != nil || !slices.Equal(letters, want) {
			t.Errorf("%q %v", letters, err)
		}
	}
}

// besideTheBroker is Exec for the container of the test servers that publishes a port.
func besideTheBroker(t *testing.T, port string) Exec {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", "ps", "--quiet", "--filter", "label=platformctl.servers", "--filter", "publish="+port).Output()
	if err != nil {
		t.Fatalf("find the broker's container: %v", err)
	}
	id := strings.TrimSpace(string(out))
	if id == "" { // --filter publish knows the container's own ports on some engines
		t.Fatalf("no container publishes %s of %s", port, os.Getenv(rabbittest.Variable))
	}
	return func(ctx context.Context, argv ...string) ([]byte, error) {
		out, err := exec.CommandContext(ctx, "docker", append([]string{"exec", "--env", "RABBITMQ_NODENAME=rabbit@localhost", id}, argv...)...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return out, err
	}
}
