package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/platform"
	"platformctl/pkg/terminal"
	"platformctl/pkg/watch"
)

func newDev(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "dev [SERVICE...]",
		Short: "Deploy what is saved, again and again, and show the logs",
		Long: `dev deploys the services that are named, or both, and then whatever is saved:
the Go code that they are made of, their charts and values, the ConfigMaps. It
shows what their pods say, each line with its pod, from a pod's first line on.
What changed while it did not run is deployed when it begins.

Code that does not compile is shown and changes nothing; nor does a file that
is saved as it was. Ctrl-C ends it with exit code 130, and what runs goes on.`,
		Example: "  platformctl dev\n  platformctl dev payment",
		RunE:    func(cmd *cobra.Command, args []string) error { return runDev(cmd.Context(), e, args) },

		ValidArgsFunction: oursNext,
	}
}

func runDev(ctx context.Context, e *env, args []string) (err error) {
	services, err := platform.FindOurs(args...)
	if err != nil {
		return err
	}
	set, err := e.checkout()
	if err != nil {
		return err
	}
	p, err := e.open(set)
	if err != nil {
		return err
	}
	client, err := p.Kube(ctx)
	if err != nil {
		return err
	}
	watcher, err := watch.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watcher.Close()) }()
	out := &wholeLines{put: e.beside()}
	d := &developing{
		watcher: watcher,
		sources: func() (platform.SourceState, error) { return p.Sources(services) },
		deploy: func(ctx context.Context) error {
			done, err := p.Deploy(ctx, services, e.ui().Event)
			e.ui().Pause()
			if err != nil {
				return err
			}
			return printDeployed(out, done)
		},
		say:  e.ui().Say,
		fail: e.goOn,
	}
	request := kube.LogRequest{Follow: true, Tail: 0, Pods: true}
	for _, s := range services {
		request.Workloads = append(request.Workloads, kube.Workload{Kind: s.Kind, Namespace: s.Namespace, Name: s.Workload})
	}
	all, both := errgroup.WithContext(ctx)
	// Before anything is deployed: the new pod's first line is the one that matters.
	all.Go(func() error { return client.Logs(both, request, out, e.ui().Say) })
	all.Go(func() error { return d.run(both) })
	err = all.Wait()
	if errors.Is(context.Cause(ctx), errInterrupted) {
		return exit(fault.CodeInterrupted) // the usual end
	}
	return err
}

// goOn shows an error after which the command goes on.
func (e *env) goOn(err error) {
	if e.mode == terminal.JSON {
		e.ui().Say(err.Error()) // an error ends the stream; this one stands in the event of its step, with its cure
		return
	}
	e.ui().Error(e.toPaste(err))
}

// beside is where a line goes that comes while progress may be shown: among the progress where both are on a terminal, which
// is redrawn there, else to standard output.
func (e *env) beside() func(string) error {
	if terminal.On(e.Err, e.Getenv).Resolve(e.mode) == terminal.TTY && terminal.IsTerminal(e.Out) {
		return func(line string) error { e.ui().Say(line); return nil }
	}
	return func(line string) error {
		_, err := io.WriteString(e.Out, line+"\n")
		return err
	}
}

// wholeLines hands on each line that is written to it, one at a time.
type wholeLines struct {
	mu  sync.Mutex
	put func(string) error
}

// Write implements io.Writer for who writes whole lines.
func (w *wholeLines) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		if err := w.put(strings.TrimRight(line, "\n")); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// errChanged ends a deployment whose sources have changed meanwhile.
var errChanged = errors.New("the sources have changed")

// developing deploys what there is, and again when it has become something else.
type developing struct {
	watcher *watch.Watcher
	sources func() (platform.SourceState, error)
	deploy  func(context.Context) error
	say     func(string)
	fail    func(error) // shows an error that is not the end
}

// run deploys and watches until ctx ends or the platform is gone. A deployment whose sources change is given up for the next.
func (d *developing) run(ctx context.Context) error {
	deployed := "" // what was deployed last, or tried
	for {
		state, err := d.look()
		switch {
		case fault.CodeOf(err) == fault.CodeUnfit:
		case err != nil:
			d.fail(err) // a file that cannot be read now may be the next time
			err = d.watcher.Next(ctx)
		case state == deployed:
			err = d.watcher.Next(ctx)
		default:
			deployed = state
			err = d.once(ctx, state)
		}
		if err != nil {
			return err
		}
	}
}

// look is the state of the sources, which are watched from before it was looked at.
func (d *developing) look() (string, error) {
	for watched := ""; ; {
		state, err := d.sources()
		if err != nil {
			return "", err
		}
		folders := strings.Join(state.Folders, "\n")
		if folders == watched {
			return state.Hash, nil
		}
		// What was saved in a new folder before it was watched is seen by looking again.
		if err := d.watcher.Folders(state.Folders); err != nil {
			return "", err
		}
		watched = folders
	}
}

// once deploys until it is done, or the sources are another state. Its error is what ends all.
func (d *developing) once(ctx context.Context, state string) error {
	working, give := context.WithCancelCause(ctx)
	defer give(nil)
	var changed error
	var watching sync.WaitGroup
	watched, stop := context.WithCancel(ctx)
	defer stop()
	watching.Go(func() {
		if changed = d.changes(watched, state); changed != nil {
			give(changed)
		}
	})
	err := d.deploy(working)
	stop()
	watching.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(changed, errChanged) && err != nil:
		d.say("saved meanwhile: beginning anew")
		return nil
	case changed != nil && !errors.Is(changed, errChanged) && !errors.Is(changed, context.Canceled):
		return changed
	case fault.CodeOf(err) == fault.CodeUnfit:
		return err
	case err != nil:
		d.fail(inDev(err))
	}
	return nil
}

// changes returns errChanged when the sources are in another state, or the watcher's error.
func (d *developing) changes(ctx context.Context, state string) error {
	for {
		if err := d.watcher.Next(ctx); err != nil {
			return err
		}
		if now, err := d.look(); err != nil || now != state {
			return errChanged // what is wrong is told when it is looked at again
		}
	}
}

// inDev is a deployment's error with the cure for somebody who need not type anything.
func inDev(err error) error {
	if fault.CodeOf(err) != fault.CodeFailed {
		return err
	}
	return fault.New(fault.CodeFailed, "mend it: what is saved is deployed; what ran before goes on running", "%w", err)
}
