package order

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	expireLimit = 500 // orders cancelled by one statement
	forgetLimit = 500 // idempotency keys forgotten by one statement
	keyLife     = 24 * time.Hour

	// A sweep looks at the holds that ended since the last one, and as long before as a statement may take to commit one; and at all
	// where the table was replaced, and now and then, for what somebody wrote with a time of his own.
	sweepBack = 10 * time.Second
	sweepAll  = 10 * time.Minute
)

// Sweeper cancels orders whose hold has lapsed, and forgets old idempotency keys. Any number of them may run at once: the
// state decides, once.
type Sweeper struct {
	Store   *Store
	Waiters *Waiters
	Log     *slog.Logger
	Expired prometheus.Counter
	Pause   time.Duration // between looks; while there is more to do there is none

	since time.Time // where the next look begins, by the database's clock
	all   time.Time // when all were, by ours
	table uint32    // the table that they were in
}

// Run sweeps until ctx ends. While the database is away it goes on trying.
func (s *Sweeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.Pause)
	defer ticker.Stop()
	for {
		for more := true; more && ctx.Err() == nil; {
			more = s.expire(ctx)
		}
		for more := true; more && ctx.Err() == nil; {
			more = s.forget(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// expire cancels a batch of orders and tells whether there may be more.
func (s *Sweeper) expire(ctx context.Context) (more bool) {
	if now := time.Now(); now.Sub(s.all) > sweepAll {
		s.since, s.all = time.Time{}, now
	}
	lapsed, err := s.Store.Expire(ctx, s.since, expireLimit)
	if err != nil {
		if ctx.Err() == nil {
			s.Log.WarnContext(ctx, "lapsed holds wait for the database", "error", err.Error())
		}
		return false
	}
	replaced := lapsed.Table != s.table && s.table != 0
	s.table = lapsed.Table
	if len(lapsed.Orders) > 0 {
		s.Waiters.Ended(lapsed.Orders)
		s.Expired.Add(float64(len(lapsed.Orders)))
		s.Log.InfoContext(ctx, "holds lapsed", "orders", lapsed.Orders)
	}
	s.since = lapsed.Next
	if replaced {
		s.since = time.Time{}
	}
	return lapsed.Full || replaced
}

// forget deletes a batch of keys and tells whether there may be more.
func (s *Sweeper) forget(ctx context.Context) (more bool) {
	n, err := s.Store.ForgetKeys(ctx, keyLife, forgetLimit)
	if err != nil && ctx.Err() == nil {
		s.Log.WarnContext(ctx, "old idempotency keys wait for the database", "error", err.Error())
	}
	return n == forgetLimit
}

// NewExpiredCounter registers the counter of lapsed holds.
func NewExpiredCounter(registry prometheus.Registerer) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "orders_expired_total", Help: "Orders cancelled because their hold lapsed."})
	registry.MustRegister(c)
	return c
}
