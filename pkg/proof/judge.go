package proof

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"platformctl/pkg/contract"
)

// Report is what verify found.
type Report struct {
	Holds       bool          `json:"holds"` // no invariant is broken
	At          time.Time     `json:"at"`    // of the snapshot that was judged
	Orders      int64         `json:"orders"`
	Payments    int64         `json:"payments"`
	DeadLetters int64         `json:"deadLetters"`
	Waited      time.Duration `json:"waitedNanoseconds"` // for the platform to come to rest
	Invariants  []Finding     `json:"invariants"`
}

// Finding is one invariant and what was found of it.
type Finding struct {
	ID      string   `json:"id"`      // "I2"; docs/proof.md lists them
	Name    string   `json:"name"`    // a word
	Claim   string   `json:"claim"`   // what must hold
	Holds   bool     `json:"holds"`   // Broken is 0
	Unasked bool     `json:"unasked"` // there was nothing to judge it by
	Counted string   `json:"counted"` // what was looked at, for people
	Broken  int64    `json:"broken"`  // how many rows break it
	Rows    []string `json:"rows"`    // the first of these
}

// Broken are the names of the broken invariants.
func (r Report) Broken() []string {
	var names []string
	for _, f := range r.Invariants {
		if !f.Holds {
			names = append(names, f.Name)
		}
	}
	return names
}

// Judge decides from facts alone.
func Judge(f Facts) Report {
	r := Report{At: f.At, Orders: f.Orders, Payments: f.Payments, Holds: true, DeadLetters: messages(f.Queues, contract.QueueDeadLetters)}
	for _, judge := range []func(Facts) Finding{accepted, seats, rest, payments, events, states, keys, letters, ends, lapses, outages} {
		finding := judge(f)
		finding.Holds = finding.Broken == 0
		if finding.Rows == nil {
			finding.Rows = []string{} // for JSON
		}
		r.Holds = r.Holds && finding.Holds
		r.Invariants = append(r.Invariants, finding)
	}
	return r
}

// breaks counts n broken rows and names them as far as there is room.
func (f *Finding) breaks(n int64, rows ...string) {
	f.Broken += n
	f.Rows = append(f.Rows, rows[:min(len(rows), most-len(f.Rows))]...)
}

func seats(f Facts) Finding {
	found := Finding{ID: "I2", Name: "seats", Claim: "held = the sum of the reservations ≤ capacity, for each show, now and at every instant before"}
	var held, capacity int64
	for _, s := range f.Shows {
		held, capacity = held+s.Sum, capacity+s.Capacity
		var why []string
		switch {
		case !s.Exists:
			why = append(why, fmt.Sprintf("%d seats are held, and there is no such show", s.Sum))
		case s.Counter == nil || s.Limit == nil:
			why = append(why, "it has no counter")
		default:
			if *s.Counter != s.Sum {
				why = append(why, fmt.Sprintf("the counter says %d held, its reservations are %d", *s.Counter, s.Sum))
			}
			if *s.Limit != s.Capacity {
				why = append(why, fmt.Sprintf("the counter's capacity is %d, the show's %d", *s.Limit, s.Capacity))
			}
		}
		if s.Exists && s.Sum > s.Capacity {
			why = append(why, fmt.Sprintf("oversold: %d of %d seats", s.Sum, s.Capacity))
		} else if s.Exists && s.Peak > s.Capacity {
			why = append(why, fmt.Sprintf("oversold for a time: %d of %d seats", s.Peak, s.Capacity))
		}
		if len(why) > 0 {
			found.breaks(1, strings.TrimSuffix(fmt.Sprintf("show %d (%s)", s.ID, s.Name), " ()")+": "+strings.Join(why, "; "))
		}
	}
	found.Counted = fmt.Sprintf("%s, %d of %s held", counted(int64(len(f.Shows)), "show"), held, counted(capacity, "seat"))
	return found
}

