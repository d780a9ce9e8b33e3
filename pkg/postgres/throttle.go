package postgres

import (
	"context"
	"time"
)

const (
	share        = 20                    // of the time, one part in so many is for looking
	longestPause = 10 * time.Second      // between looks, however long they take
	cheap        = 50 * time.Millisecond // what a read may take and be done for everybody anew
)

// Pauses are those of somebody who looks at the database again and again, and takes a twentieth of the time, up to looks of half a
// second: these come with tables that are large, or full of rows that a snapshot keeps. One look alone may have waited for something
// else, so the quicker one of the last two counts.
type Pauses struct{ last time.Duration }

// After is how long to leave the database alone after a look that took so long, at least least.
func (p *Pauses) After(took, least time.Duration) time.Duration {
	cost := min(p.last, took)
	p.last = took
	return max(least, min(share*cost, longestPause))
}

// Throttled is a read that anybody may ask for; one is done at a time, for all who wait. Results that are not cheap to get are told
// again for a while.
type Throttled[T any] struct {
	read func(context.Context) (T, error)
	turn chan struct{} // held by who reads

	pauses Pauses
	value  T
	began  time.Time // when it was asked for
	until  time.Time // it is told again
}

// Throttle makes a Throttled of a read.
func Throttle[T any](read func(context.Context) (T, error)) *Throttled[T] {
	return &Throttled[T]{read: read, turn: make(chan struct{}, 1)}
}

// Get reads, or tells what was read for another who came later, or just now. The value is shared by all who get it.
func (t *Throttled[T]) Get(ctx context.Context) (value T, err error) {
	came := time.Now()
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return value, context.Cause(ctx)
	}
	began := time.Now()
	if t.began.After(came) || began.Before(t.until) {
		return t.value, nil
	}
	if value, err = t.read(ctx); err != nil {
		return value, err
	}
	t.value, t.began, t.until = value, began, time.Time{}
	if pause := t.pauses.After(time.Since(began), 0); pause > share*cheap {
		t.until = time.Now().Add(pause)
	}
	return value, nil
}
