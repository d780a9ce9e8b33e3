package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/inspect"
	"platformctl/pkg/platform"
	"platformctl/pkg/terminal"
)

type traceFlags struct {
	slowest string
	stuck   bool
	out     output
}

func newTrace(e *env) *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:   "trace [ORDER]",
		Short: "One order's life, hop by hop, or what it waits for",
		Long: `trace tells an order's life as a tree: request, hold, outbox, broker, delivery,
payment, result, end, each with the time since the request and since the hop
before. Where the order has not ended, it says what it waits for. It reads the
database's own history, so that it also works after restarts; the trace's id is
W3C's, and is in the logs and the messages' headers too.

--stuck lists the orders that should have ended by now, --slowest those that took
the longest.`,
		Example: "  platformctl trace 17\n  platformctl trace --stuck\n  platformctl trace --slowest 10 -o json",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fault.Usage(e.line("trace "+args[0]), "trace takes the number of one order, and got %d arguments", len(args))
			}
			return nil
		},
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), e, args) },
		ValidArgsFunction: ordersNext(e),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.slowest, "slowest", "", "list the `n` orders that took the longest")
	flags.BoolVar(&f.stuck, "stuck", false, "list the orders that should have ended by now")
	f.out.add(flags)
	return cmd
}

// mostStuck is how many orders are listed that are stuck.
const mostStuck = 100

// wanted is what the arguments and flags ask for: an order, or a list of so many; or the usage error.
func (f traceFlags) wanted(e *env, args []string) (order, slowest int64, err error) {
	ways := len(args)
	for _, given := range []bool{f.stuck, f.slowest != ""} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return 0, 0, fault.Usage(e.line("trace 17")+"\n"+e.line("trace --stuck"), "trace takes one of: the number of an order, --slowest N, --stuck")
	case f.slowest != "":
		slowest, err = count("--slowest", f.slowest, e.line("trace --slowest 10"))
	case len(args) == 1:
		if order, err = parseWhole(args[0]); err != nil || order < 1 {
			return 0, 0, fault.Usage(e.line("trace 17"), "%q is no order's number: 1 to %d", args[0], math.MaxInt32)
		}
	}
	return order, slowest, err
}

func (f traceFlags) run(ctx context.Context, e *env, args []string) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	order, slowest, err := f.wanted(e, args)
	if err != nil {
		return err
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	if order > 0 {
		t, err := e.traceOf(ctx, p, order)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(e.Out, t)
		}
		return printTrace(e.Out, t)
	}
	db, err := e.tables(ctx, p)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // it only read
	var lives []inspect.Life
	if f.stuck {
		lives, err = inspect.Stuck(ctx, db, mostStuck)
	} else {
		lives, err = inspect.Slowest(ctx, db, slowest)
	}
	if err != nil {
		return fault.New(fault.CodeOf(err), e.line("status"), "%w", err)
	}
	traces, err := e.tell(ctx, p, lives)
	if err != nil {
		return err
	}
	switch {
	case asJSON:
		return printJSON(e.Out, traces)
	case len(traces) == 0 && f.stuck:
		e.ui().Say("no order is stuck")
		return nil
	case len(traces) == 0:
		e.ui().Say("no order has ended yet")
		return nil
	}
	return printTraces(e.Out, e.width(), traces)
}

// traceOf is one order's trace.
func (e *env) traceOf(ctx context.Context, p thePlatform, order int64) (inspect.Trace, error) {
	db, err := e.tables(ctx, p)
	if err != nil {
		return inspect.Trace{}, err
	}
	defer func() { _ = db.Close() }() // it only read
	life, ok, err := inspect.LifeOf(ctx, db, order)
	if err != nil {
		return inspect.Trace{}, fault.New(fault.CodeOf(err), e.line("status"), "%w", err)
	}
	if !ok {
		return inspect.Trace{}, e.noOrder(order)
	}
	traces, err := e.tell(ctx, p, []inspect.Life{life})
	if err != nil {
		return inspect.Trace{}, err
	}
	return traces[0], nil
}

