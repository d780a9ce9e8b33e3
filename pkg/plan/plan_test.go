package plan_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"platformctl/pkg/plan"
)

// world is a set of states that steps bring about.
type world struct {
	states map[string]bool
	log    []string
}

func (w *world) step(name string, takes time.Duration, after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name:  name,
		After: after,
		Check: func(context.Context) (string, error) {
			if w.states[name] {
				return "", nil
			}
			return name + " is missing", nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			note(plan.Note{Text: "making " + name})
			select {
			case <-time.After(takes):
				w.states[name] = true
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
}

func (w *world) record(e plan.Event) {
	line := fmt.Sprintf("%s %s", e.Step, e.Kind)
	if e.Took > 0 {
		line += " " + e.Took.String()
	}
	w.log = append(w.log, line)
}

func TestRunOrdersAndOverlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{states: map[string]bool{"host": true}}
		host := w.step("host", 0)
		image := w.step("image", 3*time.Second, host)
		cluster := w.step("cluster", 5*time.Second, host)
		release := w.step("release", time.Second, image, cluster)
		began := time.Now()
		if err := plan.Run(t.Context(), w.record, release); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 6*time.Second {
			t.Errorf("image and cluster should have run side by side: took %s, want 6s", took)
		}
		for _, want := range []string{"host already", "image done 3s", "cluster done 5s", "release done 1s"} {
			if !slices.Contains(w.log, want) {
				t.Errorf("no event %q in %q", want, w.log)
			}
		}
		w.log = nil
		if err := plan.Run(t.Context(), w.record, release); err != nil {
			t.Fatal(err)
		}
		if joined := strings.Join(w.log, "\n"); strings.Contains(joined, "doing") {
			t.Errorf("the second run did something:\n%s", joined)
		}
	})
}

func TestRunFirstFailureStopsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{states: map[string]bool{}}
		broken := errors.New("no space left")
		bad := w.step("bad", 0)
		bad.Do = func(context.Context, func(plan.Note)) error { time.Sleep(time.Second); return broken }
		slow := w.step("slow", time.Hour)
		behind := w.step("behind", 0, bad)
		began := time.Now()
		err := plan.Run(t.Context(), w.record, slow, behind)
		var step *plan.StepError
		if !errors.As(err, &step) || step.Step != "bad" || !errors.Is(err, broken) {
			t.Fatalf("got %v, want the failure of bad", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("returned after %s, want 1s", took)
		}
		for _, want := range []string{"bad failed 1s", "slow stopped 1s", "behind skipped"} {
			if !slices.Contains(w.log, want) {
				t.Errorf("no event %q in %q", want, w.log)
			}
		}
		if slices.Contains(w.log, "behind checking") {
			t.Error("a step ran though what it waits for had failed")
		}
	})
}

func TestRunTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{states: map[string]bool{}}
		slow := w.step("slow", time.Hour)
		slow.Do = func(ctx context.Context, _ func(plan.Note)) error {
			<-ctx.Done()
			return errors.New("pod apps/x was not ready")
		}
		slow.Timeout = time.Minute
		err := plan.Run(t.Context(), w.record, slow)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "pod apps/x was not ready") {
			t.Fatalf("got %v, want a deadline error that says what was waited for", err)
		}
	})
}

func TestRunInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{states: map[string]bool{}}
		ctx, cancel := context.WithCancel(t.Context())
		stopped := false
		slow := w.step("slow", 0)
		slow.Do = func(ctx context.Context, _ func(plan.Note)) error {
			<-ctx.Done()
			time.Sleep(2 * time.Second) // joins what it started
			stopped = true
			return ctx.Err()
		}
		time.AfterFunc(time.Second, cancel)
		err := plan.Run(ctx, w.record, slow)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want context.Canceled", err)
		}
		if !stopped {
			t.Error("Run returned while a step was still at work")
		}
	})
}

func TestRunDistrustsDo(t *testing.T) {
	w := &world{states: map[string]bool{}}
	liar := w.step("liar", 0)
	liar.Do = func(context.Context, func(plan.Note)) error { return nil }
	err := plan.Run(t.Context(), w.record, liar)
	if err == nil || !strings.Contains(err.Error(), "liar is missing") {
		t.Fatalf("got %v, want an error that says what is still missing", err)
	}
}

func TestRunRefusesTwoStepsOfOneName(t *testing.T) {
	w := &world{states: map[string]bool{}}
	if err := plan.Run(t.Context(), w.record, w.step("twin", 0), w.step("twin", 0)); err == nil {
		t.Fatal("two steps of one name were accepted")
	}
}

func TestLook(t *testing.T) {
	w := &world{states: map[string]bool{"host": true}}
	host := w.step("host", 0)
	cluster := w.step("cluster", 0, host)
	namespace := w.step("namespace", 0, cluster)
	release := w.step("release", 0, namespace)
	blind := w.step("blind", 0)
	blind.Check = func(context.Context) (string, error) { return "", errors.New("cannot look") }
	findings, err := plan.Look(t.Context(), release, blind)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range findings {
		got = append(got, fmt.Sprintf("%s holds=%v why=%q until=%q err=%v", f.Step, f.Holds(), f.Why, f.Until, f.Err))
	}
	want := []string{
		`host holds=true why="" until="" err=<nil>`,
		`cluster holds=false why="cluster is missing" until="" err=<nil>`,
		`namespace holds=false why="" until="cluster" err=<nil>`,
		`release holds=false why="" until="cluster" err=<nil>`,
		`blind holds=false why="" until="" err=cannot look`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRunSurvivesAPanic(t *testing.T) {
	w := &world{states: map[string]bool{}}
	bad := w.step("bad", 0)
	bad.Do = func(context.Context, func(plan.Note)) error { panic("no such map") }
	err := plan.Run(t.Context(), w.record, bad)
	if err == nil || !strings.Contains(err.Error(), "no such map") || !strings.Contains(err.Error(), "plan_test.go") {
		t.Fatalf("got %v, want the panic and where it came from", err)
	}
}
