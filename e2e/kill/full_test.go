//go:build e2e

package kill

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"platformctl/e2e/lab"
	"platformctl/pkg/command"
)

const fullPort = 27460 // the first of the lab's

// PostgreSQL's disk is full for a while, to its last byte, and it may even end by that. When there is space again orders are accepted
// and end, and none of those before is lost.
func TestKilledByAFullDisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), wholeTest)
	defer cancel()
	project, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	const part = lab.PostgreSQL
	l, err := lab.New(ctx, command.Local{}, lab.Settings{Name: "full", Project: project, Port: fullPort, Disk: "256m"})
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
	for _, service := range []string{lab.PaymentService, lab.OrderAPI} {
		r.start(service)
	}
	stop := r.load()
	for range 3 {
		filled := time.Now()
		r.must(l.Fill(ctx))
		r.await("an answer that is no order", func() bool { return l.Ended(ctx, part) != nil || r.client.unavailable(filled) })
		if said := l.Said(ctx, part); !strings.Contains(said, "No space left on device") {
			t.Errorf("it says %s", said)
		}
		r.must(l.Free(ctx))
		freed := time.Now()
		if l.Ended(ctx, part) != nil {
			r.must(l.Start(ctx, part))
		}
		var order int64
		r.await("an order that is accepted", func() bool {
			_, order, _ = r.client.since(freed)
			return order != 0
		})
		r.must(r.client.ended(ctx, order))
		t.Logf("there was space again; the next order ended after %s", time.Since(freed).Round(time.Millisecond))
	}
	stop()
	r.rest()
	r.askAgain()
	r.rest()
	if found := r.judged(); len(found) > 0 {
		t.Error(found)
	}
}

func (r *run) await(what string, holds func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, bound)
	defer cancel()
	for !holds() {
		if !pause(ctx, 20*time.Millisecond) {
			r.t.Fatalf("%s did not come in %s", what, bound)
		}
	}
}

// unavailable tells whether somebody was told after a time to come back later.
func (c *client) unavailable(from time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.all {
		if n := len(a.Answers); n > 0 && a.Answers[n-1].Status == 503 && a.Answers[n-1].At.After(from) {
			return true
		}
	}
	return false
}
