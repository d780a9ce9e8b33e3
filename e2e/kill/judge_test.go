package kill

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// row is an order as the database has it.
type row struct {
	ID       int
	User     string
	Show     int
	Quantity int
	Status   string
	Payments int
	Took     float64 // seconds to its end
}

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
	lost       = "accepted, and there is no such order"
	twoAnswers = "a key whose order was another one, or none, the next time"
	doubled    = "a key with two orders"
	taken      = "an order of a key that was only refused"
	nobodys    = "an order that nobody asked for"
	altered    = "an order that is not what was asked for"
	refused    = "refused, though there were seats enough"
	stuck      = "an order that has not ended"
	unpaid     = "an order without a payment, or with several"
	notSoldOut = "a show that should be sold out to the last seat"
)

// judge holds what clients were told against the orders that there are, at rest. limited are the capacities of the shows that
// were asked for until they were full and no order failed any more.
func judge(all []*asked, rows []row, limited map[int]int) (found []finding) {
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
	orders := map[string][]row{}
	sold := map[int]int{}
	for _, r := range rows {
		orders[r.User] = append(orders[r.User], r)
		switch r.Status {
		case "CONFIRMED":
			sold[r.Show] += r.Quantity
		case "CANCELLED":
		default:
			find(stuck, "order %d, %s", r.ID, r.Status)
		}
		if r.Payments != 1 {
			find(unpaid, "order %d, %d payments", r.ID, r.Payments)
		}
	}
	for _, a := range all {
		own := orders[a.key]
		delete(orders, a.key)
		order, unknown, final := 0, false, false
		for _, got := range a.answers {
			final = got.final()
			switch got.status {
			case http.StatusAccepted:
				if order == 0 {
					order = got.order
				}
				if got.order != order || got.order == 0 {
					find(twoAnswers, "%s: %d, then %s", a.key, order, got.said)
				}
			case http.StatusConflict:
				if order != 0 {
					find(twoAnswers, "%s: %d, then %s", a.key, order, got.said)
				}
				if got.available >= a.quantity {
					find(refused, "%s: %d of show %d, %s", a.key, a.quantity, a.show, got.said)
				}
			case 0, http.StatusServiceUnavailable:
				unknown = true
			default:
				find(strange, "%s: %d %s", a.key, got.status, got.said)
			}
		}
		if !final {
			find(untold, "%s, after %d tries", a.key, len(a.answers))
		}
		if order != 0 && !slices.ContainsFunc(own, func(r row) bool { return r.ID == order }) {
			find(lost, "%s: order %d", a.key, order)
		}
		if order == 0 && !unknown && len(own) > 0 {
			find(taken, "%s: order %d", a.key, own[0].ID)
		}
		if len(own) > 1 {
			find(doubled, "%s: orders %d and %d", a.key, own[0].ID, own[1].ID)
		}
		for _, r := range own {
			if r.Show != a.show || r.Quantity != a.quantity {
				find(altered, "%s: order %d is %d of show %d, not %d of show %d", a.key, r.ID, r.Quantity, r.Show, a.quantity, a.show)
			}
		}
	}
	for key, own := range orders {
		find(nobodys, "%q: order %d", key, own[0].ID)
	}
	for show, capacity := range limited {
		if sold[show] != capacity {
			find(notSoldOut, "show %d: %d of %d", show, sold[show], capacity)
		}
	}
	return found
}

func TestJudge(t *testing.T) {
	told := func(statuses ...int) (all []answer) {
		for _, status := range statuses {
			got := answer{at: time.Now(), status: status}
			if status == 202 {
				got.order = 1
			}
			all = append(all, got)
		}
		return all
	}
	good := row{ID: 1, User: "k", Show: 1, Quantity: 2, Status: "CONFIRMED", Payments: 1}
	with := func(change func(*row)) []row {
		r := good
		change(&r)
		return []row{r}
	}
	for _, c := range []struct {
		name    string
		answers []answer
		rows    []row
		want    string // "" is nothing
	}{
		{"accepted", told(202), []row{good}, ""},
		{"accepted after many tries, and asked again", told(0, 503, 0, 202, 0, 202), []row{good}, ""},
		{"refused", told(409), nil, ""},
		{"taken, the answer lost, seats given back, and refused", told(0, 409), []row{good}, ""},
		{"cancelled", told(202), with(func(r *row) { r.Status = "CANCELLED" }), ""},
		{"not there", told(202), nil, lost},
		{"there, under another id", told(202), with(func(r *row) { r.ID = 2 }), lost},
		{"there twice", told(0, 202), []row{good, {ID: 2, User: "k", Show: 1, Quantity: 2, Status: "CONFIRMED", Payments: 1}}, doubled},
		{"there twice, and nobody was told", told(0, 409), []row{good, {ID: 2, User: "k", Show: 1, Quantity: 2, Status: "CONFIRMED", Payments: 1}}, doubled},
		{"another id the next time", append(told(202), answer{status: 202, order: 2}), []row{good}, twoAnswers},
		{"accepted without an id", []answer{{status: 202}}, []row{good}, twoAnswers},
		{"refused after it was accepted", told(202, 409), []row{good}, twoAnswers},
		{"refused, and taken", told(409), []row{good}, taken},
		{"refused with seats left", []answer{{status: 409, available: 2}}, nil, refused},
		{"never told", told(0, 503), []row{good}, untold},
		{"never asked to the end", nil, nil, untold},
		{"a failure", told(500), nil, strange},
		{"pending", told(202), with(func(r *row) { r.Status = "PENDING" }), stuck},
		{"not paid", told(202), with(func(r *row) { r.Payments = 0 }), unpaid},
		{"paid twice", told(202), with(func(r *row) { r.Payments = 2 }), unpaid},
		{"too many seats", told(202), with(func(r *row) { r.Quantity = 3 }), altered},
		{"the wrong show", told(202), with(func(r *row) { r.Show = 2 }), altered},
		{"somebody else's", told(409), with(func(r *row) { r.User = "x" }), nobodys},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := judge([]*asked{{request: request{"k", 1, 2}, answers: c.answers}}, c.rows, nil)
			if c.want == "" && len(found) > 0 || c.want != "" && !slices.ContainsFunc(found, func(f finding) bool { return f.what == c.want }) {
				t.Errorf("it found %v, not %q", found, c.want)
			}
		})
	}
	for seats, want := range map[int]int{2: 0, 1: 1, 3: 1} { // of two that were sold
		if found := judge([]*asked{{request: request{"k", 1, 2}, answers: told(202)}}, []row{good}, map[int]int{1: seats}); len(found) != want {
			t.Errorf("of %d seats: %v", seats, found)
		}
	}
}
