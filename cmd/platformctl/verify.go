package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	quiet time.Duration
	out   output
}

func newVerify(e *env) *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that no order is lost, doubled, oversold or stuck",
		Long: `verify reads the running platform's database, by SQL of its own, and the
broker's queues. It prints each invariant with what it counted, and names the
first rows that break one. It ends with exit code 5 if any is broken. It changes
nothing, and may run while orders flow.

  seats     held = the sum of the reservations ≤ capacity, for each show
  rest      no order PENDING, no hold past its time, outbox and queues empty
  payments  at most one payment an order, message ids unique
  states    order, reservation and payment stand in a legal combination

What is on its way when it begins may arrive for the quiet time; what is still
on its way after that is stuck. Dead letters are counted: they break nothing.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.DurationVar(&f.quiet, "quiet-time", 10*time.Second, "`time` that orders may take to end")
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
	report, err := proof.Verify(ctx, read, f.quiet, e.onTheWay)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(e.Out, report)
	} else {
		err = printReport(e.Out, report)
	}
	return errors.Join(err, broken(e, report))
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
