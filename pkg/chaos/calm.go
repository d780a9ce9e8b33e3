package chaos

import (
	"net/http"
	"slices"
	"time"

	"platformctl/pkg/proof"
)

// Calm is how long POST took while no fault was on: before the first one, when nothing had been disturbed yet, and between the
// others. A fault is over when it has been recovered from and the orders that could not be sent meanwhile have been: until then they
// come as fast as the clients can, which is more than the load.
type Calm struct {
	Before     int     `json:"before"` // orders
	BeforeP99  float64 `json:"beforeP99Milliseconds"`
	Between    int     `json:"between"`
	BetweenP99 float64 `json:"betweenP99Milliseconds"`
}

// calmness keeps the times in which no fault is on. The first of them ends with the first fault.
type calmness struct {
	began time.Time
	rate  float64     // orders a second; 0 has none that is late
	ended []time.Time // of each
	again []time.Time // the beginnings of all but the first
}

func (c *calmness) ends()   { c.ended = append(c.ended, time.Now()) }
func (c *calmness) begins() { c.again = append(c.again, time.Now()) }

// late is what an order is, where there is a rate, that was begun so long after its time.
const late = 20 * time.Millisecond

// of takes the orders that were begun and answered at the first try within one calm time.
func (c *calmness) of(h *proof.History) (calm Calm) {
	var before, between []time.Duration
	faults, caughtUp := 0, true
	for n, a := range h.Asked {
		for faults < len(c.again) && !a.Began.Before(c.again[faults]) {
			faults++
			caughtUp = false
		}
		// After each fault one order was placed beside the load, to see whether it ends.
		due := c.began
		if c.rate > 0 {
			due = due.Add(time.Duration(float64(n-faults) / c.rate * float64(time.Second)))
		}
		caughtUp = caughtUp || c.rate == 0 || a.Began.Sub(due) < late
		if !caughtUp || faults == len(c.ended) || len(a.Answers) != 1 || a.Answers[0].Status != http.StatusAccepted || a.Answers[0].At.After(c.ended[faults]) {
			continue
		}
		took := a.Answers[0].At.Sub(a.Began)
		if faults == 0 {
			before = append(before, took)
		} else {
			between = append(between, took)
		}
	}
	calm.Before, calm.BeforeP99 = len(before), p99(before)
	calm.Between, calm.BetweenP99 = len(between), p99(between)
	return calm
}

// p99 is in milliseconds; 0 of nothing.
func p99(all []time.Duration) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[min(len(all)-1, len(all)*99/100)].Microseconds()) / 1000
}
