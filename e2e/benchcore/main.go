// Command benchcore measures the ordering core: the two services natively, beside PostgreSQL and RabbitMQ from the platform's
// own images, and with -cluster a running platform. It writes the table of docs/performance.md. With -short it measures a few
// seconds of each, and ends with 1 where an order has come to cost several times the CPU that it should.
//
// What it measures against is pgbench on the same server by the same route in the same round: a single-row INSERT, prepared,
// 32 clients. Seconds differ from one machine to the next, and with what else runs there; ratios do much less.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"platformctl/e2e/lab"
	"platformctl/pkg/command"
	"platformctl/pkg/proof"
)

// firstPort is the first of those at which the lab listens.
const firstPort = 27430

// noBroker is a service's environment in which the broker is away: nothing listens at that port.
const noBroker = "RABBITMQ_PORT=1"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // "servers" ends what it runs by that
	context.AfterFunc(ctx, stop)                                                           // a second Ctrl-C ends it at once
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	short   bool
	rounds  int
	seconds int // of each measurement of intake
	long    int // of each of the pipeline
	rate    float64
	million bool
	watched bool
	cluster string
	ctl     string
	write   string
}

func run(ctx context.Context, args []string) (err error) {
	var s settings
	flags := flag.NewFlagSet("benchcore", flag.ContinueOnError)
	flags.BoolVar(&s.short, "short", false, "a guard against regressions, in less than a minute")
	flags.IntVar(&s.rounds, "rounds", 3, "rounds, of which the median counts")
	flags.IntVar(&s.seconds, "seconds", 8, "seconds of each measurement of intake")
	flags.IntVar(&s.long, "long", 60, "seconds of each measurement of the pipeline")
	flags.Float64Var(&s.rate, "rate", 6500, "orders a second that the pipeline is offered")
	flags.BoolVar(&s.million, "million", true, "measure on tables with a million orders, and with a snapshot held open, too")
	flags.BoolVar(&s.watched, "watched", false, "only measure what it costs that somebody looks")
	flags.StringVar(&s.cluster, "cluster", "", "measure this running platform too")
	flags.StringVar(&s.ctl, "platformctl", "bin/platformctl", "the program, for -cluster")
	flags.StringVar(&s.write, "write", "", "write the table into this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.short {
		s.rounds, s.seconds, s.long, s.million, s.rate = 2, 4, 6, false, 0
	}
	project, err := os.Getwd()
	if err != nil {
		return err
	}
	l, err := lab.New(ctx, command.Local{}, lab.Settings{Name: "benchcore", Project: project, Port: firstPort})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(context.WithoutCancel(ctx))) }()
	b := &bench{settings: s, lab: l}
	if b.meter, err = l.Meter(ctx, "pgbench"); err != nil {
		return err
	}
	if _, err := l.Database().Do(ctx, makeYardstick); err != nil {
		return err
	}
	measure := b.native
	if s.watched {
		measure = func(ctx context.Context) (*table, error) {
			t := &table{}
			return t, b.watched(ctx, t)
		}
	}
	var c *onCluster
	if s.cluster != "" {
		// One that runs and does nothing takes a tenth of two cores.
		if c, err = newOnCluster(ctx, command.Local{}, s.ctl, s.cluster); err == nil {
			fmt.Fprintf(os.Stderr, "cluster %[1]s is stopped for a while; should this be ended before it is started again: %[2]s start --cluster %[1]s\n", s.cluster, s.ctl)
			_, err = c.platformctl(ctx, "stop")
		}
		if err != nil {
			return err
		}
	}
	t, err := measure(ctx)
	if c != nil {
		_, failed := c.platformctl(context.WithoutCancel(ctx), "start")
		err = errors.Join(err, failed)
	}
	if err != nil {
		return err
	}
	if c != nil {
		if err := c.measure(ctx, b, t); err != nil {
			return err
		}
	}
	t.print(os.Stdout)
	if s.write != "" {
		if err := t.document(ctx, l, s.write); err != nil {
			return err
		}
	}
	if s.short {
		return guard(t)
	}
	return nil
}

// The short form compares what an order costs in CPU with what a row costs pgbench. On a machine where others take what they
// can get, throughput falls to a quarter from one second to the next and costs hardly move: measured were 1.1 to 1.7 for intake
// and 5 to 6 for the pipeline, whatever else ran. The limits are twice to three times that. What they are to catch costs more: a
// transaction an order is 16, and a message a transaction makes the pipeline dearer by several times.
const (
	intakeLimit   = 5.0 // times the yardstick
	pipelineLimit = 15.0
)

