package chaos

import (
	"net/http"
	"slices"
	"time"

	"platformctl/pkg/proof"
)

// Calm is how long POST took while no fault was on: before the first one, when nothing had been disturbed yet, and between the
// others.
type Calm struct {
	Before     int     `json:"before"` // orders
	BeforeP99  float64 `json:"beforeP99Milliseconds"`
	Between    int     `json:"between"`
	BetweenP99 float64 `json:"betweenP99Milliseconds"`
}

// calmness keeps the times in which no fault is on. The first of them ends with the first fault.
type calmness struct {
	began time.Time
	ended []time.Time // of each
	again []time.Time // the beginnings of all but the first
}

func (c *calmness) ends()   { c.ended = append(c.ended, time.Now()) }
func (c *calmness) begins() { c.again = append(c.again, time.Now()) }

// of takes the orders that were begun and answered at the first try within one calm time.
func (c *calmness) of(h *proof.History) (calm Calm) {
	var before, between []time.Duration
	for _, a := range h.Asked {
		if len(a.Answers) != 1 || a.Answers[0].Status != http.StatusAccepted {
			continue
		}
		from, to := a.Began, a.Answers[0].At
		for i, end := range c.ended {
			begin := c.began
			if i > 0 {
				begin = c.again[i-1]
			}
			if from.Before(begin) || to.After(end) {
				continue
			}
			if i == 0 {
				before = append(before, to.Sub(from))
			} else {
				between = append(between, to.Sub(from))
			}
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
