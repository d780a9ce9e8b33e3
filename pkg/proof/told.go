package proof

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

// accepted holds what clients were told, and what the orders' own history says, against the orders that there are.
func accepted(f Facts) Finding {
	found := Finding{ID: "I1", Name: "accepted", Claim: "each accepted order is there as it was asked for; one that nobody was told of is there once or not at all"}
	found.twisted(f)
	found.Counted = counted(f.Lives.Accepted, "order") + " accepted"
	if f.History == nil {
		return found
	}
	orders := byUser(f.Rows)
	told, unknown, taken := 0, 0, 0
	for _, a := range f.History.Asked {
		own := orders[a.Key]
		delete(orders, a.Key)
		order, doubt := a.Accepted().Order, len(a.Answers) == 0
		for _, got := range a.Answers {
			doubt = doubt || !got.Final()
			if got.Status == http.StatusConflict && got.Available >= a.Quantity {
				found.breaks(1, fmt.Sprintf("%s: refused %d seats of show %d with %d left", a.Key, a.Quantity, a.Show, got.Available))
			}
		}
		switch {
		case order != 0:
			told++
			if !slices.ContainsFunc(own, func(r Row) bool { return r.ID == order }) {
				found.breaks(1, fmt.Sprintf("%s: order %d was accepted, and is not there", a.Key, order))
			}
		case doubt:
			unknown++
			taken += len(own)
		case len(own) > 0:
			found.breaks(1, fmt.Sprintf("%s: refused, and there is order %d", a.Key, own[0].ID))
		}
		for _, r := range own {
			if r.Show != a.Show || r.Quantity != a.Quantity {
				found.breaks(1, fmt.Sprintf("%s: order %d is %d of show %d, not %d of show %d", a.Key, r.ID, r.Quantity, r.Show, a.Quantity, a.Show))
			}
		}
	}
	for _, r := range f.Rows {
		if len(orders[r.User]) > 0 {
			found.breaks(1, fmt.Sprintf("order %d of %s, for which nobody asked", r.ID, r.User))
		}
	}
	found.Counted += fmt.Sprintf("; %s told, %d in doubt of which %d are there", counted(int64(told), "client"), unknown, taken)
	return found
}

func byUser(rows []Row) map[string][]Row {
	orders := map[string][]Row{}
	for _, r := range rows {
		orders[r.User] = append(orders[r.User], r)
	}
	return orders
}

// keys judges that one key is one order, however often it was asked with.
func keys(f Facts) Finding {
	found := Finding{ID: "I7", Name: "keys", Claim: "the same idempotency key is the same order"}
	found.some(f.Keys.Astray, "order %d has a key, and is not there")
	found.some(f.Keys.Shared, "order %d has several keys")
	found.Counted = counted(f.Keys.Count, "key")
	if f.History == nil {
		return found
	}
	orders := byUser(f.Rows)
	again := 0
	for _, a := range f.History.Asked {
		again += max(0, len(a.Answers)-1)
		if own := orders[a.Key]; len(own) > 1 {
			found.breaks(1, fmt.Sprintf("%s: orders %d and %d", a.Key, own[0].ID, own[1].ID))
		}
		order := int64(0)
		for _, got := range a.Answers {
			switch {
			case got.Status == http.StatusAccepted && got.Order == 0:
				found.breaks(1, a.Key+": accepted without an order's id")
			case got.Status == http.StatusAccepted && order == 0:
				order = got.Order
			case got.Status == http.StatusAccepted && got.Order != order:
				found.breaks(1, fmt.Sprintf("%s: order %d, and then order %d", a.Key, order, got.Order))
			case got.Final() && got.Status != http.StatusAccepted && order != 0:
				found.breaks(1, fmt.Sprintf("%s: order %d, and then the answer %d", a.Key, order, got.Status))
			}
		}
	}
	found.Counted += fmt.Sprintf(" kept; %d asked with, %d times again", len(f.History.Asked), again)
	return found
}

// letters judges that each dead letter says why it is one, and that what can never be handled is among them.
func letters(f Facts) Finding {
	found := Finding{ID: "I8", Name: "letters", Claim: "what can never be handled is in the dead letters, each with its reason"}
	reasons := map[string]string{}
	for _, l := range f.Letters {
		if reasons[l.ID] = l.Reason; l.Reason == "" {
			found.breaks(1, fmt.Sprintf("dead letter %q: no reason", l.ID))
		}
	}
	found.Counted = counted(int64(len(f.Letters)), "dead letter")
	if f.History == nil {
		return found
	}
	poison := int64(0)
	for _, p := range f.History.Published {
		if p.As != AsPoison {
			continue
		}
		poison++
		if _, ok := reasons[p.Message]; !ok {
			found.breaks(1, fmt.Sprintf("message %q: published as poison, and not in the dead letters", p.Message))
		}
	}
	found.Counted += fmt.Sprintf(", %d published as poison", poison)
	return found
}

// Outages that are judged: shorter ones, or those in which hardly anybody asked, show nothing.
const (
	shortestOutage = 2 * time.Second
	fewestAsked    = 10
	// In a long one so many are accepted, of at least as many that asked.
	longOutage  = 10 * time.Second
	fewestTaken = 100
)

// outages judges that the broker's absence keeps no order out, and that none of them is left behind.
func outages(f Facts) Finding {
	found := Finding{ID: "I11", Name: "outages", Claim: "orders are accepted while the broker is down, and all delivered after"}
	if f.History == nil {
		found.Unasked, found.Counted = true, "a client history tells of it"
		return found
	}
	rows := map[int64]Row{}
	for _, r := range f.Rows {
		rows[r.ID] = r
	}
	judged, all := int64(0), int64(0)
	long, least := int64(0), 0
	for _, o := range f.History.Outages {
		if o.Up.IsZero() || o.Up.Sub(o.Down) < shortestOutage {
			continue
		}
		lasted, asked, taken := o.Up.Sub(o.Down).Round(time.Millisecond), 0, 0
		for _, a := range f.History.Asked {
			got := a.Accepted()
			if got.Order != 0 && got.At.After(o.Down) && got.At.Before(o.Up) {
				taken++
				if r, ok := rows[got.Order]; ok && r.Status == "PENDING" {
					found.breaks(1, fmt.Sprintf("order %d: accepted while the broker was down, and still PENDING", got.Order))
				}
			}
			if a.Began.After(o.Down) && a.Began.Before(o.Up) {
				asked++
			}
		}
		if asked >= fewestAsked {
			judged++
			if taken == 0 {
				found.breaks(1, fmt.Sprintf("%s: the broker was down for %s, %d asked, and none was accepted", o.Down.UTC().Format(time.TimeOnly), lasted, asked))
			}
		}
		if lasted >= longOutage && asked >= fewestTaken {
			if long++; long == 1 || taken < least {
				least = taken
			}
			if 0 < taken && taken < fewestTaken {
				found.breaks(1, fmt.Sprintf("%s: the broker was down for %s, %d asked, and only %d were accepted", o.Down.UTC().Format(time.TimeOnly), lasted, asked, taken))
			}
		}
		all += int64(taken)
	}
	found.Counted = fmt.Sprintf("%s of %s and more, %s accepted", counted(judged, "outage"), shortestOutage, counted(all, "order"))
	if long > 0 {
		found.Counted += fmt.Sprintf("; %d or more in each of %d of %s and more", least, long, longOutage)
	}
	return found
}