// rest judges what has been on its way for too long: what was there at Facts.Since and has not come to its end.
func rest(f Facts) Finding {
	found := Finding{ID: "I3", Name: "rest", Claim: "after a quiet time no order PENDING, no hold past its time, outbox and queues empty"}
	var pending, late int64
	for _, c := range f.Cells {
		switch {
		case c.Order == "PENDING":
			pending += c.Count
			if c.Waiting {
				found.breaks(c.Count, c.rows("PENDING")...)
			}
		case c.Lapsed && c.Order != "CONFIRMED": // an old service leaves what it confirmed RESERVED
			late += c.Count
			found.breaks(c.Count, c.rows("its hold is past its time")...)
		case c.Waiting:
			late += c.Count
			found.breaks(c.Count, c.rows("CANCELLED and paid, but not marked to be paid back")...)
		}
	}
	for i, id := range f.Outbox.First {
		n := int64(1)
		if i == 0 {
			n = f.Outbox.Waiting - int64(len(f.Outbox.First)) + 1
		}
		found.breaks(n, fmt.Sprintf("outbox: %s, there before %s", id, f.Since.UTC().Format(time.TimeOnly)))
	}
	// Of a queue it cannot be told how long its messages have been there: while orders arrive it is not empty for long.
	flowing := f.Newest.After(f.Since)
	for _, q := range f.Queues {
		if n := q.Ready + q.Unacked; n > 0 && onTheWay(q.Name) && !flowing {
			found.breaks(n, fmt.Sprintf("queue %s: %d ready, %d unacknowledged", q.Name, q.Ready, q.Unacked))
		}
	}
	found.Counted = fmt.Sprintf("%d PENDING, %d late, outbox %d, queues %d, dead letters %d",
		pending, late, f.Outbox.Count, inQueues(f.Queues), messages(f.Queues, contract.QueueDeadLetters))
	if flowing {
		found.Counted += "; orders are arriving"
	}
	return found
}

func payments(f Facts) Finding {
	found := Finding{
		ID: "I4", Name: "payments", Claim: "at most one payment an order, and message ids are unique",
		Counted: fmt.Sprintf("%s, %s", counted(f.Payments, "payment"), counted(f.Orders, "order")),
	}
	for _, t := range f.Twice {
		for i, value := range t.First {
			n := int64(1)
			if i == 0 {
				n = t.Count - int64(len(t.First)) + 1
			}
			found.breaks(n, fmt.Sprintf("payments with %s %s: more than one", t.What, value))
		}
	}
	return found
}

func states(f Facts) Finding {
	found := Finding{ID: "I6", Name: "states", Claim: "order, reservation and payment stand in a legal combination and agree"}
	cells := slices.Clone(f.Cells)
	slices.SortFunc(cells, func(a, b Cell) int { return strings.Compare(a.String(), b.String()) })
	byStatus := map[string]int64{}
	for _, c := range cells {
		byStatus[c.Order] += c.Count
		if why := c.illegal(); why != "" {
			found.breaks(c.Count, c.rows(c.String()+": "+why)...)
		}
	}
	found.Counted = fmt.Sprintf("%d CONFIRMED, %d CANCELLED, %d PENDING", byStatus["CONFIRMED"], byStatus["CANCELLED"], byStatus["PENDING"])
	return found
}

// legal are the combinations that an order goes through, as order, reservation, payment.
var legal = []string{
	"PENDING RESERVED -", "PENDING RESERVED SUCCEEDED", "PENDING RESERVED FAILED",
	"CONFIRMED COMMITTED SUCCEEDED",
	"CANCELLED RELEASED FAILED",
	"CANCELLED EXPIRED -", "CANCELLED EXPIRED FAILED", "CANCELLED EXPIRED SUCCEEDED",
	"- EXPIRED -", "- RELEASED -", "- RESERVED -", // seats held for no order come back when their time is over
}

// old are those that a service of the old schema leaves besides: it ends orders and does not touch their reservations.
var old = []string{"CONFIRMED RESERVED SUCCEEDED", "CANCELLED RESERVED FAILED"}

// illegal says what is wrong with a cell, "" where nothing is.
func (c Cell) illegal() string {
	name := c.String()
	switch {
	case !slices.Contains(legal, name) && (c.Ended || !slices.Contains(old, name)):
		return "no legal combination"
	case !c.Agrees:
		return "show, quantity or user differ"
	case c.Refund && name != "CANCELLED EXPIRED SUCCEEDED":
		return "it is marked to be paid back"
	case c.Order == "PENDING" && c.Ended:
		return "it has ended already"
	}
	return ""
}

// String is the cell's three states.
func (c Cell) String() string {
	words := []string{c.Order, c.Hold, c.Payment}
	for i, w := range words {
		if w == "" {
			words[i] = "-"
		}
	}
	return strings.Join(words, " ")
}

