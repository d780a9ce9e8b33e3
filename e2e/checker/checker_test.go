//go:build e2e

package checker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"platformctl/e2e/lab"
	"platformctl/pkg/chaos"
	"platformctl/pkg/command"
	"platformctl/pkg/proof"
)

const (
	firstPort = 27460 // of the lab

	clients = 32
	orders  = 600
	quiet   = 15 * time.Second // for what is on its way; what is lost never arrives
	whole   = 10 * time.Minute
)

// mutation takes a protection away.
type mutation struct {
	name string
	take []string // statements that take it away
	give []string // and bring it back
	// program is a service that is compiled with a file changed, from one text to another.
	program, file string
	change        [][2]string

	run    func(*run)
	broken []string // what verify must find, at the least
}

func mutations() []mutation {
	return []mutation{
		{
			name: "nothing is taken away", run: func(r *run) {
				r.duplicates()
				r.poison()
				r.kill(lab.PaymentService)
				r.kill(lab.OrderAPI)
			},
		},
		{
			// Events go from memory to the broker, and what a crash leaves is nowhere.
			name: "the outbox is bypassed",
			take: []string{
				`CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`,
				`CREATE TRIGGER bypassed BEFORE INSERT ON outbox FOR EACH ROW WHEN (NEW.routing_key = 'order.created') EXECUTE FUNCTION nothing()`,
			},
			give: []string{`DROP FUNCTION nothing CASCADE`},
			run:  func(r *run) { r.withoutBroker(); r.kill(lab.OrderAPI) }, broken: []string{"rest", "events"},
		},
		{
			name: "the unique index is dropped",
			take: []string{`DROP INDEX payments_order`, `ALTER TABLE payments DROP CONSTRAINT payments_message_id_key`},
			give: []string{
				`CREATE UNIQUE INDEX payments_order ON payments (order_id)`,
				`ALTER TABLE payments ADD CONSTRAINT payments_message_id_key UNIQUE (message_id)`,
			},
			run: (*run).duplicates, broken: []string{"payments"},
		},
		{
			name: "acknowledgements are automatic", program: lab.PaymentService, file: "pkg/rabbit/consumer.go",
			change: [][2]string{
				{`channel.Consume(c.Queue, "", false,`, `channel.Consume(c.Queue, "", true,`},
				{`batch[last].Ack(true)`, `error(nil)`},
			},
			run: func(r *run) { r.kill(lab.PaymentService) }, broken: []string{"rest", "events"},
		},
		{
			name: "the capacity rule is off",
			take: []string{
				`ALTER TABLE show_seats DROP CONSTRAINT show_seats_not_oversold`,
				rewrite(`quantities[i] <= free`, `true`), rewrite(`seats <= s.capacity - s.held`, `true`),
			},
			give: []string{
				rewrite(`fits[i] AND true`, `fits[i] AND quantities[i] <= free`), rewrite(`FILTER (WHERE true)`, `FILTER (WHERE seats <= s.capacity - s.held)`),
				`ALTER TABLE show_seats ADD CONSTRAINT show_seats_not_oversold CHECK (held BETWEEN 0 AND capacity)`,
			},
			run: func(r *run) {}, broken: []string{"seats"},
		},
	}
}

// rewrite is a statement that changes the text of the function that takes orders, the latest of its versions.
func rewrite(from, to string) string {
	return fmt.Sprintf(`DO $do$
DECLARE
	old text := pg_get_functiondef((SELECT oid FROM pg_proc WHERE proname = 'accept_orders' ORDER BY pronargs DESC LIMIT 1));
	new text := replace(old, $from$%s$from$, $to$%s$to$);
BEGIN
	IF old = new THEN RAISE EXCEPTION 'accept_orders has no such text'; END IF;
	EXECUTE new;
END $do$`, from, to)
}

func TestTheCheckerIsChecked(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	project, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(ctx, command.Local{}, lab.Settings{Name: "checker", Project: project, Port: firstPort})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	for _, m := range mutations() {
		t.Run(m.name, func(t *testing.T) {
			r := &run{t: t, ctx: ctx, lab: l, draw: rand.New(rand.NewPCG(1, 1))}
			r.do(m.take...)
			if m.program != "" {
				r.must(l.Compile(ctx, m.program, "-overlay", r.overlay(project, m)))
			}
			r.start(lab.PaymentService)
			r.start(lab.OrderAPI)
			stop := r.load()
			m.run(r)
			stop()
			report := r.verify()
			for _, name := range m.broken {
				if !slices.Contains(report.Broken(), name) {
					t.Errorf("it does not find %s broken", name)
				}
			}
			if len(m.broken) == 0 && !report.Holds {
				t.Errorf("it finds broken %v", report.Broken())
			}
			for _, f := range report.Invariants {
				t.Logf("%-3s %-9s %v  %s  %s", f.ID, f.Name, f.Holds, f.Counted, strings.Join(f.Rows[:min(len(f.Rows), 2)], "; "))
			}
			r.must(l.Kill(ctx, lab.OrderAPI))
			r.must(l.Kill(ctx, lab.PaymentService))
			r.clear()
			r.do(m.give...)
			if m.program != "" {
				r.must(l.Compile(ctx, m.program))
			}
		})
	}
}

// run is orders that flow while something happens.
type run struct {
	t       *testing.T
	ctx     context.Context
	lab     *lab.Lab
	draw    *rand.Rand
	history bytes.Buffer
	record  *proof.Recorder
}

