package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/platform"
	"platformctl/pkg/proof"
	"platformctl/pkg/terminal"
)

type verifyFlags struct {
	quiet          time.Duration
	history, junit string
	out            output
}

func newVerify(e *env) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that no order is lost, doubled, oversold or stuck",
		Long: `verify reads the running platform's database, by SQL of its own, and the
broker's queues and dead letters. It prints each invariant with what it counted,
and names the first rows that break one. It ends with exit code 5 if any is
broken. It changes nothing, and may run while orders flow.

  I1   accepted  each accepted order is there; an unknown answer is 0 or 1
  I2   seats     held = the sum of the reservations ≤ capacity, at any instant
  I3   rest      no order PENDING, no hold past its time, nothing in the queues
  I4   payments  at most one payment an order, message ids unique
  I5   events    each had its effect, or is a dead letter; none from nowhere
  I6   states    order, reservation and payment are a legal combination
  I7   keys      the same idempotency key is the same order
  I8   letters   each dead letter says why, and poison is among them
  I9   ends      an order ends once, and stays as it ended
  I10  lapses    the seats of a lapsed hold came back exactly once
  I11  outages   without the broker orders are accepted, and delivered after

What is on its way when it begins may arrive for the quiet time; what is still
on its way after that is stuck. Dead letters are counted: they break nothing.

With --history it also holds what clients were told, as "bench --history" wrote
it (docs/history.md), against what is there.`,
		Example: "  platformctl verify\n  platformctl verify --history orders.jsonl --junit verify.xml",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.DurationVar(&f.quiet, "quiet-time", 10*time.Second, "`time` that orders may take to end")
	flags.StringVar(&f.history, "history", "", "`file` of a client history to hold the orders against")
	flags.StringVar(&f.junit, "junit", "", "write the verdicts to this `file` as JUnit's XML, too")
	f.out.add(flags)
	return cmd
}

func (f verifyFlags) run(ctx context.Context, e *env) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	if f.quiet < 0 {
		return fault.Usage("--quiet-time 10s", "--quiet-time %s is less than nothing", f.quiet)
	}
	told, err := history(f.history)
	if err != nil {
		return err
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	client, err := p.Kube(ctx)
	if err != nil {
		return err
	}
	read, _, err := proven(client)
	if err != nil {
		return err
	}
	read.History = told
	report, err := proof.Verify(ctx, read, f.quiet, e.onTheWay)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(e.Out, report)
	} else {
		err = printReport(e.Out, report)
	}
	if f.junit != "" {
		err = errors.Join(err, writeJUnit(f.junit, report))
	}
	return errors.Join(err, broken(e, report))
}

// history reads a client history; "" is none.
func history(name string) (h *proof.History, err error) {
	if name == "" {
		return nil, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, fault.Usage("platformctl bench --history "+name+"   # writes one", "read the client history: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if h, err = proof.ReadHistory(file); err != nil {
		return nil, fault.Usage("what its lines are: docs/history.md", "%s: %w", name, err)
	}
	return h, nil
}

// appendTo opens a client history to go on with, or begins it. A file that is none stays as it is.
func appendTo(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("write the client history: %w", err)
	}
	if err := proof.Resume(file); err != nil {
		if disk := (*fs.PathError)(nil); !errors.As(err, &disk) {
			err = fault.Usage("what its lines are: docs/history.md", "%s: %w", name, err)
		}
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func writeJUnit(name string, r proof.Report) (err error) {
	file, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return r.JUnit(file)
}

// proven is the platform as verify and bench read it, and its database.
func proven(client *kube.Client) (proof.Platform, proof.Psql, error) {
	exec := map[string]proof.Exec{}
	for _, name := range []string{"postgres", "rabbitmq"} {
		s, err := platform.FindService(name)
		if err != nil {
			return proof.Platform{}, proof.Psql{}, err
		}
		exec[name] = proof.InPod(client, proof.Pod{Namespace: s.Namespace, Name: s.Workload + "-0", Container: s.Container})
	}
	database := proof.Psql{Exec: exec["postgres"]}
	return proof.Platform{Database: database, Broker: proof.Rabbitmqctl{Exec: exec["rabbitmq"], VHost: "/"}}, database, nil
}

// onTheWay says what the platform is given time for.
func (e *env) onTheWay(orders, events, messages int64) {
	var parts []string
	for _, part := range []struct {
		n   int64
		one string
	}{{orders, "pending order"}, {events, "event"}, {messages, "message"}} {
		if part.n > 0 {
			parts = append(parts, plural(int(part.n), part.one))
		}
	}
	e.ui().Say("waiting for what is on its way: " + strings.Join(parts, ", "))
}

// broken is the error for a report in which something is.
func broken(e *env, r proof.Report) error {
	names := r.Broken()
	if len(names) == 0 {
		return nil
	}
	return fault.New(fault.CodeBroken, e.line("logs order payment")+"\n"+e.line("psql"), "%d of %s broken: %s",
		len(names), plural(len(r.Invariants), "invariant"), strings.Join(names, ", "))
}

// printReport writes a line for each invariant, and after them the rows that break one.
func printReport(w io.Writer, r proof.Report) error {
	var rows [][]string
	var named strings.Builder
	for _, f := range r.Invariants {
		verdict := "holds"
		if f.Unasked {
			verdict = "-"
		}
		if !f.Holds {
			verdict = "BROKEN"
			fmt.Fprintf(&named, "\n%s is broken by %s: %s\n", f.Name, plural(int(f.Broken), "row"), f.Claim)
			for _, row := range f.Rows {
				fmt.Fprintf(&named, "  %s\n", row)
			}
			if more := f.Broken - int64(len(f.Rows)); more > 0 {
				fmt.Fprintf(&named, "  and %d more\n", more)
			}
		}
		rows = append(rows, []string{f.ID, f.Name, verdict, f.Counted})
	}
	if err := terminal.Table(w, []string{"", "INVARIANT", "VERDICT", "COUNTED"}, rows); err != nil {
		return err
	}
	_, err := io.WriteString(w, named.String())
	return err
}