// rows names the first orders of a cell, each with a remark.
func (c Cell) rows(remark string) []string {
	rows := make([]string, len(c.First))
	for i, id := range c.First {
		rows[i] = fmt.Sprintf("order %d: %s", id, remark)
	}
	return rows
}

// events judges that what was sent has had its effect, is still on its way, or is a dead letter.
func events(f Facts) Finding {
	found := Finding{ID: "I5", Name: "events", Claim: "each event that was sent had its effect, once, or is a dead letter; none comes from nowhere"}
	known := map[string]bool{} // where they are
	for _, l := range f.Letters {
		known[l.ID] = true
	}
	for _, id := range f.Leaving {
		known[id] = true
	}
	lost := found.lost(f.Events.Unpaid, messages(f.Queues, contract.QueueOrderCreated), "order %d: its order.created is lost", func(id int64) bool {
		return known[messageID(contract.KeyOrderCreated, id)]
	})
	lost += found.lost(f.Events.Unsettled, messages(f.Queues, contract.QueuePaymentResults), "order %d: its payment's result is lost", func(id int64) bool {
		return known[messageID(contract.KeyPaymentSucceeded, id)] || known[messageID(contract.KeyPaymentFailed, id)]
	})
	found.some(f.Events.Unexpected, "order %d: paid for by another order's event")
	duplicates := 0
	if f.History != nil {
		for _, p := range f.History.Published {
			if p.As == AsAgain {
				duplicates++
			}
		}
	}
	found.Counted = fmt.Sprintf("%d sent, %d lost, %d unexpected, %d published again by others", f.Events.Sent, lost, f.Events.Unexpected.Count, duplicates)
	return found
}

// messageID is that of the event of an order.
func messageID(kind string, order int64) string { return fmt.Sprintf("%s:%d", kind, order) }

// lost counts those without an effect of which it is not known where they are, as far as they cannot be in the queue, where waiting
// messages are.
func (f *Finding) lost(without Some, waiting int64, row string, known func(id int64) bool) int64 {
	var missing []string
	found := int64(0)
	for _, id := range without.First {
		if known(id) {
			found++
		} else {
			missing = append(missing, fmt.Sprintf(row, id))
		}
	}
	n := max(0, without.Count-found-waiting)
	f.breaks(n, missing[:min(n, int64(len(missing)))]...)
	return n
}

// ends judges that no order left an end.
func ends(f Facts) Finding {
	found := Finding{ID: "I9", Name: "ends", Claim: "an order is accepted once and ends once, and stays as it ended"}
	found.twisted(f)
	found.Counted = fmt.Sprintf("%d of %d ended", f.Lives.Ended, f.Lives.Accepted)
	return found
}

// lapses judges that the seats of a hold that lapsed came back once; that their number is right is what seats judges.
func lapses(f Facts) Finding {
	found := Finding{ID: "I10", Name: "lapses", Claim: "the seats of a lapsed hold came back exactly once"}
	found.twisted(f)
	found.Counted = fmt.Sprintf("%s lapsed, %s back", counted(f.Lives.Lapsed, "hold"), counted(f.Lives.Seats, "seat"))
	return found
}

// twisted takes over what the orders' lives break of this invariant.
func (f *Finding) twisted(facts Facts) {
	for _, t := range facts.Lives.Broken {
		if t.Invariant == f.ID {
			f.some(t.Some, "order %d: "+strings.ReplaceAll(t.How, "%", "%%"))
		}
	}
}

// some breaks by rows of which the first are known by number.
func (f *Finding) some(s Some, row string) {
	named := make([]string, 0, min(len(s.First), most))
	for _, id := range s.First[:min(len(s.First), most)] {
		named = append(named, fmt.Sprintf(row, id))
	}
	f.breaks(s.Count, named...)
}

// onTheWay tells whether a queue's messages are on their way to an effect; dead letters and what others look at are not.
func onTheWay(queue string) bool {
	return queue == contract.QueueOrderCreated || queue == contract.QueuePaymentResults
}

// inQueues counts the messages that are on their way.
func inQueues(queues []Queue) int64 {
	return messages(queues, contract.QueueOrderCreated) + messages(queues, contract.QueuePaymentResults)
}

func messages(queues []Queue, name string) (n int64) {
	for _, q := range queues {
		if q.Name == name {
			n += q.Ready + q.Unacked
		}
	}
	return n
}

func counted(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
