package kill

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"platformctl/pkg/proof"
)

// finding is a kind of fault, and where it was found.
type finding struct {
	what  string
	where []string
}

func (f finding) String() string {
	return fmt.Sprintf("%s: %d, as %s", f.what, len(f.where), strings.Join(f.where[:min(len(f.where), 5)], "; "))
}

// What judge can find.
const (
	strange    = "an answer that is neither 202, 409 nor 503"
	untold     = "a key that got no final answer"
	unpaid     = "an order without a payment, or with several"
	notSoldOut = "a show that should be sold out to the last seat"
)

// judge holds what clients were told against the orders that there are, at rest, as far as it is this test's own matter: verify
// judges the rest. Nobody stops asking here, no hold lapses, and limited are the capacities of the shows that were asked for
// until they were full and no order failed any more.
func judge(all []*proof.Asked, rows []proof.Row, limited map[int64]int64) (found []finding) {
	find := func(what, where string, args ...any) {
		where = fmt.Sprintf(where, args...)
		for i := range found {
			if found[i].what == what {
				found[i].where = append(found[i].where, where)
				return
			}
		}
		found = append(found, finding{what, []string{where}})
	}
	sold := map[int64]int64{}
	for _, r := range rows {
		if r.Status == "CONFIRMED" {
			sold[r.Show] += r.Quantity
		}
		if r.Payments != 1 {
			find(unpaid, "order %d, %d payments", r.ID, r.Payments)
		}
	}
	for _, a := range all {
		final := false
		for _, got := range a.Answers {
			final = got.Final()
			switch got.Status {
			case 0, http.StatusAccepted, http.StatusConflict, http.StatusServiceUnavailable:
			default:
				find(strange, "%s: %d %s", a.Key, got.Status, got.Said)
			}
		}
		if !final {
			find(untold, "%s, after %d tries", a.Key, len(a.Answers))
		}
	}
	for show, capacity := range limited {
		if sold[show] != capacity {
			find(notSoldOut, "show %d: %d of %d", show, sold[show], capacity)
		}
	}
	return found
}

func TestJudge(t *testing.T) {
	good := proof.Row{ID: 1, User: "kill-1", Show: 1, Quantity: 2, Status: "CONFIRMED", Payments: 1}
	for _, c := range []struct {
		name     string
		answers  []int
		payments int64
		want     string // "" is nothing
	}{
		{"accepted after many tries", []int{0, 503, 0, 202}, 1, ""},
		{"never told", []int{0, 503}, 1, untold},
		{"never asked to the end", nil, 1, untold},
		{"a failure", []int{500}, 1, strange},
		{"not paid", []int{202}, 0, unpaid},
		{"paid twice", []int{202}, 2, unpaid},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &proof.Asked{Key: "kill-1", Show: 1, Quantity: 2}
			for _, status := range c.answers {
				a.Answers = append(a.Answers, proof.Answer{Status: status})
			}
			r := good
			r.Payments = c.payments
			found := judge([]*proof.Asked{a}, []proof.Row{r}, nil)
			if c.want == "" && len(found) > 0 || c.want != "" && !slices.ContainsFunc(found, func(f finding) bool { return f.what == c.want }) {
				t.Errorf("it found %v, not %q", found, c.want)
			}
		})
	}
	for seats, want := range map[int64]int{2: 0, 1: 1, 3: 1} { // of two that were sold
		if found := judge(nil, []proof.Row{good}, map[int64]int64{1: seats}); len(found) != want {
			t.Errorf("of %d seats: %v", seats, found)
		}
	}
}