func (r *run) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *run) do(statements ...string) {
	r.t.Helper()
	for _, s := range statements {
		_, err := r.lab.Database().Do(r.ctx, s)
		r.must(err)
	}
}

// start gives the payments a little time each, so that there is always something in hand.
func (r *run) start(part string) {
	r.t.Helper()
	r.must(r.lab.Start(r.ctx, part, "PAYMENT_DELAY_MS=100", "RABBITMQ_PREFETCH=100"))
	r.must(r.lab.Await(r.ctx, part))
}

// overlay is a file for go build by which a source is compiled as the mutation has it.
func (r *run) overlay(project string, m mutation) string {
	r.t.Helper()
	path := filepath.Join(project, m.file)
	raw, err := os.ReadFile(path)
	r.must(err)
	text := string(raw)
	for _, c := range m.change {
		if strings.Count(text, c[0]) != 1 {
			r.t.Fatalf("%s has no %q to change", m.file, c[0])
		}
		text = strings.Replace(text, c[0], c[1], 1)
	}
	dir := r.t.TempDir()
	changed, overlay := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	raw, err = json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	r.must(err)
	r.must(errors.Join(os.WriteFile(changed, []byte(text), 0o600), os.WriteFile(overlay, raw, 0o600)))
	return overlay
}

// load orders the third show's 120 seats and many more, and all of another, until stop is called.
func (r *run) load() (stop func()) {
	r.record = proof.Record(&r.history)
	r.do(`UPDATE shows SET capacity = 100000 WHERE id = 1`)
	ctx, cancel := context.WithCancelCause(r.ctx)
	ended := make(chan error, 2)
	for _, show := range []int64{1, 3} {
		go func() {
			load := proof.Load{Address: r.lab.Address(lab.OrderAPI), Show: show, Quantity: 1, Clients: clients, Rate: 150, Duration: time.Minute, Persist: true, History: r.record}
			_, err := load.Run(ctx)
			ended <- err
		}()
	}
	over := errors.New("it is enough")
	return func() {
		r.await("orders enough", func() bool { return r.count(`SELECT count(*) FROM orders`) >= orders })
		cancel(over)
		for range 2 {
			if err := <-ended; err != nil && !errors.Is(err, over) {
				r.t.Error(err)
			}
		}
	}
}

func (r *run) count(statement string) (n int) {
	r.t.Helper()
	raw, err := r.lab.Database().JSON(r.ctx, statement)
	r.must(err)
	r.must(json.Unmarshal(raw, &n))
	return n
}

func (r *run) await(what string, holds func() bool) {
	r.t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for !holds() {
		select {
		case <-again.C:
		case <-r.ctx.Done():
			r.t.Fatalf("%s: %v", what, context.Cause(r.ctx))
		}
	}
}

// duplicates has a hundred events come twice.
func (r *run) duplicates() {
	r.t.Helper()
	n, err := chaos.Messages{URL: r.lab.Broker(), Exchange: "events.topic"}.Again(r.ctx, 100, r.draw, func(id string) { r.record.Published(id, proof.AsAgain) })
	r.must(err)
	if n != 100 {
		r.t.Fatalf("%d events were published again", n)
	}
}

// poison publishes what can never be handled.
func (r *run) poison() {
	r.t.Helper()
	n, err := chaos.Messages{URL: r.lab.Broker(), Exchange: "events.topic"}.Poison(r.ctx, func(id string) { r.record.Published(id, proof.AsPoison) })
	r.must(err)
	if n != 6 {
		r.t.Fatalf("%d messages were published", n)
	}
}

// kill kills a service that has something in hand.
func (r *run) kill(part string) {
	r.t.Helper()
	r.await("orders on their way", func() bool {
		return r.count(`SELECT count(*) FROM orders WHERE status = 'PENDING'`) > 20
	})
	r.must(r.lab.Kill(r.ctx, part))
	r.start(part)
}

// withoutBroker lets orders be accepted while there is no broker, and has it back when order-api is about to be killed.
func (r *run) withoutBroker() {
	r.t.Helper()
	r.must(r.lab.Kill(r.ctx, lab.RabbitMQ))
	before := r.count(`SELECT count(*) FROM orders`)
	r.await("orders while the broker is away", func() bool { return r.count(`SELECT count(*) FROM orders`) > before+100 })
	r.must(r.lab.Kill(r.ctx, lab.OrderAPI))
	r.must(r.lab.Start(r.ctx, lab.RabbitMQ))
	r.must(r.lab.Await(r.ctx, lab.RabbitMQ))
	r.start(lab.OrderAPI)
}

func (r *run) verify() proof.Report {
	r.t.Helper()
	told, err := proof.ReadHistory(bytes.NewReader(r.history.Bytes()))
	r.must(err)
	p := r.lab.Platform()
	p.History = told
	report, err := proof.Verify(r.ctx, p, quiet, func(int64, int64, int64) {})
	r.must(err)
	return report
}

// clear makes the platform as good as new.
func (r *run) clear() {
	r.t.Helper()
	r.do(`TRUNCATE orders, inventory_reservations, payments, outbox, order_events, order_keys`)
	for _, queue := range []string{"payment.order-created.q", "order.payment-results.q"} {
		_, err := r.lab.Exec(lab.RabbitMQ)(r.ctx, "rabbitmqctl", "--silent", "purge_queue", queue)
		r.must(err)
	}
}
