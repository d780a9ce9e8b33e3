package proof

import (
	"context"
	"time"
)

// pause lies between two looks while the platform comes to rest, at least.
const pause = 250 * time.Millisecond

// Verify waits for what is on its way to arrive, at most for quiet, then reads everything and judges it. say is told, once,
// what it waits for. Orders that come in meanwhile are no hindrance: only what was there at the start is waited for.
func Verify(ctx context.Context, p Platform, quiet time.Duration, say func(orders, events, messages int64)) (Report, error) {
	began := time.Now()
	first, err := p.motion(ctx, time.Time{})
	if err != nil {
		return Report{}, err
	}
	if !first.rests() {
		say(first.Orders+first.Refunds, first.Outbox, first.queues)
		if err := p.settle(ctx, first.At, quiet); err != nil {
			return Report{}, err
		}
	}
	waited := time.Since(began)
	facts, err := p.Look(ctx, first.At)
	if err != nil {
		return Report{}, err
	}
	report := Judge(facts)
	report.Waited = waited
	return report, nil
}

// settle returns when nothing that was on its way at since is so any more, or when quiet is over.
func (p Platform) settle(ctx context.Context, since time.Time, quiet time.Duration) error {
	over := time.NewTimer(quiet)
	defer over.Stop()
	again := time.NewTimer(pause)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over.C:
			return nil
		case <-again.C:
		}
		began := time.Now()
		if m, err := p.motion(ctx, since); err != nil || m.rests() {
			return err
		}
		again.Reset(max(pause, time.Since(began))) // half of the time is for what it waits for
	}
}
