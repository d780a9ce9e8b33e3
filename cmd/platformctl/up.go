package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/plan"
	"platformctl/pkg/platform"
	"platformctl/pkg/terminal"
)

type upFlags struct {
	fix          bool
	images       string
	apiPort      int
	kubeconfig   string
	noKubeconfig bool
	timeout      time.Duration
	dryRun       bool
	out          output
}

func newUp(e *env) *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring the platform up, from wherever an earlier run left it",
		Long: `up brings everything about that the platform needs: images, the cluster, the
four releases, the API on this machine's loopback. What is there already is
left alone, so a second up has nothing to do.

It changes nothing on this machine outside its own cluster and caches, but for
one context in your kubeconfig; what the machine lacks is named with its cure.
With --fix it is mended first, as doctor --fix does it.

The first up takes the snapshot seed: snapshot restore seed is the reset.

With --dry-run it does nothing, and tells for each step what it would do, and
why: which values differ, which pods would restart, what would be refused.`,
		Args:        noArgs,
		Annotations: map[string]string{annotationRerun: "up   # goes on where it stopped"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&f.fix, "fix", false, "first mend what the machine lacks, as root")
	flags.StringVar(&f.images, "images", "auto", "`origin` of images: registry, packages or auto")
	flags.IntVar(&f.apiPort, "api-port", 0, "`port` of the API (default: the one it has, or 8080)")
	flags.Lookup("images").DefValue = "" // the text names it
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "`file` to add the context to (default: KUBECONFIG's)")
	flags.DurationVar(&f.timeout, "timeout", platform.DefaultTimeout, "how long a step may wait, images apart")
	flags.BoolVar(&f.noKubeconfig, "no-kubeconfig", false, "add the context nowhere")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only tell what would be done")
	flags.StringVarP(&f.out.format, "output", "o", "table", "`form` of what --dry-run tells: table or json")
	flags.Lookup("output").DefValue = "" // the text names it
	return cmd
}

func (f upFlags) run(ctx context.Context, e *env) error {
	origin := platform.Origin(f.images)
	switch origin {
	case platform.Auto, platform.Registry, platform.Packages:
	default:
		return fault.Usage("--images auto|registry|packages", "--images %q is none of auto, registry, packages", f.images)
	}
	if f.apiPort < 0 || f.apiPort > 65535 {
		return fault.Usage("--api-port 8081", "--api-port %d is no port: 1 to 65535", f.apiPort)
	}
	if f.timeout <= 0 {
		return fault.Usage("--timeout 5m", "--timeout %s is no time to wait", f.timeout)
	}
	if f.kubeconfig != "" && f.noKubeconfig {
		return fault.Usage("one of --kubeconfig FILE and --no-kubeconfig", "--kubeconfig and --no-kubeconfig exclude each other")
	}
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	if asJSON && !f.dryRun {
		return fault.Usage("up --dry-run -o json\nup --progress json", "-o json is for --dry-run")
	}
	set, err := e.checkout()
	if err != nil {
		return err
	}
	set.Fix, set.Images, set.APIPort = f.fix, origin, f.apiPort
	set.Kubeconfig, set.NoKubeconfig, set.Timeout = f.kubeconfig, f.noKubeconfig, f.timeout
	p, err := e.open(set)
	if err != nil {
		return err
	}
	if f.dryRun {
		return e.foresee(ctx, p, asJSON)
	}
	api, err := p.Up(ctx, e.mending())
	if err != nil {
		return err
	}
	if err := e.seed(ctx, p); err != nil {
		e.ui().Say("the snapshot seed, for a reset, was not taken: " + err.Error())
	}
	e.ui().Pause()
	_, err = fmt.Fprintf(e.Out, "The platform is up: %s\nNext: %s\n", api, e.line("order --show 1 --qty 2"))
	return err
}

// foresee prints what up would do. It ends as up would where that is to be refused.
func (e *env) foresee(ctx context.Context, p thePlatform, asJSON bool) error {
	all, err := p.Foresee(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(e.Out, all)
	} else {
		err = printForesight(e.Out, all)
	}
	if err != nil {
		return err
	}
	return platform.Refused(all)
}

// printForesight writes a line for each step that does not hold, and below it all in which it differs.
func printForesight(w io.Writer, all []platform.Foresight) error {
	var rows [][]string
	kept := 0
	for _, f := range all {
		if f.Intent == platform.Keep {
			kept++
			continue
		}
		why := f.Differs
		switch {
		case f.Until != "":
			why = append([]string{strings.TrimSuffix("until "+f.Until+" is done: "+f.Why, ": ")}, why...)
		case len(why) == 0:
			why = strings.Split(f.Why, "\n")
		}
		if len(f.Restarts) > 0 {
			why = append(slices.Clone(why), "restarts "+strings.Join(f.Restarts, ", "))
		}
		for i, line := range why {
			if i == 0 {
				rows = append(rows, []string{f.Step, string(f.Intent), line})
			} else {
				rows = append(rows, []string{"", "", line})
			}
		}
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintf(w, "nothing to do: %s already\n", plural(kept, "step"))
		return err
	}
	if err := terminal.Table(w, []string{"STEP", "WOULD", "WHY"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "and %s already\n", plural(kept, "step"))
	return err
}

// mending shows events, and of the host's steps each command as a line that stays: what is changed on the user's machine
// must be seen in every mode.
func (e *env) mending() func(plan.Event) {
	if e.mode == terminal.JSON {
		return e.ui().Event // the commands are among the events
	}
	return func(ev plan.Event) {
		switch {
		case ev.Kind != plan.Noted:
		case strings.HasPrefix(ev.Step, "host/"):
			e.ui().Say(commandLine(ev.Note.Text))
		case ev.Step == "kubeconfig":
			e.ui().Say(ev.Note.Text) // the user's own file was changed
		}
		e.ui().Event(ev)
	}
}

// commandLine shows a command as a shell would; a remark is left as it is.
func commandLine(text string) string {
	if strings.HasPrefix(text, "#") {
		return text
	}
	return "$ " + text
}
