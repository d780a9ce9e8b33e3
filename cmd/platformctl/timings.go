package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/plan"
	"platformctl/pkg/platform"
	"platformctl/pkg/terminal"
)

func newTimings(e *env) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "timings",
		Short: "Where the time of the last run went",
		Long: `timings shows the last run on this cluster as a chain: what the run waited for,
step by step, and what ran beside it. To make a run faster, make a step of the
chain faster; what stands beside it costs nothing.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return showTimings(cmd.Context(), e, out) },
	}
	out.add(cmd.Flags())
	return cmd
}

func showTimings(ctx context.Context, e *env, out output) error {
	asJSON, err := out.json()
	if err != nil {
		return err
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	r, err := p.LastRun(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Out, r)
	}
	return printTimings(e.Out, r, time.Now())
}

// leastBeside is the time from which on a step beside the chain is worth a word.
const leastBeside = 100 * time.Millisecond

func printTimings(w io.Writer, r platform.Run, now time.Time) error {
	t := r.Timings
	how := "took"
	switch r.Ended {
	case "failed":
		how = "failed in " + r.Failed + " after"
	case "stopped":
		how = "was stopped after"
	case "":
		how = "was cut off after"
	}
	if _, err := fmt.Fprintf(w, "%s %s %s, %s ago: %s one after the other, of %d\n\n",
		r.Command, how, terminal.Duration(t.Took), terminal.Age(now.Sub(t.Began.Add(t.Took))), plural(len(t.Chain), "step"), t.Steps); err != nil {
		return err
	}
	var rows [][]string
	for _, l := range t.Chain {
		share := "-"
		if t.Took > 0 {
			share = fmt.Sprintf("%.0f", 100*float64(l.Took)/float64(t.Took))
		}
		rows = append(rows, []string{l.Step, terminal.Duration(l.Took), share, ending(l.Kind), besides(l.Beside)})
	}
	return terminal.Table(w, []string{"STEP", "TOOK", "%", "", "BESIDE IT"}, rows)
}

// ending is a word for a step's end, where it says more than that it was done.
func ending(k plan.Kind) string {
	switch k {
	case plan.Done:
		return ""
	case "":
		return "cut off"
	}
	return string(k)
}

// besides names the longest steps beside a link.
func besides(spans []plan.Span) string {
	const most = 3
	var parts []string
	for _, s := range spans {
		if s.Took >= leastBeside && len(parts) < most {
			parts = append(parts, s.Step+" "+terminal.Duration(s.Took))
		}
	}
	if rest := len(spans) - len(parts); rest > 0 && len(parts) > 0 {
		parts = append(parts, fmt.Sprintf("%d more", rest))
	}
	return strings.Join(parts, ", ")
}