func (e *env) noOrder(order int64) error {
	return fault.Usage(e.line("order --show 1 --qty 2")+"   # places one", "there is no order %d", order)
}

// tell makes traces of lives. The broker is asked only where an order has not ended, and what it does not answer is left out.
func (e *env) tell(ctx context.Context, p thePlatform, lives []inspect.Life) ([]inspect.Trace, error) {
	var queues []inspect.QueueState
	var letters []inspect.Letter
	for _, l := range lives {
		if l.Status != "PENDING" {
			continue
		}
		broker, err := e.broker(ctx, p)
		if err == nil {
			queues, err = broker.Queues(ctx)
		}
		if err == nil {
			letters, _, err = broker.Letters(ctx)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			e.ui().Say("the broker does not answer: " + err.Error())
		}
		break
	}
	traces := make([]inspect.Trace, 0, len(lives))
	for _, l := range lives {
		traces = append(traces, inspect.Tell(l, queues, letters))
	}
	return traces, nil
}

// theTables are a connection to the platform's database; an inspect.Reader is one.
type theTables interface {
	inspect.Database
	Close() error
}

// tablesOf is a connection to the running platform's database, for who only reads: a client of our own through the API server, for to
// start one beside the server takes longer than all else of a trace.
func (e *env) tablesOf(ctx context.Context, p thePlatform) (theTables, error) {
	login, err := p.Database(ctx)
	if err != nil {
		return nil, err
	}
	if login == nil {
		return nil, fault.Unfit(e.line("up"), "the platform is not running: cluster %s has no database", e.cluster)
	}
	client, err := p.Kube(ctx)
	if err != nil {
		return nil, err
	}
	s, err := platform.FindService("postgres")
	if err != nil {
		return nil, err
	}
	r, err := inspect.Tables{
		User: "postgres", Password: login.Password, Database: "postgresdb",
		Dial: func(ctx context.Context) (net.Conn, error) {
			return client.Dial(ctx, s.Namespace, s.Workload+"-0", s.Ports[0].Number)
		},
	}.Open(ctx)
	if err != nil {
		return nil, fault.New(fault.CodeOf(err), e.line("status"), "%w", err)
	}
	return r, nil
}

func printTrace(w io.Writer, t inspect.Trace) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: show %d, %s, user %s\n", stateOf(t), t.Show, plural(int(t.Quantity), "seat"), t.User)
	fmt.Fprintf(&b, "%s  trace %s\n\n", t.Created.UTC().Format("2006-01-02 15:04:05.000 UTC"), orNone(t.ID))
	for _, line := range t.Lines() {
		b.WriteString(line + "\n")
	}
	if len(t.Steps) == 0 {
		b.WriteString("nobody noted its hops: an older service took it\n")
	}
	if t.Waits != "" {
		b.WriteString("\n" + folded("it waits "+t.Waits, columns) + "\n")
	}
	return terminal.Text(w, b.String())
}

// stateOf is a sentence on an order: what it is, and since when.
func stateOf(t inspect.Trace) string {
	if t.Ended != nil {
		return fmt.Sprintf("order %d is %s after %s", t.Order, t.Status, terminal.Duration(t.Ended.Sub(t.Created)))
	}
	return fmt.Sprintf("order %d is %s since %s", t.Order, t.Status, terminal.Duration(t.At.Sub(t.Created)))
}

func printTraces(w io.Writer, width int, traces []inspect.Trace) error {
	rows := make([][]string, 0, len(traces))
	for _, t := range traces {
		took := terminal.Age(t.At.Sub(t.Created))
		if t.Ended != nil {
			took = terminal.Duration(t.Ended.Sub(t.Created))
		}
		last := "-"
		if longest, what := t.Longest(); longest > 0 {
			last = terminal.Duration(longest) + " until " + what
		}
		if t.Waits != "" {
			last = "waits " + t.Waits
		}
		rows = append(rows, []string{strconv.FormatInt(t.Order, 10), t.Created.UTC().Format(time.TimeOnly), took, t.Status, last})
	}
	return foldedTable(w, width, []string{"ORDER", "AT", "TOOK", "STATUS", "WHERE THE TIME WENT"}, rows)
}
