package order

import "sync"

// Waiters are the requests that wait for an order's end. Their zero value has none.
type Waiters struct {
	mu     sync.Mutex
	orders map[int32]map[chan struct{}]struct{}
	closed bool
}

// Wait returns a channel that is closed when the order ends in this process or the service stops, and a function that must
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