func guard(t *table) error {
	base := t.find(yardstick).cost()
	if base <= 0 {
		return errors.New("the CPU that pgbench used could not be measured")
	}
	var all []error
	for what, limit := range map[string]float64{intake(64): intakeLimit, everything: pipelineLimit} {
		got := t.find(what).cost() / base
		fmt.Printf("%s: an order costs %.1f times the CPU of a row of pgbench; the limit is %.0f\n", what, got, limit)
		if !(got > 0 && got <= limit) {
			all = append(all, fmt.Errorf("%s: an order costs %.1f times the CPU of a row of pgbench, more than %.0f", what, got, limit))
		}
	}
	return errors.Join(all...)
}

// The rows' names.
const (
	yardstick  = "pgbench, 32 clients, a row each"
	everything = "orders to their ends, 64 clients, all services on"
	sustained  = "pipeline, sustained"
	gentle     = "500 orders a second"
	overload   = "twice the ceiling offered"
	burst      = "100,000 orders as a burst, 256 clients that obey Retry-After"
)

const seen = "the same with 64 clients, and somebody who has the page open"

func intake(clients int) string {
	return fmt.Sprintf("intake, %d clients on one show, broker away", clients)
}

type bench struct {
	settings
	lab   *lab.Lab
	meter proof.Meter
}

const makeYardstick = "CREATE TABLE yardstick (id serial PRIMARY KEY, user_id text NOT NULL, show_id integer NOT NULL, quantity integer NOT NULL, status text NOT NULL DEFAULT 'PENDING', created_at timestamptz NOT NULL DEFAULT now())"

// empty takes all orders away, and begins a show that no bench sells out.
func (b *bench) empty(ctx context.Context) error {
	_, err := b.lab.Database().Do(ctx, "TRUNCATE orders, inventory_reservations, payments, outbox, order_events, yardstick; UPDATE shows SET capacity = 2000000000 WHERE id = 1; CHECKPOINT")
	return err
}

// up starts a service and waits until it answers.
func (b *bench) up(ctx context.Context, part string, env ...string) error {
	if err := b.lab.Start(ctx, part, env...); err != nil {
		return err
	}
	return b.lab.Await(ctx, part)
}

// native measures the rows round by round, so that what disturbs the machine for a while disturbs all of them.
func (b *bench) native(ctx context.Context) (*table, error) {
	t := &table{}
	for range b.rounds {
		base, err := b.pgbench(ctx)
		if err != nil {
			return nil, err
		}
		t.add(yardstick, "", base)
		clients := map[int]string{32: "≥ 0.8", 64: "≥ 1.0", 256: "≥ 1.3"}
		for _, n := range []int{32, 64, 256} {
			if b.short && n != 64 {
				continue
			}
			m, err := b.intake(ctx, n, true, false)
			if err != nil {
				return nil, err
			}
			t.add(intake(n), clients[n], m.against(base))
			if n != 64 {
				continue
			}
			watched, err := b.intake(ctx, n, true, true)
			if err != nil {
				return nil, err
			}
			t.add(seen, "≥ 0.95 of the row without", watched.against(m))
		}
		m, err := b.pipeline(ctx, proof.Load{Clients: 64, Duration: time.Duration(min(b.long, 15)) * time.Second})
		if err != nil {
			return nil, err
		}
		t.add(everything, "", m.against(base))
	}
	if b.short {
		return t, nil
	}
	ceiling, none := t.find(everything).median(), measured{}
	for range b.rounds {
		for _, row := range []struct {
			what, reach string
			base        measured
			load        proof.Load
		}{
			{sustained, "≥ 6,000/s", t.find(yardstick).middle(), proof.Load{Clients: 512, Rate: b.rate, Duration: time.Duration(b.long) * time.Second}},
			{gentle, "p99 ≤ 10 ms; end ≤ 50 ms", none, proof.Load{Clients: 64, Rate: 500, Duration: 20 * time.Second}},
			{overload, "p99 ≤ 500 ms; ≥ 0.8 of the ceiling", none, proof.Load{Clients: 1000, Rate: 2 * ceiling, Duration: 20 * time.Second}},
			{burst, "≤ 45 s", none, proof.Load{Clients: 256, Orders: 100_000, Duration: 2 * time.Minute, Persist: true}},
		} {
			m, err := b.pipeline(ctx, row.load)
			if err != nil {
				return nil, err
			}
			t.add(row.what, row.reach, m.against(row.base))
		}
	}
	if err := b.watched(ctx, t); err != nil {
		return nil, err
	}
	if err := b.start(ctx, t); err != nil {
		return nil, err
	}
	if b.million {
		return t, b.grown(ctx, t)
	}
	return t, nil
}

// start measures how long a service takes from its start to ready, beside the size of what is started.
func (b *bench) start(ctx context.Context, t *table) error {
	for _, service := range []string{lab.OrderAPI, lab.PaymentService} {
		size, err := os.Stat(b.lab.Program(service))
		if err != nil {
			return err
		}
		var took []time.Duration
		for range b.rounds {
			began := time.Now()
			if err := b.up(ctx, service); err != nil {
				return err
			}
			took = append(took, time.Since(began))
			if err := b.lab.Stop(service); err != nil {
				return err
			}
		}
		slices.Sort(took)
		note := fmt.Sprintf("%d ms to ready; the program, all of its image but certificates, is %.1f MB", took[len(took)/2].Milliseconds(), float64(size.Size())/1e6)
		t.add("start of "+service, "≤ 1 s; ≤ 20 MB", measured{note: note})
	}
	return nil
}

