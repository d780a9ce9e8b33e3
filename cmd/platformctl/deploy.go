package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/platform"
	"platformctl/pkg/terminal"
)

type deployFlags struct {
	timeout    time.Duration
	failpoints bool
	out        output
}

func newDeploy(e *env) *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use:   "deploy [SERVICE...]",
		Short: "Run the services as the checkout has them: order, payment",
		Long: `deploy has services run as the checkout has them: those that are named, or
both. It compiles what changed, puts one layer into the node, upgrades the
release with its chart, values and configuration, and follows the new pod until
it is ready. The pod before it serves until then, so no request fails.

Code that does not compile touches nothing. A new pod that crashes ends it with
exit code 1 and the pod's last lines, and the pod before it goes on serving.

With failpoints a service can be told to end in the gap between two things that
cannot happen at once. The next up or deploy compiles it without them.`,
		Example:     "  platformctl deploy order\n  platformctl deploy -o json",
		Annotations: map[string]string{annotationRerun: "deploy   # goes on where it stopped"},
		RunE:        func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), e, args) },

		ValidArgsFunction: oursNext,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.DurationVar(&f.timeout, "timeout", platform.DefaultTimeout, "how long a step may wait, images apart")
	flags.BoolVar(&f.failpoints, "failpoints", false, "with failpoints, for \"chaos --faults gap\"")
	f.out.add(flags)
	return cmd
}

func (f deployFlags) run(ctx context.Context, e *env, args []string) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	if f.timeout <= 0 {
		return fault.Usage("--timeout 5m", "--timeout %s is no time to wait", f.timeout)
	}
	services, err := platform.FindOurs(args...)
	if err != nil {
		return err
	}
	set, err := e.checkout()
	if err != nil {
		return err
	}
	set.Timeout = f.timeout
	if f.failpoints {
		set.Tags = []string{"failpoint"}
	}
	p, err := e.open(set)
	if err != nil {
		return err
	}
	done, err := p.Deploy(ctx, services, e.ui().Event)
	if err != nil {
		return err
	}
	e.ui().Pause()
	if asJSON {
		return printJSON(e.Out, deployedJSON(done))
	}
	return printDeployed(e.Out, done)
}

// deployed is a platform.Deployed for programs.
type deployed struct {
	Service  string `json:"service"`
	Image    string `json:"image"`
	Revision int    `json:"revision"`
	Changed  bool   `json:"changed"`
	BuildMS  int64  `json:"buildMilliseconds"`
	LoadMS   int64  `json:"loadMilliseconds"`
	RollMS   int64  `json:"rollMilliseconds"`
}

func deployedJSON(done []platform.Deployed) []deployed {
	all := []deployed{}
	for _, d := range done {
		all = append(all, deployed{
			Service: d.Service, Image: d.Image, Revision: d.Revision, Changed: !d.Unchanged(),
			BuildMS: d.Build.Milliseconds(), LoadMS: d.Load.Milliseconds(), RollMS: d.Roll.Milliseconds(),
		})
	}
	return all
}

// printDeployed writes a line for each service.
func printDeployed(w io.Writer, done []platform.Deployed) error {
	for _, d := range done {
		text := "already runs as the checkout has it"
		if !d.Unchanged() {
			text = fmt.Sprintf("build %s, load %s, roll %s", part(d.Build), part(d.Load), part(d.Roll))
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", d.Service, text); err != nil {
			return err
		}
	}
	return nil
}

// part is how long a part took, or that there was nothing to do.
func part(took time.Duration) string {
	if took == 0 {
		return "none"
	}
	return terminal.Duration(took)
}
