package rabbit

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"time"
)

// coalesced is a connection whose writes return at once and go out together. The library writes once a publish; here, what is
// published while one write is on its way goes out with the next. There is no timer. An error comes with a later Write.
type coalesced struct {
	net.Conn

	mu      sync.Mutex
	work    sync.Cond // pending or closed has changed
	space   sync.Cond // pending has become shorter, or err or closed has changed
	pending []byte
	err     error
	closed  bool
	done    chan struct{} // closed when nothing is written any more
}

// pendingLimit is where Write waits: the server is slower than we are.
const pendingLimit = 256 << 10

// lastWrite is what Close gives a write that is on its way.
const lastWrite = time.Second

func coalesce(c net.Conn) net.Conn {
	w := &coalesced{Conn: c, done: make(chan struct{})}
	w.work.L, w.space.L = &w.mu, &w.mu
	go w.flush()
	return w
}

// Write takes b over.
func (w *coalesced) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) >= pendingLimit && w.err == nil && !w.closed {
		w.space.Wait()
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case w.closed:
		return 0, net.ErrClosed
	}
	w.pending = append(w.pending, b...)
	w.work.Signal()
	return len(b), nil
}

// Close ends the connection. What was written goes out before, if the server takes it in a moment.
func (w *coalesced) Close() error {
	if err := w.SetWriteDeadline(time.Now().Add(lastWrite)); err != nil {
		return errors.Join(err, w.Conn.Close()) // it is closed already
	}
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.work.Signal()
	w.space.Broadcast()
	<-w.done
	return w.Conn.Close()
}

func (w *coalesced) flush() {
	defer close(w.done)
	var writing []byte
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.pending) == 0 && !w.closed {
			w.work.Wait()
		}
		w.mu.Unlock()
		runtime.Gosched() // let who publishes go on, so that more goes out at once
		w.mu.Lock()
		if len(w.pending) == 0 {
			return
		}
		writing, w.pending = w.pending, writing[:0]
		w.space.Broadcast()
		w.mu.Unlock()
		_, err := w.Conn.Write(writing)
		w.mu.Lock()
		if err != nil {
			w.err = err
			w.space.Broadcast()
			return
		}
	}
}
