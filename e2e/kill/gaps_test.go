//go:build e2e

package kill

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"platformctl/e2e/lab"
	"platformctl/pkg/command"
	"platformctl/pkg/failpoint"
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
	r.limited = nil // nobody sells it out
	start := func(part string) {
		t.Helper()
		r.must(l.Start(ctx, part))
		r.must(l.Await(ctx, part))
	}
	for _, part := range []string{lab.PaymentService, lab.OrderAPI} {
		r.must(l.Compile(ctx, part, "-tags", "failpoint"))
		start(part)
	}
	stop := r.load()
	for _, gap := range failpoint.Gaps() {
		for _, part := range []string{lab.OrderAPI, lab.PaymentService} {
			r.must(l.End(ctx, part, gap))
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

// What is released knows nothing of gaps, which shows by the mark that a program with failpoints has.
func TestReleasesHaveNoFailpoints(t *testing.T) {
	project, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{lab.OrderAPI, lab.PaymentService} {
		for _, tags := range []string{"", "failpoint"} {
			program := filepath.Join(t.TempDir(), service)
			c := command.New("go", "build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags=-s -w", "-tags", tags, "-o", program, "./cmd/"+service)
			c.Dir, c.Env = project, []string{"CGO_ENABLED=0"}
			if _, err := (command.Local{}).Run(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(program)
			if err != nil {
				t.Fatal(err)
			}
			if has := bytes.Contains(raw, []byte(failpoint.Mark)); has != (tags != "") {
				t.Errorf("%s, compiled with the tags %q, has failpoints: %t", service, tags, has)
			}
		}
	}
}
