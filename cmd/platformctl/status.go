package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/platform"
	"platformctl/pkg/terminal"
)

type statusFlags struct {
	wait, watch bool
	out         output
}

func newStatus(e *env) *cobra.Command {
	var f statusFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Cluster, releases, pods with reasons, the API's address",
		Long: `status shows what is there: the cluster, the releases, the pods with the reason
where one is not ready, the address of the API, and what the caches hold. It
ends with exit code 3 unless all is ready.

-w shows what the platform does instead: throughput, p99, outbox, queues, dead
letters, seats and pods, by the services' metrics, each second until Ctrl-C.
Where it cannot draw in place, and with --progress plain, it writes a line a
second; with -o json, an object a line.`,
		Example:     "  platformctl status\n  platformctl status -w\n  platformctl status -w -o json",
		Args:        noArgs,
		Annotations: map[string]string{annotationRerun: "status --wait"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&f.wait, "wait", false, "first wait until all is ready")
	flags.BoolVarP(&f.watch, "watch", "w", false, "show what the platform does, each second, until Ctrl-C")
	f.out.add(flags)
	return cmd
}

func (f statusFlags) run(ctx context.Context, e *env) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	if f.wait {
		if err := p.AwaitReady(ctx, e.ui().Event); err != nil {
			return err
		}
		e.ui().Pause()
	}
	if f.watch {
		return e.watch(ctx, p, asJSON)
	}
	s, err := p.Status(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(e.Out, s)
	} else {
		err = printStatus(e.Out, s)
	}
	switch {
	case err != nil:
		return err
	case s.Ready:
		return nil
	case s.State == "running":
		return fault.Unfit(e.line("status --wait")+"\n"+e.line("up"), "the platform is not ready: %s", s.Why)
	}
	cure := "up"
	if s.State == "stopped" {
		cure = "start"
	}
	return fault.Unfit(e.line(cure), "the platform is not running: %s", s.Why)
}

func printStatus(w io.Writer, s platform.Status) error {
	ready := "not ready"
	if s.Ready {
		ready = "ready"
	}
	facts := [][2]string{{"Cluster", s.Cluster + ", " + s.State}}
	if s.State == "running" {
		facts[0][1] += ", " + ready
	}
	if s.API != "" {
		facts = append(facts, [2]string{"API", s.API})
	}
	facts = append(facts, [2]string{"Cache", fmt.Sprintf("%s in %s", terminal.Bytes(s.CacheUse), s.Cache)})
	for _, f := range facts {
		if _, err := fmt.Fprintf(w, "%-9s%s\n", f[0]+":", f[1]); err != nil {
			return err
		}
	}
	if len(s.Releases) > 0 {
		var rows [][]string
		for _, r := range s.Releases {
			rows = append(rows, []string{r.Name, r.Namespace, strconv.Itoa(r.Revision), r.Status})
		}
		if err := section(w, []string{"RELEASE", "NAMESPACE", "REVISION", "STATUS"}, rows); err != nil {
			return err
		}
	}
	if len(s.Pods) == 0 {
		return nil
	}
	var rows [][]string
	for _, p := range s.Pods {
		state := "ready"
		if !p.Ready {
			state = p.Phase
		}
		rows = append(rows, []string{p.Name, state, strconv.Itoa(p.Restarts), terminal.Age(time.Duration(p.AgeSecs) * time.Second)})
	}
	if err := section(w, []string{"POD", "STATE", "RESTARTS", "AGE"}, rows); err != nil {
		return err
	}
	// A reason is a sentence, and beside the long names of pods there is no room for one.
	for _, p := range s.Pods {
		reason := strings.TrimPrefix(p.Reason+": "+p.Message, ": ")
		if reason = strings.TrimSuffix(reason, ": "); reason == "" {
			continue
		}
		if err := terminal.Text(w, "\n"+folded(p.Name+": "+reason, columns)); err != nil {
			return err
		}
	}
	return nil
}

// section is a table with an empty line before it.
func section(w io.Writer, header []string, rows [][]string) error {
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	return terminal.Table(w, header, rows)
}
