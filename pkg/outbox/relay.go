// Package outbox sends what was committed. Events are rows of the table outbox, written in the transaction that they tell
// of. A Relay publishes them from memory, deletes them when the broker has confirmed them, and sweeps up what a crash left.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"platformctl/pkg/failpoint"
	"platformctl/pkg/postgres"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// Lease is how long an event belongs to the relay it was handed to; after that any relay of the service may send it.
	Lease = 10 * time.Second
	// Window is how many events may be on their way to the broker unconfirmed.
	Window = 2000

	memory      = 10_000  // events that a relay holds
	beyondLimit = 200_000 // further ones, of which it remembers the ids; the rest is left until its lease lapses
	forgetLimit = 1000    // rows deleted by one statement
	// forgetPause is the least time from one such statement to the next. Nobody waits for it, and one for each few events takes a
	// tenth of the server's CPU at 500 orders a second, and the disk from those that somebody waits for.
	forgetPause = 25 * time.Millisecond
	sweepLimit  = 500 // rows taken over by one statement
	sweepPause  = time.Second
)

// Event is a row of the outbox.
type Event struct {
	ID            int64 // the row's
	MessageID     string
	CorrelationID string
	Key           string // the routing key
	Payload       []byte // the exact bytes to send
	Trace         string // the W3C traceparent to send along; "" is none
	CreatedAt     time.Time
}

// Confirmation is an event on its way. Wait returns nil when the broker has it.
type Confirmation interface {
	Wait(context.Context) error
}

// Publish sends an event; it may block.
type Publish func(context.Context, Event) (Confirmation, error)

// Relay sends the events of one process.
type Relay struct {
	Name string   // written into the rows, to tell whose they were
	Keys []string // of the events that its service publishes: of what others left, it sends only these
	DB   *pgxpool.Pool
	Log  *slog.Logger

	scraped *postgres.Throttled[length]

	mu      sync.Mutex
	waiting []Event            // in order, to be published
	held    map[int64]struct{} // waiting or on their way
	beyond  []int64            // rows of ours that did not fit into memory
	wake    chan struct{}      // has something when waiting may have
	room    chan struct{}      // has something when there is room for what is beyond
	empty   chan struct{}      // closed when held is empty, while someone waits for that
}

// New makes a relay of events with these keys. Name should differ for each process that ever ran.
func New(name string, db *pgxpool.Pool, log *slog.Logger, keys ...string) *Relay {
	r := &Relay{Name: name, Keys: keys, DB: db, Log: log, held: map[int64]struct{}{}, wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	r.scraped = postgres.Throttle(func(ctx context.Context) (l length, err error) {
		l.events, l.oldest, err = r.Length(ctx)
		return l, err
	})
	return r
}

// Offer hands over events whose transaction has committed. It never blocks: when too much is waiting, for instance while the
// broker is away, the rows are read again later, and before those that are offered after them.
func (r *Relay) Offer(events []Event) {
	r.mu.Lock()
	fits := 0
	if len(r.beyond) == 0 {
		fits = min(len(events), max(0, memory-len(r.held)))
	}
	for _, e := range events[fits:] {
		if len(r.beyond) < beyondLimit {
			r.beyond = append(r.beyond, e.ID)
		}
	}
	r.mu.Unlock()
	r.hold(events[:fits])
}

// hold takes events into memory, to be published.
func (r *Relay) hold(events []Event) {
	r.mu.Lock()
	for _, e := range events {
		if _, known := r.held[e.ID]; !known {
			r.held[e.ID] = struct{}{}
			r.waiting = append(r.waiting, e)
		}
	}
	r.mu.Unlock()
	nudge(r.wake)
}

func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Held is the number of events in memory, waiting or on their way.
func (r *Relay) Held() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.held)
}

// Drain waits until everything that was offered is confirmed and forgotten, or until ctx ends. What is left then stays in
// the table for the next sweep.
func (r *Relay) Drain(ctx context.Context) error {
	for {
		r.mu.Lock()
		if len(r.held) == 0 {
			r.mu.Unlock()
			return nil
		}
		if r.empty == nil {
			r.empty = make(chan struct{})
		}
		empty := r.empty
		r.mu.Unlock()
		select {
		case <-empty:
		case <-ctx.Done():
			return fmt.Errorf("%d events left in the outbox: %w", r.Held(), ctx.Err())
		}
	}
}

// onItsWay is an event that was published and not yet confirmed.
type onItsWay struct {
	event        Event
	confirmation Confirmation
}

var errStopped = errors.New("the relay was stopped")

// Session publishes until stop is closed, which ends it well, or something fails. The broker session that publish belongs
// to is then over: what was not confirmed is published again in the next one.
func (r *Relay) Session(ctx context.Context, stop <-chan struct{}, publish Publish) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		select {
		case <-stop:
			end(errStopped)
		case <-ctx.Done():
		}
	}()
	sent := make(chan onItsWay, Window)
	var unconfirmed []Event
	var workers sync.WaitGroup
	workers.Go(func() { r.sweep(ctx) })
	workers.Go(func() { unconfirmed = r.confirm(ctx, end, sent) })
	end(r.publish(ctx, publish, sent))
	close(sent)
	workers.Wait()
	r.again(unconfirmed)
	if err := context.Cause(ctx); !errors.Is(err, errStopped) {
		return err
	}
	return nil
}

// publish sends what waits, in order, until ctx ends or a publish fails.
func (r *Relay) publish(ctx context.Context, publish Publish, sent chan<- onItsWay) error {
	nudge(r.wake)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.wake:
		}
		for events := r.take(); len(events) > 0; events = r.take() {
			for i, e := range events {
				confirmation, err := publish(ctx, e)
				if err != nil {
					r.again(events[i:])
					return err
				}
				sent <- onItsWay{e, confirmation}
			}
		}
	}
}

// confirm waits for what was sent, deletes what the broker has, and returns what it may not have. It ends when sent is
// closed and empty; a confirm that fails ends the session, and then nothing more is waited for.
func (r *Relay) confirm(ctx context.Context, end func(error), sent <-chan onItsWay) (unconfirmed []Event) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for first := range sent {
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Reset(forgetPause)
		batch := []onItsWay{first}
		for more := true; more && len(batch) < forgetLimit; {
			select {
			case s, open := <-sent:
				if more = open; open {
					batch = append(batch, s)
				}
			default:
				more = false
			}
		}
		confirmed := make([]Event, 0, len(batch))
		for _, s := range batch {
			if err := s.confirmation.Wait(ctx); err != nil {
				end(err)
				unconfirmed = append(unconfirmed, s.event)
			} else {
				confirmed = append(confirmed, s.event)
			}
		}
		if len(confirmed) > 0 {
			failpoint.Hit(failpoint.Published)
		}
		if !r.forget(ctx, confirmed) {
			unconfirmed = append(unconfirmed, confirmed...)
		}
	}
	return unconfirmed
}

// take takes all that waits.
func (r *Relay) take() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.waiting
	r.waiting = nil
	return events
}

// again puts events back to the front.
func (r *Relay) again(events []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(append(make([]Event, 0, len(events)+len(r.waiting)), events...), r.waiting...)
}
