package order

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	expireLimit = 500    // orders cancelled by one statement
	expireLook  = 20_000 // holds looked at by one statement
	forgetLimit = 500    // idempotency keys forgotten by one statement
	keyLife     = 24 * time.Hour

	// A sweep begins where the last one began, and as long before as a statement may take to commit a hold; the first begins sweepFirst
	// before the last hold that ended, however long ago that was. All holds are looked at each sweepAll, and where the table was
	// replaced, as by a snapshot: for those that ended before, and for rows that somebody wrote with an end that was past. That is done
	// by parts, one each Pause: nearly all orders have ended long since, and those that come in now should not notice how many they are.
	sweepBack  = 10 * time.Second
	sweepFirst = time.Hour
	sweepAll   = 10 * time.Minute
)

// Sweeper ends orders whose hold has lapsed, and forgets old idempotency keys. Any number of them may run at once: the
// state decides, once.
type Sweeper struct {
	Store   *Store
	Waiters *Waiters
	Log     *slog.Logger
	Expired prometheus.Counter // orders that it cancelled
	Unheard prometheus.Counter // orders that it confirmed
	Pause   time.Duration      // between looks; where holds lapsed or keys grew old, and there is more of them, there is none

	since time.Time // holds that ended until then were looked at, but for those that a pass is for; by the database's clock
	table uint32    // the table that they were in

	began   time.Time // when the last pass over all holds began, by our clock
	passing bool      // it is not over
	passed  time.Time // the end of the last hold that it looked at
}

// Run sweeps until ctx ends. While the database is away it goes on trying.
func (s *Sweeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.Pause)
	defer ticker.Stop()
	for {
		for found, more := true, true; more && ctx.Err() == nil; {
			s.expire(ctx) // before each part and each batch of keys: no hold waits for a night's keys to be forgotten
			found = found && s.pass(ctx)
			more = s.forget(ctx) || found
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// expire ends the orders of all holds that lapsed since the last time. Where that fails the next one goes on.
func (s *Sweeper) expire(ctx context.Context) {
	from := s.since
	if from.IsZero() {
		last, err := s.Store.LastEnd(ctx)
		if err != nil {
			s.warn(ctx, err)
			return
		}
		from = last.Add(-sweepFirst)
	}
	var began time.Time // by the database's clock
	for more := true; more; {
		lapsed, err := s.look(ctx, from)
		if err != nil {
			return
		}
		if began.IsZero() {
			began = lapsed.At
		}
		from, more = lapsed.Last, lapsed.More
		// What was not committed yet when the first look began is for the next sweep.
		s.since = began.Add(-sweepBack)
		if more && from.Before(s.since) {
			s.since = from
		}
	}
}

// pass looks at the next part of all holds, and tells whether it ended any orders: then there may be many.
func (s *Sweeper) pass(ctx context.Context) (found bool) {
	if now := time.Now(); !s.passing && now.Sub(s.began) > sweepAll {
		s.began, s.passing, s.passed = now, true, time.Time{}
	}
	if !s.passing {
		return false
	}
	lapsed, err := s.look(ctx, s.passed)
	if err != nil {
		return false
	}
	s.passed, s.passing = lapsed.Last, lapsed.More
	return len(lapsed.Orders)+len(lapsed.Paid) > 0
}

var errReplaced = errors.New("the holds are others now")

// look ends the orders of those that lapsed among the holds that ended next after since, and tells of all that it finds. Where the
// table was replaced meanwhile the sweep and the pass begin anew.
func (s *Sweeper) look(ctx context.Context, since time.Time) (Lapsed, error) {
	lapsed, err := s.Store.Expire(ctx, since, expireLook)
	s.tell(ctx, lapsed)
	for _, fault := range lapsed.Faulty {
		s.Log.ErrorContext(ctx, "a hold that lapsed cannot be ended", "error", fault.Error())
	}
	if err != nil {
		s.warn(ctx, err)
		return lapsed, err
	}
	if before := s.table; lapsed.Table != before {
		s.table = lapsed.Table
		if before != 0 {
			s.since, s.began, s.passing = time.Time{}, time.Time{}, false
			return lapsed, errReplaced
		}
	}
	return lapsed, nil
}

func (s *Sweeper) warn(ctx context.Context, err error) {
	if ctx.Err() == nil {
		s.Log.WarnContext(ctx, "lapsed holds wait for the database", "error", err.Error())
	}
}

func (s *Sweeper) tell(ctx context.Context, lapsed Lapsed) {
	s.Waiters.Ended(lapsed.Orders)
	s.Waiters.Ended(lapsed.Paid)
	s.Expired.Add(float64(len(lapsed.Orders)))
	s.Unheard.Add(float64(len(lapsed.Paid)))
	for some := range slices.Chunk(lapsed.Orders, expireLimit) {
		s.Log.InfoContext(ctx, "holds lapsed", "orders", some)
	}
	for some := range slices.Chunk(lapsed.Paid, expireLimit) {
		s.Log.WarnContext(ctx, "orders were paid, and no result has told of it: confirmed", "orders", some)
	}
}

// forget deletes a batch of keys and tells whether there may be more.
func (s *Sweeper) forget(ctx context.Context) (more bool) {
	n, err := s.Store.ForgetKeys(ctx, keyLife, forgetLimit)
	if err != nil && ctx.Err() == nil {
		s.Log.WarnContext(ctx, "old idempotency keys wait for the database", "error", err.Error())
	}
	return n == forgetLimit
}

// NewSweeperCounters registers a Sweeper's counters.
func NewSweeperCounters(registry prometheus.Registerer) (expired, unheard prometheus.Counter) {
	expired = prometheus.NewCounter(prometheus.CounterOpts{Name: "orders_expired_total", Help: "Orders cancelled because their hold lapsed."})
	unheard = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "orders_paid_unheard_total", Help: "Orders confirmed when their hold lapsed, by payments of which no result has told.",
	})
	registry.MustRegister(expired, unheard)
	return expired, unheard
}
