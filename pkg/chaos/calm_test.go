package chaos

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platformctl/pkg/proof"
)

// A load of 100 orders a second is cut off from 2 s to 4 s, and again at 6 s. What was held up comes at once when it can.
func TestCalmBeginsWhenNothingIsLateAnyMore(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }
	var h proof.History
	order := func(seconds, milliseconds float64, statuses ...int) {
		a := &proof.Asked{Key: fmt.Sprint(len(h.Asked)), Began: at(seconds)}
		for _, status := range statuses {
			a.Answers = append(a.Answers, proof.Answer{At: at(seconds + milliseconds/1000), Status: status})
		}
		h.Asked = append(h.Asked, a)
	}
	for n := range 199 { // 1.99 s
		order(float64(n)/100, 3, http.StatusAccepted)
	}
	order(1.99, 30, http.StatusAccepted)                                 // answered within the fault
	order(2.5, 1600, http.StatusServiceUnavailable, http.StatusAccepted) // in it
	order(3.9, 90, http.StatusAccepted)                                  // the one that shows that it is over
	for n := range 220 {                                                 // at ten times the rate
		order(4+float64(n)/1000, 50, http.StatusAccepted)
	}
	for n := 421; n < 590; n++ {
		order(float64(n)/100, 5, http.StatusAccepted)
	}
	order(5.9, 5, http.StatusConflict) // no order
	c := calmness{began: began, rate: 100, ended: []time.Time{at(2), at(6)}, again: []time.Time{at(4)}}
	// The last order of the 220 is in time already.
	if diff := cmp.Diff(Calm{Before: 199, BeforeP99: 3, Between: 1 + 169, BetweenP99: 5}, c.of(&h)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	c.rate = 0
	if got := c.of(&h); got.Between != 169+220 {
		t.Errorf("without a rate none is late: %d", got.Between)
	}
}
