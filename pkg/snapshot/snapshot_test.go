package snapshot

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit/rabbittest"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	created = "payment.order-created.q"
	results = "order.payment-results.q"
	dead    = "events.dlq.q"
)

// world is a platform of the two servers alone, with nobody at work in it.
type world struct {
	Platform
	db      postgrestest.Database
	vhost   string
	channel *amqp.Channel
	folder  Folder
}

func begin(t *testing.T) *world {
	t.Helper()
	w := &world{db: postgrestest.New(t), vhost: rabbittest.VHost(t), folder: Folder(t.TempDir())}
	w.channel = rabbittest.Channel(t, w.vhost)
	for _, q := range []string{created, results, dead} {
		if _, err := w.channel.QueueDeclare(q, true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.channel.ExchangeDeclare("dlx.direct", "direct", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.channel.QueueBind(dead, "events.dlq", "dlx.direct", false, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.channel.Confirm(false); err != nil {
		t.Fatal(err)
	}
	w.Platform = w.on(t, w.db)
	return w
}

// on is the world's platform with another database.
func (w *world) on(t *testing.T, db postgrestest.Database) Platform {
	t.Helper()
	at, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := at.User.Password()
	broker, err := url.Parse(w.vhost)
	if err != nil {
		t.Fatal(err)
	}
	return Platform{
		Database: Database{
			Dial: func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", at.Host) },
			User: at.User.Username(), Password: password, Database: strings.TrimPrefix(at.Path, "/"),
			Exec: inContainer(t, at.Port()),
		},
		Broker: Broker{Exec: inContainer(t, broker.Port()), VHost: strings.TrimPrefix(broker.Path, "/"), Queues: []string{created, results, "not.declared.q"}, DeadLetters: dead},
		Origin: "a", Program: "test", Say: func(Note) {},
	}
}

// inContainer is Exec for the container of the test servers that publishes a port.
func inContainer(t *testing.T, port string) Exec {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", "ps", "--quiet", "--filter", "label=platformctl.servers", "--filter", "publish="+port).Output()
	if err != nil {
		t.Fatalf("find the server's container: %v", err)
	}
	id := strings.TrimSpace(string(out))
	if id == "" {
		t.Fatalf("no container publishes %s of %s", port, os.Getenv(rabbittest.Variable))
	}
	return func(ctx context.Context, stdin io.Reader, stdout io.Writer, argv ...string) error {
		cmd := exec.CommandContext(ctx, "docker", append([]string{"exec", "--interactive", "--env", "RABBITMQ_NODENAME=rabbit@localhost", id}, argv...)...)
		var said bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, &said
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w: %s", err, said.String())
		}
		return nil
	}
}

func (w *world) do(t *testing.T, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := w.db.Pool.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// rows is all that is in a database, as text, and the indexes and constraints that guard it.
func rows(t *testing.T, db postgrestest.Database) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, table := range []string{"shows", "show_seats", "orders", "inventory_reservations", "payments", "outbox", "order_events", "order_keys"} {
		var text string
		if err := db.Pool.QueryRow(t.Context(), `SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t::text), '') FROM `+table+` t`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		all[table] = text
	}
	var guards string
	if err := db.Pool.QueryRow(t.Context(), `
		SELECT (SELECT string_agg(indexdef, E'\n' ORDER BY indexdef) FROM pg_indexes WHERE schemaname = 'public')
			|| (SELECT string_agg(conname || pg_get_constraintdef(oid), E'\n' ORDER BY conname) FROM pg_constraint WHERE connamespace = 'public'::regnamespace)`).Scan(&guards); err != nil {
		t.Fatal(err)
	}
	all["guards"] = guards
	return all
}

func (w *world) number(t *testing.T, statement string) (n int64) {
	t.Helper()
	if err := w.db.Pool.QueryRow(t.Context(), statement).Scan(&n); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return n
}

// orders places and settles n orders, the way the services' statements do.
func (w *world) orders(t *testing.T, n int) {
	t.Helper()
	w.do(t, fmt.Sprintf(`
		WITH o AS (INSERT INTO orders (user_id, show_id, quantity, status, ended_at) SELECT 'ü' || i, 1, 1, 'CONFIRMED', now() FROM generate_series(1, %d) i RETURNING id, user_id),
		r AS (INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) SELECT 1, id, 1, 'COMMITTED', now() + interval '1 hour' FROM o),
		e AS (INSERT INTO order_events (order_id, hop, pod) SELECT id, 'accepted', 'pod-1' FROM o),
		k AS (INSERT INTO order_keys (key, order_id, request_hash) SELECT 'key ' || id, id, '\xff00' FROM o)
		INSERT INTO payments (order_id, user_id, amount, status, message_id) SELECT id, user_id, 50, 'SUCCEEDED', 'order.created:' || id FROM o`, n))
}

func (w *world) publish(t *testing.T, exchange, key string, p amqp.Publishing) {
	t.Helper()
	confirm, err := w.channel.PublishWithDeferredConfirmWithContext(t.Context(), exchange, key, true, false, p)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := confirm.WaitContext(t.Context()); err != nil || !ok {
		t.Fatal(ok, err)
	}
}

// letters takes all dead letters, in their order, and puts none back.
func (w *world) letters(t *testing.T, n int) []amqp.Delivery {
	t.Helper()
	taken := rabbittest.Take(t, w.channel, dead, n)
	if len(taken) != n {
		t.Fatalf("%d dead letters came, want %d", len(taken), n)
	}
	for i := range taken {
		taken[i].Acknowledger, taken[i].ConsumerTag, taken[i].DeliveryTag = nil, "", 0
	}
	return taken
}

// deadLetters are one of every kind of property and header that AMQP 0.9.1 knows, one with nothing, one that a service put
// there and one that the broker did.
func (w *world) deadLetters(t *testing.T) {
	t.Helper()
	w.publish(t, "dlx.direct", "events.dlq", amqp.Publishing{
		Headers: amqp.Table{
			"x-reason": "ünreadable", "x-tries": int64(3), "int32": int32(-7), "int16": int16(5), "byte": byte(200), "float": 1.5, "single": float32(0.25), "yes": true,
			"nothing": nil, "bytes": []byte{0, 255, 1}, "at": time.Unix(1_700_000_000, 0).UTC(), "price": amqp.Decimal{Scale: 2, Value: 1999},
			"list": []any{"a", int32(1), amqp.Table{"in": "side"}}, "table": amqp.Table{"k": "v"},
		},
		ContentType: "application/json", ContentEncoding: "identity", DeliveryMode: amqp.Persistent, Priority: 4, CorrelationId: "7", ReplyTo: "nobody", MessageId: "order.created:7",
		Timestamp: time.Unix(1_600_000_000, 0).UTC(), Type: "order.created", UserId: "tester", AppId: "test", Body: []byte("{not json\x00\xff"),
	})
	w.publish(t, "dlx.direct", "events.dlq", amqp.Publishing{})
	w.publish(t, "", dead, amqp.Publishing{Body: bytes.Repeat([]byte("large"), 40_000), DeliveryMode: amqp.Persistent})
	if _, err := w.channel.QueueDeclare("rejects", true, false, false, false, amqp.Table{"x-dead-letter-exchange": "dlx.direct", "x-dead-letter-routing-key": "events.dlq"}); err != nil {
		t.Fatal(err)
	}
	w.publish(t, "", "rejects", amqp.Publishing{Headers: amqp.Table{"x-mine": "1"}, Body: []byte("rejected"), DeliveryMode: amqp.Persistent})
	d, ok, err := w.channel.Get("rejects", false)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if err := d.Reject(false); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		q, err := w.channel.QueueDeclarePassive(dead, true, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if q.Messages == 4 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d dead letters are there", q.Messages)
		}
	}
}

func TestWhatWasSavedComesBack(t *testing.T) {
	w := begin(t)
	w.do(t, `UPDATE shows SET capacity = 1000000 WHERE id = 1`)
	w.orders(t, 2*large)
	w.do(t, `INSERT INTO orders (user_id, show_id, quantity) VALUES ('dead', 2, 1)`, // its event is a dead letter
		`INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) SELECT 2, id, 1, 'RESERVED', now() + interval '1 hour' FROM orders WHERE user_id = 'dead'`)
	w.deadLetters(t)
	before := rows(t, w.db)
	m, err := w.Save(t.Context(), w.folder, "one")
	if err != nil {
		t.Fatal(err)
	}
	if m.Bytes() < fewPacked {
		t.Errorf("%d bytes are too few to take the way that many take", m.Bytes())
	}
	if m.Orders != 2*large+1 || m.Pending != 1 || m.DeadLetters != 4 || m.Schema < pausedSince || m.Sequences["orders_id_seq"] < 2*large {
		t.Errorf("the manifest says %+v", m)
	}
	if diff := cmp.Diff(before, rows(t, w.db)); diff != "" {
		t.Errorf("saving changed the tables: %s", diff)
	}
	letters := w.letters(t, 4) // and none is there any more

	w.do(t, `DELETE FROM orders WHERE id % 2 = 0`, `UPDATE shows SET capacity = capacity + 1`, `INSERT INTO shows (name, venue, starts_at, capacity) VALUES ('more', 'v', now(), 1)`)
	w.orders(t, 3)
	w.publish(t, "dlx.direct", "events.dlq", amqp.Publishing{Body: []byte("later")})
	changed := rows(t, w.db)
	given := w.number(t, `SELECT nextval('orders_id_seq')`)
	m, kept, err := w.Restore(t.Context(), w.folder, "one", true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, rows(t, w.db)); diff != "" {
		t.Errorf("the tables are not those of the cut (-then +now): %.2000s", diff)
	}
	again := w.letters(t, 4)
	for i, want := range letters {
		if diff := cmp.Diff(want, again[i]); diff != "" {
			t.Errorf("dead letter %d is another one (-then +now): %.2000s", i, diff)
		}
	}
	if id := w.number(t, `SELECT nextval('orders_id_seq')`); id <= given {
		t.Errorf("id %d is given out after %d was", id, given)
	}
	// What the restore replaced comes back too.
	if kept.Automatic != "restore" || kept.DeadLetters != 1 {
		t.Errorf("it kept %+v", kept)
	}
	if _, _, err := w.Restore(t.Context(), w.folder, kept.Name, false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(changed, rows(t, w.db)); diff != "" {
		t.Errorf("the tables are not those before the restore: %.2000s", diff)
	}
	if d := w.letters(t, 1); string(d[0].Body) != "later" || d[0].Exchange != "dlx.direct" || d[0].RoutingKey != "events.dlq" {
		t.Errorf("the dead letter is %+v", d[0])
	}
	// Triggers count again.
	held := w.number(t, `SELECT held FROM show_seats WHERE show_id = 1`)
	w.orders(t, 2)
	if n := w.number(t, `SELECT held FROM show_seats WHERE show_id = 1`); n != held+2 {
		t.Errorf("%d seats are held after two more than %d", n, held)
	}
}

// Into a database that never knew these orders, with ids given out of its own.
func TestRestoreIntoAnotherDatabase(t *testing.T) {
	w := begin(t)
	w.orders(t, 40)
	want := rows(t, w.db)
	if _, err := w.Save(t.Context(), w.folder, "one"); err != nil {
		t.Fatal(err)
	}
	other := postgrestest.New(t)
	if _, _, err := w.on(t, other).Restore(t.Context(), w.folder, "one", true); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, rows(t, other)); diff != "" {
		t.Errorf("the tables are not those of the cut: %.2000s", diff)
	}
	var id int64
	if err := other.Pool.QueryRow(t.Context(), `SELECT nextval('orders_id_seq')`).Scan(&id); err != nil || id != 41 {
		t.Errorf("the next id is %d %v", id, err)
	}
}

// Orders wait while something is on its way, and come in when it has arrived.
func TestTheCutWaitsForRest(t *testing.T) {
	w := begin(t)
	w.do(t, `INSERT INTO outbox (message_id, correlation_id, routing_key, payload) VALUES ('m', '1', 'order.created', '{}')`)
	w.publish(t, "", created, amqp.Publishing{Body: []byte("{}")})
	waits := make(chan string, 100)
	w.Say = func(n Note) {
		if n.Waiting != "" {
			waits <- n.Waiting
		}
	}
	type saved struct {
		m   Manifest
		err error
	}
	done := make(chan saved, 1)
	go func() {
		m, err := w.Save(t.Context(), w.folder, "one")
		done <- saved{m, err}
	}()
	why := <-waits
	if !strings.Contains(why, "1 events in the outbox") {
		t.Errorf("it waits for %s", why)
	}
	accepted := make(chan error, 1)
	go func() {
		_, err := w.db.Pool.Exec(context.WithoutCancel(t.Context()), `SELECT * FROM accept_orders('{900}', '{u}', '{1}', '{1}', '{\\x7b7d}', '{}', '{}', '{1}', 1, '1 hour', 'r', '10 s', 'p', false)`)
		accepted <- err
	}()
	w.do(t, `DELETE FROM outbox`) // the relay's work: nothing that comes to its end is held up
	for why = range waits {
		if strings.Contains(why, created) {
			break
		}
	}
	select {
	case err := <-accepted:
		t.Fatalf("an order came in during the pause: %v", err)
	default:
	}
	if d := rabbittest.Take(t, w.channel, created, 1); len(d) != 1 {
		t.Fatal(len(d))
	}
	s := <-done
	if s.err != nil || s.m.Orders != 0 {
		t.Errorf("it saved %d orders: %v", s.m.Orders, s.err)
	}
	if err := <-accepted; err != nil {
		t.Errorf("the order that waited: %v", err)
	}
}

func TestSeedAndWhatIsKeptUnasked(t *testing.T) {
	w := begin(t)
	if taken, err := w.TakeSeed(t.Context(), w.folder); err != nil || !taken {
		t.Fatal(taken, err)
	}
	if taken, err := w.TakeSeed(t.Context(), w.folder); err != nil || taken {
		t.Errorf("the seed is taken twice: %v", err)
	}
	w.Origin = "b" // a new cluster
	if taken, err := w.TakeSeed(t.Context(), w.folder); err != nil || !taken {
		t.Errorf("the seed of an earlier cluster stays: %v", err)
	}
	// The seed has it all.
	if m, fresh, err := w.SaveBefore(t.Context(), w.folder, "down"); err != nil || fresh || m.Name != Seed {
		t.Errorf("%v %s %v", fresh, m.Name, err)
	}
	w.do(t, `INSERT INTO shows (name, venue, starts_at, capacity) VALUES ('mine', 'v', now(), 1)`)
	if m, fresh, err := w.SaveBefore(t.Context(), w.folder, "down"); err != nil || !fresh || !strings.HasPrefix(m.Name, "before-down-") {
		t.Errorf("a show of one's own is not kept: %v %s %v", fresh, m.Name, err)
	}
	for range kept + 1 {
		w.orders(t, 1)
		if _, fresh, err := w.SaveBefore(t.Context(), w.folder, "down"); err != nil || !fresh {
			t.Fatal(fresh, err)
		}
	}
	all, err := w.folder.List()
	if err != nil || len(all) != kept+1 || all[0].Orders != kept+1 {
		t.Errorf("%d snapshots are there, the newest with %d orders: %v", len(all), all[0].Orders, err)
	}
	w.Origin = "c"
	if taken, err := w.TakeSeed(t.Context(), w.folder); err != nil || taken {
		t.Errorf("a seed with orders is taken: %v", err)
	}
	if _, before, err := w.Restore(t.Context(), w.folder, Seed, true); err != nil || before.Automatic != "down" {
		t.Errorf("what is saved already is saved again as %s: %v", before.Name, err)
	}
	if n := w.number(t, `SELECT count(*) FROM orders`) + w.number(t, `SELECT sum(held) FROM show_seats`); n != 0 {
		t.Errorf("after the reset there are %d orders and seats", n)
	}
}

// A snapshot that was altered, cut, or taken of other tables changes nothing.
func TestNothingIsTouchedByABadSnapshot(t *testing.T) {
	w := begin(t)
	w.orders(t, 10)
	if _, err := w.Save(t.Context(), w.folder, "one"); err != nil {
		t.Fatal(err)
	}
	w.orders(t, 1)
	want := rows(t, w.db)
	data, manifest := w.folder.path("one")+"/"+dataFile, w.folder.path("one")+"/"+manifestFile
	edit := func(path string, change func([]byte) []byte) func() {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, change(bytes.Clone(raw)), 0o600); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	// sealed is a manifest that was changed together with its digest.
	sealed := func(change func(*Manifest)) func([]byte) []byte {
		return func(raw []byte) []byte {
			var m Manifest
			if err := json.Unmarshal(raw, &m); err != nil {
				t.Fatal(err)
			}
			change(&m)
			var err error
			if m.Digest, err = m.digest(); err != nil {
				t.Fatal(err)
			}
			raw, err = json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
	}
	for _, c := range []struct {
		name, path string
		change     func([]byte) []byte
		says       string
	}{
		{"a bit", data, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, "was altered"},
		{"the last byte", data, func(b []byte) []byte { return b[:len(b)-1] }, "was cut or altered"},
		{"one byte more", data, func(b []byte) []byte { return append(b, 0) }, "was cut or altered"},
		{"a count", manifest, func(b []byte) []byte { return bytes.Replace(b, []byte(`"rows": 10`), []byte(`"rows": 11`), 1) }, "manifest was altered"},
		{"half a manifest", manifest, func(b []byte) []byte { return b[:len(b)/2] }, "manifest was altered"},
		{"another format", manifest, func(b []byte) []byte {
			return bytes.Replace(b, fmt.Appendf(nil, `"format": %d`, format), []byte(`"format": 9`), 1)
		}, "format is 9"},
		{"a newer schema", manifest, sealed(func(m *Manifest) { m.Schema = 1000 }), "schema version 1000, and the database is at"},
		{"an older one with other columns", manifest, sealed(func(m *Manifest) { m.Schema = 1; m.Tables[0].Columns[0].Type = "numeric" }), "has no column"},
		{"an older one with fewer tables", manifest, sealed(func(m *Manifest) {
			last := m.Tables[len(m.Tables)-1]
			m.Tables, m.Letters.Bytes = m.Tables[:len(m.Tables)-1], 0
			m.Letters = Part{Bytes: last.Bytes, SHA256: last.SHA256}
		}), "the snapshot has no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			undo := edit(c.path, c.change)
			_, _, err := w.Restore(t.Context(), w.folder, "one", true)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says %v", err)
			}
			undo()
			if diff := cmp.Diff(want, rows(t, w.db)); diff != "" {
				t.Errorf("the tables changed: %s", diff)
			}
		})
	}
	if all, err := w.folder.List(); err != nil || len(all) != 1 {
		t.Errorf("%d snapshots are there: %v", len(all), err)
	}
	// Of an older schema with the same tables it is restored.
	edit(manifest, sealed(func(m *Manifest) { m.Schema-- }))
	if _, _, err := w.Restore(t.Context(), w.folder, "one", false); err != nil {
		t.Error(err)
	}
	if n := w.number(t, `SELECT count(*) FROM orders`); n != 10 {
		t.Errorf("%d orders are there", n)
	}
}

// sealed writes a snapshot's manifest anew, with a digest that is right.
func (w *world) sealed(t *testing.T, m Manifest) {
	t.Helper()
	var err error
	if m.Digest, err = m.digest(); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.folder.path(m.Name)+"/"+manifestFile, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A snapshot of the first format is restored too, whichever way its rows take: they are not packed, and the dead letters are a list.
func TestTheFirstFormatComesBack(t *testing.T) {
	for _, orders := range []int{10, large} {
		w := begin(t)
		w.do(t, `UPDATE shows SET capacity = 1000000 WHERE id = 1`)
		w.orders(t, orders)
		w.deadLetters(t)
		want := rows(t, w.db)
		m, err := w.Save(t.Context(), w.folder, "old")
		if err != nil {
			t.Fatal(err)
		}
		path := w.folder.path("old") + "/" + dataFile
		data, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = data.Close() }() // it was only read
		var all []byte
		for i := range m.Tables {
			packed := io.LimitReader(data, m.Tables[i].Bytes)
			unpack, err := gzip.NewReader(packed)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(unpack)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, packed); err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(plain)
			m.Tables[i].Part = Part{Bytes: int64(len(plain)), SHA256: hex.EncodeToString(sum[:])}
			all = append(all, plain...)
		}
		const begin, list, emptyList = 131, 108, 106 // of Erlang's external term format
		letters := binary.BigEndian.AppendUint32([]byte{begin, list}, uint32(m.DeadLetters))
		for range m.DeadLetters {
			size := make([]byte, 4)
			if _, err := io.ReadFull(data, size); err != nil {
				t.Fatal(err)
			}
			letter := make([]byte, binary.BigEndian.Uint32(size))
			if _, err := io.ReadFull(data, letter); err != nil || letter[0] != begin {
				t.Fatal(letter[0], err)
			}
			letters = append(letters, letter[1:]...)
		}
		letters = append(letters, emptyList)
		sum := sha256.Sum256(letters)
		m.Letters = Part{Bytes: int64(len(letters)), SHA256: hex.EncodeToString(sum[:])}
		if err := os.WriteFile(path, append(all, letters...), 0o600); err != nil {
			t.Fatal(err)
		}
		m.Format = plain
		w.sealed(t, m)
		sent := w.letters(t, m.DeadLetters)
		w.orders(t, 1)
		if _, _, err := w.Restore(t.Context(), w.folder, "old", false); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sent, w.letters(t, m.DeadLetters)); diff != "" {
			t.Errorf("the dead letters are others (-then +now): %.2000s", diff)
		}
		if diff := cmp.Diff(want, rows(t, w.db)); diff != "" {
			t.Errorf("the tables of %d orders are not those of the cut: %.2000s", orders, diff)
		}
		if many := m.Bytes() > fewPacked; many != (orders == large) {
			t.Errorf("the rows of %d orders have %d bytes and take the other's way", orders, m.Bytes())
		}
	}
}

