package order

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// Waiters are the requests that wait for an order's end. Their zero value has none.
type Waiters struct {
	mu     sync.Mutex
	orders map[int32]map[chan struct{}]struct{}
	closed bool
}

// Wait returns a channel that is closed when the order ends or the service stops, and a function that must
// be called when nobody looks at the channel any more.
func (w *Waiters) Wait(order int32) (ended <-chan struct{}, leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(chan struct{})
	if w.closed {
		close(c)
		return c, func() {}
	}
	if w.orders == nil {
		w.orders = map[int32]map[chan struct{}]struct{}{}
	}
	if w.orders[order] == nil {
		w.orders[order] = map[chan struct{}]struct{}{}
	}
	w.orders[order][c] = struct{}{}
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if all := w.orders[order]; all != nil {
			if delete(all, c); len(all) == 0 {
				delete(w.orders, order)
			}
		}
	}
}

// Ended wakes those who wait for one of the orders.
func (w *Waiters) Ended(orders []int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range orders {
		for c := range w.orders[id] {
			close(c)
		}
		delete(w.orders, id)
	}
}

const (
	watchPause = 250 * time.Millisecond
	watchShare = 10 // a look takes at most this part of the time, however many wait
	watchMost  = 2 * time.Second
)

// Watch wakes, until ctx ends, those whose orders another replica has ended. One statement asks for all: thousands who wait while
// payments are away take no session from those who write.
func (w *Waiters) Watch(ctx context.Context, store *Store, log *slog.Logger) error {
	timer := time.NewTimer(watchPause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		began := time.Now()
		if orders := w.waitedFor(); len(orders) > 0 {
			ended, err := store.Ended(ctx, orders)
			if err != nil && ctx.Err() == nil { // who waits is told when the time is over
				log.DebugContext(ctx, "nobody knows whether other replicas have ended orders", "error", err.Error())
			}
			w.Ended(ended)
		}
		timer.Reset(min(max(watchPause, watchShare*time.Since(began)), watchMost))
	}
}

func (w *Waiters) waitedFor() []int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.orders))
}

// Close wakes all, now and ever after.
func (w *Waiters) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, all := range w.orders {
		for c := range all {
			close(c)
		}
	}
	w.orders = nil
}