var tps = regexp.MustCompile(`tps = ([0-9.]+)`)

// pgbench is the yardstick.
func (b *bench) pgbench(ctx context.Context) (m measured, err error) {
	if err := b.empty(ctx); err != nil {
		return m, err
	}
	const script = `printf %s "INSERT INTO yardstick (user_id, show_id, quantity) VALUES ('bench', 1, 1);" >/tmp/yardstick.sql
PGPASSWORD=$POSTGRES_PASSWORD /usr/lib/postgresql/17/bin/pgbench -n -M prepared -c 32 -j 2 -T "$1" -f /tmp/yardstick.sql -h 127.0.0.1 -U postgres postgresdb && times`
	from, err := b.meter.Mark()
	if err != nil {
		return m, err
	}
	out, err := b.lab.Exec(lab.PostgreSQL)(ctx, "sh", "-c", script, "sh", strconv.Itoa(b.seconds))
	if err != nil {
		return m, err
	}
	to, err := b.meter.Mark()
	if err != nil {
		return m, err
	}
	found := tps.FindSubmatch(out)
	if found == nil {
		return m, fmt.Errorf("pgbench said %s", out)
	}
	m.cpu = b.meter.Between(from, to)
	// It has ended and left the accounts, so the shell tells what it used.
	own := children(string(out)).Seconds() / to.Since(from).Seconds()
	m.cpu.Shares[len(m.cpu.Shares)-1].Cores += own
	m.cpu.Foreign = max(0, m.cpu.Foreign-own)
	m.perSecond, err = strconv.ParseFloat(string(found[1]), 64)
	return m, err
}

// children reads what the shell's "times" says of its children, in its last line: user and system, as 0m1.5s.
func children(said string) (used time.Duration) {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	for _, word := range strings.Fields(lines[len(lines)-1]) {
		if d, err := time.ParseDuration(word); err == nil {
			used += d
		}
	}
	return used
}

// intake measures order-api alone with the database; with watch, while somebody has its page open.
func (b *bench) intake(ctx context.Context, clients int, empty, watch bool) (m measured, err error) {
	if empty {
		if err := b.empty(ctx); err != nil {
			return m, err
		}
	}
	// What it holds for the broker can go nowhere, and it would say so: in the end it is killed.
	if err := b.up(ctx, lab.OrderAPI, noBroker); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, b.lab.Kill(context.WithoutCancel(ctx), lab.OrderAPI)) }()
	if watch {
		v, err := b.view(ctx)
		if err != nil {
			return m, err
		}
		defer func() { err = errors.Join(err, v.leave()) }()
	}
	from, err := b.meter.Mark()
	if err != nil {
		return m, err
	}
	a, err := proof.Load{Address: b.lab.Address(lab.OrderAPI), Show: 1, Quantity: 1, Clients: clients, Duration: time.Duration(b.seconds) * time.Second}.Run(ctx)
	if err != nil {
		return m, err
	}
	to, err := b.meter.Mark()
	if err != nil {
		return m, err
	}
	return measured{perSecond: a.PerSecond(), answers: a, cpu: b.meter.Between(from, to)}, nil
}

// pipeline measures orders to their ends, and verifies afterwards.
func (b *bench) pipeline(ctx context.Context, load proof.Load) (m measured, err error) {
	if err := b.empty(ctx); err != nil {
		return m, err
	}
	for _, part := range []string{lab.PaymentService, lab.OrderAPI} {
		if err := b.up(ctx, part); err != nil {
			return m, err
		}
		defer func() { err = errors.Join(err, b.lab.Stop(part)) }()
	}
	load.Address, load.Show, load.Quantity = b.lab.Address(lab.OrderAPI), 1, 1
	r, err := proof.Bench{
		Platform: b.lab.Platform(), Database: b.lab.Database(), Load: load, Meter: b.meter, Settle: 2 * time.Minute,
		Say: func(line string) { fmt.Fprintln(os.Stderr, line) },
	}.Run(ctx)
	if err != nil {
		return m, err
	}
	return fromBench(r)
}

// fromBench makes a row's figures of a bench; a broken invariant is an error.
func fromBench(r proof.BenchResult) (measured, error) {
	if !r.Report.Holds {
		return measured{}, fmt.Errorf("broken: %+v", r.Report.Invariants)
	}
	if r.Stays != nil {
		return measured{}, r.Stays
	}
	m := measured{perSecond: r.Ends.PerSecond, answers: r.Answers, ends: &r.Ends}
	if r.CPU != nil {
		m.cpu = *r.CPU
	}
	return m, nil
}
