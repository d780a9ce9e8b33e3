package order

import (
	"testing"
	"time"
)

func TestWorthWaiting(t *testing.T) {
	for name, c := range map[string]struct {
		batch  time.Duration
		before int
		want   bool
	}{
		"nothing is known yet":                         {0, 300, true},
		"the first always tries":                       {time.Minute, 0, true},
		"a quick batch":                                {10 * time.Millisecond, 100, true},
		"many quick batches":                           {10 * time.Millisecond, 24 * batchLimit, true},
		"too many quick batches":                       {10 * time.Millisecond, 25 * batchLimit, false},
		"a slow batch fills up all the same":           {600 * time.Millisecond, batchLimit - 1, true},
		"behind a slow batch that is full":             {600 * time.Millisecond, batchLimit, false},
		"a batch that is tried until its deadline":     {batchDeadline, 1, false},
		"two batches within what is worth the wait":    {125 * time.Millisecond, batchLimit, true},
		"two batches beyond what is worth the waiting": {126 * time.Millisecond, batchLimit, false},
	} {
		if got := worthWaiting(c.batch, c.before); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