// A restore that fails when almost all is loaded has not happened.
func TestARestoreThatFailsLeavesWhatIsThere(t *testing.T) {
	for _, orders := range []int{10, 2 * large} {
		w := begin(t)
		w.do(t, `UPDATE shows SET capacity = 1000000 WHERE id = 1`)
		w.orders(t, orders)
		if _, err := w.Save(t.Context(), w.folder, "one"); err != nil {
			t.Fatal(err)
		}
		m, err := w.folder.Find("one")
		if err != nil {
			t.Fatal(err)
		}
		if many := m.Bytes() > fewPacked; many != (orders > large) {
			t.Errorf("the rows of %d orders have %d bytes and take the other's way", orders, m.Bytes())
		}
		w.orders(t, 1)
		w.publish(t, "dlx.direct", "events.dlq", amqp.Publishing{Body: []byte("mine")})
		want := rows(t, w.db)
		last := &m.Tables[len(m.Tables)-1]
		last.Rows++
		w.sealed(t, m)
		if _, before, err := w.Restore(t.Context(), w.folder, "one", true); err == nil || !strings.Contains(err.Error(), "load table "+last.Name) {
			t.Errorf("it ends with %v", err)
		} else if before.DeadLetters != 1 {
			t.Errorf("it kept %+v", before)
		}
		if diff := cmp.Diff(want, rows(t, w.db)); diff != "" {
			t.Errorf("the tables of %d orders changed: %.2000s", orders, diff)
		}
		if d := w.letters(t, 1); string(d[0].Body) != "mine" {
			t.Errorf("the dead letter is %+v", d[0])
		}
		last.Rows--
		w.sealed(t, m)
		if _, _, err := w.Restore(t.Context(), w.folder, "one", false); err != nil {
			t.Error(err)
		}
		if n := w.number(t, `SELECT count(*) FROM orders`); n != int64(orders) {
			t.Errorf("%d orders are there after all, want %d", n, orders)
		}
	}
}

