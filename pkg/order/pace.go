package order

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"platformctl/pkg/postgres"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// mostBehind is how long an order should wait to be settled at most. Without a bound those who come in take the CPU from those who
	// settle, and where it is found out by the age of what is settled, that age has long been decided.
	mostBehind = 400 * time.Millisecond
	// slack is how many orders may wait in any case: nobody knows yet how fast they are settled when the first of many come in.
	slack = 1000
	// leastPace is the number of orders a second that are always let in, as far as mostWaiting allows.
	leastPace = 100
	// mostWaiting is how many events may wait, in the outbox and at the broker. Up to it nothing is refused while nothing is
	// settled at all, as when the broker is away: the outbox keeps the events.
	mostWaiting = 200_000

	paceWindow = 250 * time.Millisecond // settled orders are counted by windows of this length
	paceSilent = 500 * time.Millisecond // who has settled nothing for so long does not settle slowly, but not at all
	paceStale  = 10 * time.Second       // a measurement as old as that says nothing
	paceBurst  = 100 * time.Millisecond // how much of a second's orders may come at once
	paceSlot   = 10 * time.Millisecond  // accepted orders are counted by slots of this length
	paceSlots  = 1024
)

// Pace lets orders in no faster than they are settled, once too many wait for that. Orders are settled about in the order in which
// they came: what was accepted after the newest that is settled, waits. Of several replicas none knows of another: each lets in what
// it settles.
type Pace struct {
	Store *Store
	Log   *slog.Logger

	mu      sync.Mutex
	begin   time.Time      // of the slots; by a clock that nobody sets
	taken   [paceSlots]int // accepted orders, by the time at which they were, in slots
	slot    int64          // the newest one's number
	newest  time.Time      // when the newest order was accepted that is settled
	last    time.Time      // when it was settled
	waiting int            // accepted since newest

	window  time.Time // when the window began
	settled int       // in it
	rate    float64   // settled a second, a moving mean over full windows

	tokens   float64
	refilled time.Time

	unsent int // events in the outbox, of all replicas, at most mostWaiting
	queued int // messages at the broker, when it was last asked
}

// Accepted tells that n orders were accepted at a time.
func (p *Pace) Accepted(n int, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for now := max(0, p.slotOf(at)); p.slot < now; {
		p.slot = max(p.slot+1, now-paceSlots)
		p.taken[p.slot%paceSlots] = 0
	}
	p.taken[p.slot%paceSlots] += n
	p.waiting += n
}

func (p *Pace) slotOf(at time.Time) int64 {
	if p.begin.IsZero() {
		p.begin = at
	}
	return int64(math.Floor(at.Sub(p.begin).Seconds() / paceSlot.Seconds()))
}

// Settled tells that n orders ended at a time, the youngest of them at an age.
func (p *Pace) Settled(n int, youngest time.Duration, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	accepted := at.Add(-max(0, youngest))            // the database's clock may have been set
	if !accepted.Before(p.newest.Add(-paceSilent)) { // else they are stragglers; many are of one age, which is two clocks' difference
		p.last = at
	}
	if accepted.After(p.newest) {
		p.newest, p.waiting = accepted, 0
		for s := max(0, p.slotOf(accepted)+1, p.slot-paceSlots+1); s <= p.slot; s++ {
			p.waiting += p.taken[s%paceSlots]
		}
	}
	if length := at.Sub(p.window); p.settled == 0 || length >= paceWindow {
		if p.settled > 0 {
			length = min(length, 2*paceWindow) // a pause with nothing to settle is no slowness
			p.rate += (float64(p.settled)/length.Seconds() - p.rate) / 2
		}
		p.window, p.settled = at, 0
	}
	p.settled += n
}

// behind is how long an order that comes now will wait to be settled.
func (p *Pace) behind(at time.Time) time.Duration {
	switch silent := at.Sub(p.last); {
	case silent > paceStale:
		return 0
	case silent > paceSilent:
		return p.last.Sub(p.newest)
	}
	return time.Duration(float64(max(0, p.waiting-slack)) / max(leastPace, p.rate) * float64(time.Second))
}

// Admit tells whether an order may come in at a time.
func (p *Pace) Admit(at time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unsent+p.queued >= mostWaiting {
		return false
	}
	behind := p.behind(at)
	if behind <= mostBehind/2 {
		return true
	}
	// The less the longer they wait: at mostBehind as many as are settled, from twice to half as many.
	rate := max(leastPace, p.rate*max(0.5, mostBehind.Seconds()/behind.Seconds()))
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
	p.count(p.unsent, n)
}

// count takes new counts over.
func (p *Pace) count(unsent, queued int) {
	if before, after := p.unsent+p.queued, unsent+queued; (before >= mostWaiting) != (after >= mostWaiting) {
		p.Log.Warn("the events that wait reached or left their limit", "events", after, "limit", mostWaiting)
	}
	p.unsent, p.queued = unsent, queued
}

// Run counts the events in the outbox, about each second, until ctx ends.
func (p *Pace) Run(ctx context.Context) error {
	var pauses postgres.Pauses
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-due.C:
		}
		due.Reset(pauses.After(p.look(ctx), time.Second))
	}
}

// look returns how long the count took, 0 where there is none.
func (p *Pace) look(ctx context.Context) time.Duration {
	began := time.Now()
	n, err := p.Store.Unsent(ctx, mostWaiting)
	if err != nil {
		if ctx.Err() == nil {
			p.Log.WarnContext(ctx, "the events in the outbox could not be counted", "error", err.Error())
		}
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(n, p.queued)
	return time.Since(began)
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
	out <- prometheus.MustNewConstMetric(behindDesc, prometheus.GaugeValue, p.last.Sub(p.newest).Seconds())
	out <- prometheus.MustNewConstMetric(rateDesc, prometheus.GaugeValue, p.rate)
}

var (
	waitingDesc = prometheus.NewDesc("events_waiting", "Events in the outbox and at the broker, of all replicas; those in the outbox counted up to 200000.", nil, nil)
	behindDesc  = prometheus.NewDesc("orders_settled_age_seconds", "Age of the youngest order that this process settled last.", nil, nil)
	rateDesc    = prometheus.NewDesc("orders_settled_per_second", "Orders that this process settled a second, when it last settled any.", nil, nil)
)
