//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"platformctl/pkg/command"
)

const (
	// patience is what one command may take that makes nothing.
	patience = 2 * time.Minute
	// again is the pause between two looks at a condition.
	again = 200 * time.Millisecond
	// shown is how much of a command's output a failure shows.
	shown = 8 << 10
)

// scenario is a story that is told in steps. A step is a sentence of behaviour; the commands of one that fails are shown.
type scenario struct {
	*world
	t    *testing.T
	runs *[]*run
}

// tell tells one scenario; when it failed, the cluster's evidence is shown.
func (w *world) tell(t *testing.T, story func(*scenario)) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the evidence:\n%s", w.evidence())
		}
	})
	story(&scenario{world: w, t: t, runs: &[]*run{}})
}

// step is one sentence; the scenario ends where it does not hold.
func (s *scenario) step(sentence string, do func(*scenario)) {
	s.t.Helper()
	if !s.check(sentence, do) {
		s.t.FailNow()
	}
}

// check is one sentence; the scenario goes on where it does not hold.
func (s *scenario) check(sentence string, do func(*scenario)) bool {
	s.t.Helper()
	return s.t.Run(sentence, func(t *testing.T) {
		if s.ctx.Err() != nil {
			t.Fatal(context.Cause(s.ctx))
		}
		runs := &[]*run{}
		t.Cleanup(func() {
			if t.Failed() {
				for _, r := range *runs {
					t.Log(r)
				}
			}
		})
		do(&scenario{world: s.world, t: t, runs: runs})
	})
}

// run is a command that has ended.
type run struct {
	t      *testing.T
	line   string
	stdout string
	both   string // the two streams as they came
	code   int
	took   time.Duration
	data   bool // its output is for programs
}

func (r *run) String() string {
	text := r.both
	if cut := len(text) - shown; cut > 0 {
		text = "…" + text[cut:]
	}
	if r.data && r.code == 0 && len(text) > shown/16 {
		text = text[:shown/16] + "…"
	}
	return fmt.Sprintf("$ %s\n%s\n(exit code %d after %s)", r.line, strings.TrimRight(text, "\n"), r.code, r.took.Round(time.Millisecond))
}

// both collects two streams.
type both struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *both) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *both) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// exec runs a command in the checkout, as the user of this world.
func (s *scenario) exec(ctx context.Context, c command.Command) *run {
	s.t.Helper()
	if c.Dir == "" {
		c.Dir = s.checkout
	}
	line := c.String()
	c.Env = append(append([]string(nil), s.env...), c.Env...)
	out := &both{}
	c.Stdout, c.Stderr = out, out
	began := time.Now()
	stdout, err := s.runner.Run(ctx, c)
	r := &run{t: s.t, line: line, stdout: string(stdout), both: out.String(), took: time.Since(began)}
	if err != nil {
		r.code = command.ExitCode(err)
		var failed *command.Error
		if r.code < 0 && errors.As(err, &failed) {
			r.both += fmt.Sprintf("\n(it did not end by itself: %v)", failed.Err)
		}
	}
	*s.runs = append(*s.runs, r)
	return r
}

// types runs a line as a shell takes it, with further variables of the environment.
func (s *scenario) types(line string, env ...string) *run {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	r := s.exec(ctx, command.Command{Name: "sh", Args: []string{"-c", line}, Env: env})
	r.line = strings.TrimSpace(strings.Join(env, " ") + " " + line)
	return r
}

// platformctl runs the product; only up may take longer than a command that makes nothing.
func (s *scenario) platformctl(args ...string) *run {
	s.t.Helper()
	ctx := s.ctx
	if args[0] != "up" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	return s.exec(ctx, command.New(binary, args...))
}

func (s *scenario) kubectl(args ...string) *run {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	return s.exec(ctx, command.New("kubectl", args...))
}

// ends fails unless the command ended with the code.
func (r *run) ends(code int) *run {
	r.t.Helper()
	if r.code != code {
		r.t.Fatalf("the exit code is %d, want %d: %s", r.code, code, r.line)
	}
	return r
}

