package postgres

import (
	"context"
	"time"
)

const (
	share       = 20
	longestRest = 10 * time.Second
	cheap       = 20 * time.Millisecond
)

// Rest is how long to leave the database alone after a look that took so long, least at least: who looks again and again shall not
// take more than a twentieth of the time, however large the tables are, or full of rows that a snapshot keeps alive.
func Rest(took, least time.Duration) time.Duration {
	return max(least, min(share*took, longestRest))
}

// Spared is a read that anybody may ask for, one at a time. What took long to read is told again until its Rest is over; what did not
// is always read anew.
type Spared[T any] struct {
	read func(context.Context) (T, error)
	turn chan struct{}

	value T
	until time.Time
}

// Spare makes a Spared of a read.
func Spare[T any](read func(context.Context) (T, error)) *Spared[T] {
	return &Spared[T]{read: read, turn: make(chan struct{}, 1)}
}

// Get reads, or tells what was read just now. Who gets a slice shares it.
func (s *Spared[T]) Get(ctx context.Context) (value T, err error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return value, context.Cause(ctx)
	}
	began := time.Now()
	if began.Before(s.until) {
		return s.value, nil
	}
	if value, err = s.read(ctx); err != nil {
		return value, err
	}
	if took := time.Since(began); took > cheap {
		s.value, s.until = value, time.Now().Add(Rest(took, 0))
	}
	return value, nil
}
