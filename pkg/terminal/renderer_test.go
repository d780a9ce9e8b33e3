package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"platformctl/pkg/fault"
	"platformctl/pkg/plan"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", path, diff)
	}
}

// works is a Do that takes a time and says things at times.
func works(took time.Duration, said map[time.Duration]plan.Note) func(context.Context, func(plan.Note)) error {
	return func(ctx context.Context, note func(plan.Note)) error {
		time.Sleep(37 * time.Millisecond) // virtual, so that nothing happens in the very instant of a drawing
		for at := time.Duration(0); at < took; at += 100 * time.Millisecond {
			if n, ok := said[at]; ok {
				note(n)
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	}
}

// once is a Check that does not hold the first time.
func once(why string) func(context.Context) (string, error) {
	looked := false
	return func(context.Context) (string, error) {
		if looked {
			return "", nil
		}
		looked = true
		return why, nil
	}
}

func holds(context.Context) (string, error) { return "", nil }

// up is a run as users know it, made of steps that only take time. With fail one of them does not come about.
func up(fail bool) []*plan.Step {
	host := &plan.Step{Name: "host/engine", Check: holds}
	disk := &plan.Step{Name: "host/disk", Check: holds}
	node := &plan.Step{Name: "image/node", After: []*plan.Step{host, disk}, Check: holds}
	cluster := &plan.Step{
		Name: "cluster", After: []*plan.Step{node}, Check: once(`no cluster is called "platform"`),
		Do: works(11*time.Second, map[time.Duration]plan.Note{
			0:               {Text: "creating the node's container"},
			2 * time.Second: {Text: "kubeadm init"},
			7 * time.Second: {Text: "waiting for", Object: "node platform-control-plane", Reason: "KubeletNotReady", Message: "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"},
		}),
	}
	build := &plan.Step{
		Name: "image/order-api", Check: once("the source has changed"),
		Do: works(3*time.Second, map[time.Duration]plan.Note{
			0:               {Text: "go build"},
			2 * time.Second: {Text: "compressing", Current: 1 << 20, Total: 30 << 20},
		}),
	}
	rabbit := &plan.Step{
		Name: "release/rabbitmq", After: []*plan.Step{cluster}, Check: once("not installed"),
		Do: works(26*time.Second, map[time.Duration]plan.Note{
			0:                {Text: "waiting for", Object: "pod messaging/rabbitmq-0", Reason: "Pending", Message: "0/1 nodes are available: 1 node(s) had untolerated taint"},
			3 * time.Second:  {Text: "waiting for", Object: "pod messaging/rabbitmq-0", Reason: "ContainerCreating"},
			22 * time.Second: {Text: "waiting for", Object: "pod messaging/rabbitmq-0", Reason: "NotReady", Message: "Readiness probe failed: dial tcp 10.244.0.7:5672: connect: connection refused\x1b[2J"},
		}),
	}
	order := &plan.Step{
		Name: "release/order-api", After: []*plan.Step{cluster, build}, Check: once("not installed"),
		Do: works(5*time.Second, nil),
	}
	if fail {
		order.Do = func(ctx context.Context, note func(plan.Note)) error {
			if err := works(5*time.Second, nil)(ctx, note); err != nil {
				return err
			}
			return fault.TimedOut("platformctl logs order\nplatformctl status", "the release order-api did not come up: %w",
				errors.New("kubectl apply: exit status 1\nerror validating data: unknown field \"spec.replica\"\n\tin Deployment"))
		}
	}
	api := &plan.Step{Name: "api", After: []*plan.Step{order, rabbit}, Check: holds}
	return []*plan.Step{api}
}

func surroundings(s *screen, colour bool, extra map[string]string) Surroundings {
	env := map[string]string{"TERM": "xterm-256color", "LANG": "C.UTF-8"}
	if !colour {
		env["NO_COLOR"] = "1"
	}
	for k, v := range extra {
		env[k] = v
	}
	return Surroundings{Terminal: true, Size: s.size, Getenv: func(name string) string { return env[name] }}
}

// record runs a plan in virtual time and returns what the screen shows at the moments and at the end.
func record(t *testing.T, s *screen, mode Mode, around Surroundings, styles, fail bool, moments ...time.Duration) string {
	var b strings.Builder
	synctest.Test(t, func(t *testing.T) {
		r := New(s, mode, around)
		began := time.Now()
		ended := make(chan error)
		go func() { ended <- plan.Run(t.Context(), r.Event, up(fail)...) }()
		for _, at := range moments {
			time.Sleep(time.Until(began.Add(at + 50*time.Millisecond)))
			synctest.Wait()
			fmt.Fprintf(&b, "--- after %s\n%s", at, s.text(styles))
		}
		err := <-ended
		if fail != (err != nil) {
			t.Errorf("the run ended with %v", err)
		}
		r.Say("the context kind-platform was added to your kubeconfig")
		if err != nil {
			r.Error(err)
		}
		r.Close()
		fmt.Fprintf(&b, "--- at the end\n%s", s.text(styles))
	})
	if s.hidden || s.frame || !s.wraps {
		t.Errorf("the terminal is left changed: cursor hidden %v, in a frame %v, wraps %v", s.hidden, s.frame, s.wraps)
	}
	if s.wrapped > 0 || s.halfFrames > 0 {
		t.Errorf("%d characters too many in lines, %d frames in several writes", s.wrapped, s.halfFrames)
	}
	return b.String()
}

func TestLooks(t *testing.T) {
	for _, mode := range []Mode{TTY, Plain} {
		for _, columns := range []int{80, 120} {
			for _, colour := range []bool{true, false} {
				for _, fail := range []bool{true, false} {
					name := fmt.Sprintf("%s-%d", mode, columns)
					if colour {
						name += "-colour"
					}
					if fail {
						name += "-failed"
					}
					t.Run(name, func(t *testing.T) {
						s := newScreen(t, columns, 30)
						moments := []time.Duration{1 * time.Second, 9 * time.Second, 14 * time.Second}
						if !fail {
							moments = append(moments, 34*time.Second)
						}
						if mode == Plain {
							s.columns, moments = 10000, nil // lines of a log are as long as they are
							around := surroundings(s, colour, map[string]string{"COLUMNS": fmt.Sprint(columns)})
							golden(t, name+".golden", record(t, s, mode, around, colour, fail))
							return
						}
						golden(t, name+".golden", record(t, s, mode, surroundings(s, colour, nil), colour, fail, moments...))
					})
				}
			}
		}
	}
}

func TestASCII(t *testing.T) {
	s := newScreen(t, 80, 30)
	text := record(t, s, TTY, surroundings(s, false, map[string]string{"LANG": "C"}), false, false, 9*time.Second)
	golden(t, "ascii.golden", text)
	for _, r := range text {
		if r > 126 {
			t.Fatalf("%q in a locale that has ASCII only", r)
		}
	}
}

func TestRedrawsAtMostTenTimesASecond(t *testing.T) {
	s := newScreen(t, 80, 30)
	synctest.Test(t, func(t *testing.T) {
		r := New(s, TTY, surroundings(s, true, nil))
		r.Event(plan.Event{Time: time.Now(), Step: "a", Kind: plan.Planned})
		r.Event(plan.Event{Time: time.Now(), Step: "a", Kind: plan.Checking})
		r.Event(plan.Event{Time: time.Now(), Step: "a", Kind: plan.Doing})
		for range 3000 {
			time.Sleep(time.Millisecond)
			r.Event(plan.Event{Time: time.Now(), Step: "a", Kind: plan.Noted, Note: plan.Note{Text: time.Now().String()}})
		}
		r.Close()
	})
	if s.writes < 20 || s.writes > 31 {
		t.Errorf("%d writes in 3 seconds", s.writes)
	}
}

// What stands above the running lines must survive any change of width, and below nothing may be left behind.
func TestWidthChanges(t *testing.T) {
	s := newScreen(t, 120, 40)
	synctest.Test(t, func(t *testing.T) {
		if _, err := s.Write([]byte("$ platformctl up\n")); err != nil {
			t.Fatal(err)
		}
		r := New(s, TTY, surroundings(s, false, nil))
		ended := make(chan error)
		go func() { ended <- plan.Run(t.Context(), r.Event, up(false)...) }()
		for i, columns := range []int{100, 61, 33, 90, 20, 120, 44, 81, 80, 79, 40, 120} {
			// Between two frames, as it happens.
			time.Sleep(1730 * time.Millisecond)
			synctest.Wait()
			s.resize(columns)
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			text := s.text(false)
			for word, want := range map[string]int{"$ platformctl up": 1, " of 8 steps,": 1, "host (2)": 1} {
				if got := strings.Count(strings.ReplaceAll(text, "\n", ""), word); got != want {
					t.Fatalf("change %d, to %d columns: %q stands there %d times:\n%s", i, columns, word, got, text)
				}
			}
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
		r.Close()
	})
	text := strings.ReplaceAll(s.text(false), "\n", "")
	for _, step := range []string{"host (2)", "image/node", "cluster ", "image/order-api", "release/rabbitmq", "release/order-api", "api "} {
		if !strings.Contains(text, "✓ "+step) {
			t.Errorf("%q is not on the screen at the end:\n%s", step, s.text(false))
		}
	}
	if strings.Contains(text, "of 8 steps") {
		t.Errorf("the running lines were left behind:\n%s", s.text(false))
	}
}

func TestLowScreen(t *testing.T) {
	s := newScreen(t, 80, 5)
	synctest.Test(t, func(t *testing.T) {
		r := New(s, TTY, surroundings(s, false, nil))
		for _, kind := range []plan.Kind{plan.Planned, plan.Checking, plan.Doing} {
			for i := range 12 {
				r.Event(plan.Event{Time: time.Now(), Step: fmt.Sprintf("step/%d", i), Kind: kind})
			}
		}
		time.Sleep(time.Second)
		for i := range 12 {
			r.Event(plan.Event{Time: time.Now(), Step: fmt.Sprintf("step/%d", i), Kind: plan.Done})
			time.Sleep(150 * time.Millisecond)
		}
		r.Close()
	})
	text := s.text(false)
	for i := range 12 {
		if n := strings.Count(text, fmt.Sprintf("step/%d ", i)); n != 1 {
			t.Errorf("step/%d stands there %d times:\n%s", i, n, text)
		}
	}
}

func TestPauseGivesTheScreenAway(t *testing.T) {
	s := newScreen(t, 80, 30)
	synctest.Test(t, func(t *testing.T) {
		r := New(s, TTY, surroundings(s, false, nil))
		r.Event(plan.Event{Time: time.Now(), Step: "a", Kind: plan.Planned})
		r.Event(plan.Event{Time: time.Now(), Step: "a", Kind: plan.Checking})
		r.Event(plan.Event{Time: time.Now(), Step: "a", Kind: plan.Doing})
		time.Sleep(time.Second)
		synctest.Wait()
		if !s.hidden {
			t.Error("the cursor is to be hidden while lines are redrawn")
		}
		r.Pause()
		if s.hidden {
			t.Error("the cursor is still hidden")
		}
		writes := s.writes
		time.Sleep(time.Second)
		if s.writes != writes {
			t.Error("it writes on")
		}
		r.Close()
		r.Close()
		r.Event(plan.Event{Time: time.Now(), Step: "a", Kind: plan.Done})
		r.Say("bye")
	})
	if !strings.HasSuffix(s.text(false), "\nbye\n") {
		t.Errorf("not said at the end:\n%s", s.text(false))
	}
}

func TestJSONLines(t *testing.T) {
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		r := New(&out, JSON, Surroundings{})
		err := plan.Run(t.Context(), r.Event, up(true)...)
		r.Say("a word")
		r.Error(err)
		r.Close()
	})
	var kinds []string
	for text := range strings.Lines(out.String()) {
		var l plan.Line
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if l.Version != 1 || l.Time.IsZero() {
			t.Errorf("no version or time: %s", text)
		}
		if l.Step == "release/order-api" || l.Step == "" {
			kinds = append(kinds, l.Event)
		}
		if l.Event == "error" && (*l.Code != fault.CodeTimedOut || l.Cure == "" || !strings.Contains(l.Error, "replica")) {
			t.Errorf("the error is not whole: %s", text)
		}
		if l.Event == "done" && l.TookMS == nil {
			t.Errorf("no time: %s", text)
		}
	}
	want := []string{"planned", "checking", "doing", "failed", "message", "error"}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestQuietShowsErrorsOnly(t *testing.T) {
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		r := New(&out, Quiet, Surroundings{})
		err := plan.Run(t.Context(), r.Event, up(true)...)
		r.Say("a word")
		if out.Len() > 0 {
			t.Errorf("it said %q", &out)
		}
		r.Error(err)
		r.Close()
	})
	golden(t, "error.golden", out.String())
}
