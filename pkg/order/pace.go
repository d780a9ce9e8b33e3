package order

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// mostBehind is how old the youngest order may be that is settled; past it more come in than end.
	mostBehind = 2 * time.Second
	// leastPace is the number of orders a second that are always let in, as far as mostWaiting allows.
	leastPace = 100
	// mostWaiting is how many events may wait, in the outbox and at the broker. Up to it nothing is refused while nothing is
	// settled at all, as when the broker is away: the outbox keeps the events.
	mostWaiting = 200_000

	paceWindow = time.Second            // settled orders are counted by windows of this length
	paceStale  = 10 * time.Second       // a measurement as old as that says nothing
	paceBurst  = 100 * time.Millisecond // how much of a second's orders may come at once
)

// Pace lets orders in no faster than they are settled, once those before them wait too long. The age at which orders are
// settled is the backlog measured in time, and of all replicas, though none knows of another: each lets in what it settles.
type Pace struct {
	Store *Store
	Log   *slog.Logger

	mu       sync.Mutex
	window   time.Time     // when the window began
	settled  int           // in it
	youngest time.Duration // the least age in it; one straggler is no backlog

	rate     float64       // settled a second, in the last full window
	behind   time.Duration // the least age in it
	measured time.Time     // when it ended

	tokens   float64
	refilled time.Time

	unsent int // events in the outbox, of all replicas, at most mostWaiting
	queued int // messages at the broker, when it was last asked
}

// Settled tells that n orders ended at a time, the youngest of them at an age.
func (p *Pace) Settled(n int, youngest time.Duration, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if length := at.Sub(p.window); p.settled == 0 || length >= paceWindow {
		if p.settled > 0 {
			length = min(length, 2*paceWindow) // a pause with nothing to settle is no slowness
			p.rate, p.behind, p.measured = float64(p.settled)/length.Seconds(), p.youngest, at
		}
		p.window, p.settled, p.youngest = at, 0, youngest
	}
	p.settled += n
	p.youngest = min(p.youngest, youngest)
	if youngest <= mostBehind { // no need to wait for the end of the window
		p.behind = youngest
	}
}

// Admit tells whether an order may come in at a time.
func (p *Pace) Admit(at time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unsent+p.queued >= mostWaiting {
		return false
	}
	if p.behind <= mostBehind || at.Sub(p.measured) > paceStale {
		return true
	}
	// A little less than is settled, the less the longer the orders wait, so that the backlog shrinks.
	rate := max(leastPace, p.rate*max(0.5, mostBehind.Seconds()/p.behind.Seconds()))
	p.tokens = min(p.tokens+rate*at.Sub(p.refilled).Seconds(), rate*paceBurst.Seconds())
	p.refilled = at
	if p.tokens < 1 {
		return false
	}
	p.tokens--
	return true
}

// Queued tells how many messages wait at the broker.
func (p *Pace) Queued(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting(p.unsent, n)
}

// waiting takes new counts over.
func (p *Pace) waiting(unsent, queued int) {
	if before, after := p.unsent+p.queued, unsent+queued; (before >= mostWaiting) != (after >= mostWaiting) {
		p.Log.Warn("the events that wait reached or left their limit", "events", after, "limit", mostWaiting)
	}
	p.unsent, p.queued = unsent, queued
}

// Run counts the events in the outbox, each second, until ctx ends.
func (p *Pace) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		p.count(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (p *Pace) count(ctx context.Context) {
	n, err := p.Store.Unsent(ctx, mostWaiting)
	if err != nil {
		if ctx.Err() == nil {
			p.Log.WarnContext(ctx, "the events in the outbox could not be counted", "error", err.Error())
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting(n, p.queued)
}

// Describe implements prometheus.Collector.
func (p *Pace) Describe(out chan<- *prometheus.Desc) {
	out <- waitingDesc
	out <- behindDesc
	out <- rateDesc
}

// Collect implements prometheus.Collector.
func (p *Pace) Collect(out chan<- prometheus.Metric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(p.unsent+p.queued))
	out <- prometheus.MustNewConstMetric(behindDesc, prometheus.GaugeValue, p.behind.Seconds())
	out <- prometheus.MustNewConstMetric(rateDesc, prometheus.GaugeValue, p.rate)
}

var (
	waitingDesc = prometheus.NewDesc("events_waiting", "Events in the outbox and at the broker, of all replicas; those in the outbox counted up to 200000.", nil, nil)
	behindDesc  = prometheus.NewDesc("orders_settled_age_seconds", "Age of the youngest order in the last second in which this process settled any.", nil, nil)
	rateDesc    = prometheus.NewDesc("orders_settled_per_second", "Orders settled by this process in the last second in which it settled any.", nil, nil)
)