// Letters that are together more than the broker has room for go out and come back one at a time.
func TestLargeDeadLettersComeBack(t *testing.T) {
	w := begin(t)
	const number, size = 12, 5 << 20
	body := func(i int) []byte { return bytes.Repeat([]byte{byte(i), '\n', 0xff, 131}, size/4) }
	for i := range number {
		w.publish(t, "", dead, amqp.Publishing{Body: body(i), DeliveryMode: amqp.Persistent})
	}
	if m, err := w.Save(t.Context(), w.folder, "one"); err != nil || m.DeadLetters != number {
		t.Fatalf("%d dead letters are saved: %v", m.DeadLetters, err)
	}
	if _, err := w.channel.QueuePurge(dead, false); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Restore(t.Context(), w.folder, "one", false); err != nil {
		t.Fatal(err)
	}
	for i, d := range w.letters(t, number) {
		if !bytes.Equal(d.Body, body(i)) {
			t.Errorf("dead letter %d is another one, of %d bytes", i, len(d.Body))
		}
	}
}

// A broker's image without an erl_call that passes answers on is asked by rabbitmqctl.
func TestTheBrokerIsAskedWithoutErlCall(t *testing.T) {
	w := begin(t)
	w.publish(t, "dlx.direct", "events.dlq", amqp.Publishing{Body: []byte("mine")})
	run := w.Broker.Exec
	w.Broker.Exec = func(ctx context.Context, stdin io.Reader, stdout io.Writer, argv ...string) error {
		if len(argv) > 2 && argv[2] == launch {
			argv[2] = "erl_call() { echo is too old; }" + launch
		}
		return run(ctx, stdin, stdout, argv...)
	}
	if m, err := w.Save(t.Context(), w.folder, "one"); err != nil || m.DeadLetters != 1 {
		t.Errorf("%d dead letters are saved: %v", m.DeadLetters, err)
	}
}

// A platform that does not come to rest, or whose save is interrupted, lets orders in again.
func TestAnInterruptedSaveLeavesNothing(t *testing.T) {
	w := begin(t)
	w.orders(t, 1)
	w.publish(t, "", created, amqp.Publishing{Body: []byte("{}")})
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	w.Say = func(Note) { cancel(stop) }
	if _, err := w.Save(ctx, w.folder, "one"); !errors.Is(err, stop) && !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
	entries, err := os.ReadDir(string(w.folder))
	if err != nil || len(entries) != 0 {
		t.Errorf("it left %v %v", entries, err)
	}
	w.do(t, `SET lock_timeout = '10s'; SELECT * FROM accept_orders('{900}', '{u}', '{1}', '{1}', '{\\x7b7d}', '{}', '{}', '{1}', 1, '1 hour', 'r', '10 s', 'p', false)`)
}
