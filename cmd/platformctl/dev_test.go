package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/fault"
	"platformctl/pkg/platform"
	"platformctl/pkg/watch"
)

// desk is a folder with one source, and the channels by which its deployments are seen.
type desk struct {
	*developing
	t      *testing.T
	file   string
	looked chan string             // what each look saw
	begun  chan string             // what is being deployed
	end    chan error              // how that ends; it also ends with its context
	given  chan error              // why a deployment's context ended
	shown  chan error              // errors that are not the end
	over   chan error              // run's
	stop   context.CancelCauseFunc // run's context
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	w, err := watch.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	d := &desk{
		t: t, file: filepath.Join(t.TempDir(), "main.go"), looked: make(chan string, 100), begun: make(chan string, 1), end: make(chan error),
		given: make(chan error, 1), shown: make(chan error, 1), over: make(chan error, 1),
	}
	d.developing = &developing{
		watcher: w,
		sources: func() (platform.SourceState, error) {
			content, err := os.ReadFile(d.file)
			d.looked <- string(content)
			return platform.SourceState{Hash: string(content), Folders: []string{filepath.Dir(d.file)}}, err
		},
		deploy: func(ctx context.Context) error {
			content, err := os.ReadFile(d.file)
			if err != nil {
				return err
			}
			d.begun <- string(content)
			select {
			case err := <-d.end:
				return err
			case <-ctx.Done():
				d.given <- context.Cause(ctx)
				return context.Cause(ctx)
			}
		},
		say:  func(string) {},
		fail: func(err error) { d.shown <- err },
	}
	d.save("one")
	ctx, stop := context.WithCancelCause(t.Context())
	d.stop = stop
	go func() { d.over <- d.run(ctx) }()
	t.Cleanup(func() { stop(nil) })
	return d
}

// save replaces the file as an editor does.
func (d *desk) save(text string) {
	d.t.Helper()
	if err := os.WriteFile(d.file+".new", []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(d.file+".new", d.file); err != nil {
		d.t.Fatal(err)
	}
}

// next takes what comes next from a channel.
func next[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(10 * time.Second):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

func (d *desk) deploys(want string) {
	d.t.Helper()
	if got := next(d.t, d.begun, "a deployment"); got != want {
		d.t.Fatalf("%q is deployed, want %q", got, want)
	}
}

func TestWhatIsSavedIsDeployed(t *testing.T) {
	d := newDesk(t)
	d.deploys("one") // what changed while nobody watched
	d.end <- nil
	d.save("two")
	d.deploys("two")
	d.end <- nil
	for len(d.looked) > 0 {
		<-d.looked
	}
	d.save("two")
	next(t, d.looked, "a look at what was saved as it was")
	d.save("three")
	d.deploys("three")
	d.end <- nil
	gone := errors.New("gone")
	d.stop(gone)
	if err := next(t, d.over, "the end"); !errors.Is(err, gone) {
		t.Errorf("it ended with %v", err)
	}
}

func TestADeploymentThatIsOutOfDateIsGivenUp(t *testing.T) {
	d := newDesk(t)
	d.deploys("one")
	d.save("two")
	if err := next(t, d.given, "the end of the first deployment"); !errors.Is(err, errChanged) {
		t.Errorf("it was given up for %v", err)
	}
	d.deploys("two")
	d.stop(errInterrupted)
	if err := next(t, d.over, "the end"); !errors.Is(err, errInterrupted) {
		t.Errorf("it ended with %v", err)
	}
}

func TestAFailedDeploymentIsNotTheEnd(t *testing.T) {
	d := newDesk(t)
	d.deploys("one")
	d.end <- fault.New(fault.CodeFailed, "run it again", "order-api does not compile:\nmain.go:1: what")
	if err := next(t, d.shown, "the compiler's word"); !strings.Contains(err.Error(), "main.go:1") || !strings.Contains(fault.CureOf(err), "what is saved is deployed") {
		t.Errorf("it shows %v, cure %q", err, fault.CureOf(err))
	}
	d.save("two")
	d.deploys("two")
	d.end <- fault.TimedOut("platformctl status", "not ready in time")
	if err := next(t, d.shown, "the time-out"); fault.CodeOf(err) != fault.CodeTimedOut || fault.CureOf(err) != "platformctl status" {
		t.Errorf("it shows %v, cure %q", err, fault.CureOf(err))
	}
	d.save("three")
	d.deploys("three")
	d.end <- fault.Unfit("platformctl up", "the platform is not running")
	if err := next(t, d.over, "the end"); fault.CodeOf(err) != fault.CodeUnfit {
		t.Errorf("it ended with %v", err)
	}
}

func TestDevIsRefused(t *testing.T) {
	f := &fakePlatform{err: fault.Unfit("platformctl up", "the platform is not running: cluster platform is absent")}
	if r := call(t, f, "dev", "--project", project(t)); r.code != fault.CodeUnfit || !strings.HasSuffix(r.err, "Try:   bin/platformctl up\n") || r.out != "" {
		t.Errorf("exit code %d, %s%s", r.code, r.out, r.err)
	}
}
