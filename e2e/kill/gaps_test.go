//go:build e2e

package kill

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"platformctl/e2e/lab"
	"platformctl/pkg/command"
)

const gapsPort = 27440 // the first of the lab's

// A kill at a random moment seldom falls into a gap of microseconds. Here the services end in each of them by themselves.
func TestKilledInEveryGap(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), wholeTest)
	defer cancel()
	project, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(ctx, command.Local{}, lab.Settings{Name: "gaps", Project: project, Port: gapsPort})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	r := &run{t: t, ctx: ctx, lab: l, client: newClient(l.Address(lab.OrderAPI)), limited: map[int64]int64{}}
	r.makeShows([]blow{{capacity: 2000}})
	r.hot.Store(r.shows[0])
	r.limited = nil             // nobody sells it out
	gaps := map[string]string{} // each service's folder of what it is asked for
	start := func(part string) {
		t.Helper()
		r.must(l.Start(ctx, part, "FAILPOINTS="+gaps[part]))
		r.must(l.Await(ctx, part))
	}
	for _, part := range []string{lab.PaymentService, lab.OrderAPI} {
		gaps[part] = t.TempDir()
		r.must(l.Compile(ctx, part, "-tags", "failpoint"))
		start(part)
	}
	stop := r.load()
	for _, gap := range []string{"committed", "published", "effect"} {
		for _, part := range []string{lab.OrderAPI, lab.PaymentService} {
			r.must(os.WriteFile(filepath.Join(gaps[part], gap), nil, 0o600))
			r.must(l.Gone(ctx, part))
			start(part)
			t.Logf("%s ended in the gap %q", part, gap)
		}
	}
	stop()
	r.rest()
	r.askAgain()
	r.rest()
	if found := r.judged(); len(found) > 0 {
		t.Error(found)
	}
}

// What is released knows nothing of gaps.
func TestReleasesHaveNoFailpoints(t *testing.T) {
	project, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{lab.OrderAPI, lab.PaymentService} {
		program := filepath.Join(t.TempDir(), service)
		c := command.New("go", "build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags=-s -w", "-o", program, "./cmd/"+service)
		c.Dir, c.Env = project, []string{"CGO_ENABLED=0"}
		if _, err := (command.Local{}).Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "FAILPOINTS") {
			t.Errorf("%s asks for failpoints", service)
		}
	}
}