// says fails unless the command printed each of the texts, on whichever stream.
func (r *run) says(texts ...string) *run {
	r.t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.both, text) {
			r.t.Errorf("it does not say %q: %s", text, r.line)
		}
	}
	return r
}

// never fails if the command printed one of the texts.
func (r *run) never(texts ...string) *run {
	r.t.Helper()
	for _, text := range texts {
		if strings.Contains(r.both, text) {
			r.t.Errorf("it says %q: %s", text, r.line)
		}
	}
	return r
}

// within fails if the command took longer.
func (r *run) within(limit time.Duration) *run {
	r.t.Helper()
	if r.took > limit {
		r.t.Errorf("it took %s, want at most %s: %s", r.took.Round(time.Millisecond), limit, r.line)
	}
	return r
}

// decodes reads standard output as JSON.
func (r *run) decodes(into any) *run {
	r.t.Helper()
	r.data = true
	if err := json.Unmarshal([]byte(r.stdout), into); err != nil {
		r.t.Fatalf("its output is no JSON (%v): %s", err, r.line)
	}
	return r
}

// until looks at a condition again and again. look returns what is amiss, "" when nothing is.
func (s *scenario) until(within time.Duration, look func() (amiss string)) {
	s.t.Helper()
	ctx, cancel := context.WithTimeoutCause(s.ctx, within, fmt.Errorf("%s have passed", within))
	defer cancel()
	ticker := time.NewTicker(again)
	defer ticker.Stop()
	kept := len(*s.runs)
	for {
		*s.runs = (*s.runs)[:kept] // of the looks, a failure shows the last
		amiss := look()
		if amiss == "" {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			s.t.Fatalf("waited in vain (%v): %s", context.Cause(ctx), amiss)
		}
	}
}

// process is a command at work.
type process struct {
	pid  int
	said *both
	done chan *run
}

// starts begins a command and returns when it has a process, which leads a group of its own.
func (s *scenario) starts(name string, args ...string) *process {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(s.ctx)
	p := &process{said: &both{}, done: make(chan *run, 1)}
	c := command.Command{
		Name: "sh", Args: append([]string{"-c", `echo $$ >"$0.new" && mv "$0.new" "$0" && exec "$@"`, file, name}, args...),
		Dir: s.checkout, Env: s.env, Stdout: p.said, Stderr: p.said,
	}
	began := time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stdout, err := s.runner.Run(ctx, c)
		r := &run{t: s.t, line: command.New(name, args...).String(), stdout: string(stdout), both: p.said.String(), took: time.Since(began)}
		if err != nil {
			r.code = command.ExitCode(err)
		}
		p.done <- r
	}()
	s.t.Cleanup(func() {
		cancel()
		<-ended
	})
	s.until(10*time.Second, func() string {
		raw, err := os.ReadFile(file)
		if err != nil {
			return err.Error()
		}
		if p.pid, err = strconv.Atoi(strings.TrimSpace(string(raw))); err != nil {
			return err.Error()
		}
		return ""
	})
	return p
}

// interrupt is Ctrl-C: a terminal sends it to the whole group.
func (s *scenario) interrupt(p *process) {
	s.t.Helper()
	if err := syscall.Kill(-p.pid, syscall.SIGINT); err != nil {
		s.t.Fatalf("interrupt process %d: %v", p.pid, err)
	}
}

// awaits returns the command when it has ended.
func (s *scenario) awaits(p *process, within time.Duration) *run {
	s.t.Helper()
	ctx, cancel := context.WithTimeoutCause(s.ctx, within, fmt.Errorf("%s have passed", within))
	defer cancel()
	select {
	case r := <-p.done:
		*s.runs = append(*s.runs, r)
		return r
	case <-ctx.Done():
		s.t.Fatalf("process %d has not ended (%v); it said:\n%s", p.pid, context.Cause(ctx), p.said)
		return nil
	}
}
