package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/platform"
)

func newStop(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "stop",
		Short: "Free memory and CPU, and keep everything",
		Long: `stop ends the cluster's node, with all that runs in it. Orders, messages and
settings stay; start brings all back, after a restart of this machine too.`,
		Args:        noArgs,
		Annotations: map[string]string{annotationRerun: "stop   # stops what still runs"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := e.platform()
			if err != nil {
				return err
			}
			return p.Stop(cmd.Context(), e.ui().Event)
		},
	}
}

type startFlags struct{ timeout time.Duration }

func newStart(e *env) *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Bring back what was stopped, as it was",
		Long: `start brings back what stop, or a restart of the machine or of its container
engine, has stopped, and ends when orders are taken again. It builds and
upgrades nothing; that is what up is for, which starts what is stopped, too.`,
		Args:        noArgs,
		Annotations: map[string]string{annotationRerun: "start   # goes on where it stopped"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	cmd.Flags().DurationVar(&f.timeout, "timeout", platform.DefaultTimeout, "how long a step may wait")
	return cmd
}

func (f startFlags) run(ctx context.Context, e *env) error {
	if f.timeout <= 0 {
		return fault.Usage("--timeout 5m", "--timeout %s is no time to wait", f.timeout)
	}
	set, err := e.settings()
	if err != nil {
		return err
	}
	set.Timeout = f.timeout
	p, err := e.open(set)
	if err != nil {
		return err
	}
	api, err := p.Start(ctx, e.ui().Event)
	if err != nil {
		return err
	}
	e.ui().Pause()
	_, err = fmt.Fprintf(e.Out, "The platform is up: %s\nNext: %s\n", api, e.line("order --show 1 --qty 2"))
	return err
}
