package inspect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"platformctl/pkg/contract"
)

// Trace is an order's life as a tree: each step was caused by the nearest one above it that is less deep.
type Trace struct {
	Life
	ID    string `json:"traceId"` // W3C's, "" where nobody noted it
	Steps []Step `json:"steps"`
	Waits string `json:"waits,omitempty"` // what it waits for, where it has not ended
}

// Step is something that happened to an order.
type Step struct {
	At    time.Time `json:"at"`
	Depth int       `json:"depth"`
	What  string    `json:"what"`
	Pod   string    `json:"pod,omitempty"`
}

// depths of the tree: what order-api does with the request, what payment-service does with the order, and what order-api does with
// the payment.
const (
	atRequest = iota
	inOrder
	atPayment
	inPayment
	atResult
	inResult
)

// Tell makes a tree of a life. queues and letters, which may be nil, are what the broker knows of an order that has not ended.
func Tell(l Life, queues []QueueState, letters []Letter) Trace {
	t := Trace{Life: l}
	for _, h := range l.Hops {
		if h.Trace != "" && t.ID == "" {
			t.ID = contract.ParseTrace(h.Trace).ID()
		}
		t.Steps = append(t.Steps, steps(l, h)...)
	}
	t.Steps = ordered(t.Steps)
	if l.Status == "PENDING" {
		t.Waits = waits(l, queues, letters)
	}
	return t
}

// steps are what a row of the history tells of.
func steps(l Life, h Hop) []Step {
	began := func(depth int, what string) []Step {
		if h.Began == nil {
			return nil
		}
		return append(had(h, depth), Step{*h.Began, depth, what, h.Pod})
	}
	delivered := "delivered to"
	if h.Tries > 1 {
		delivered = fmt.Sprintf("delivered for the %s time, to", ordinal(h.Tries))
	}
	seats := fmt.Sprintf("%d seats", l.Quantity)
	if l.Quantity == 1 {
		seats = "1 seat"
	}
	key, sent := strings.CutPrefix(h.Hop, "sent ")
	switch {
	case sent && key == contract.KeyOrderCreated:
		return []Step{{h.At, inOrder, key + " confirmed by the broker" + inOutbox(h), ""}}
	case sent:
		return []Step{{h.At, inPayment, key + " confirmed by the broker" + inOutbox(h), ""}}
	}
	switch h.Hop {
	case "accepted":
		return append(began(atRequest, "request at"), Step{h.At, inOrder, seats + " held, order and event stored", ""})
	case "payment_succeeded", "payment_failed":
		what := "payment " + strings.ToUpper(strings.TrimPrefix(h.Hop, "payment_"))
		if l.Payment != nil {
			what += fmt.Sprintf(", %d", l.Payment.Amount)
		}
		return append(began(atPayment, delivered), Step{h.At, inPayment, what + ", and its event stored", ""})
	case "created_again":
		return append(began(atPayment, delivered), Step{h.At, inPayment, "nothing to do: it had a payment", ""})
	case "confirmed":
		if slices.ContainsFunc(l.Hops, func(h Hop) bool { return h.Hop == "unheard" }) {
			return []Step{{h.At, inOrder, "CONFIRMED, paid as its hold ran out, seen by", h.Pod}}
		}
		return append(began(atResult, delivered), Step{h.At, inResult, "CONFIRMED, " + seats + " sold", ""})
	case "cancelled":
		return append(began(atResult, delivered), Step{h.At, inResult, "CANCELLED, " + seats + " free again", ""})
	case "result_again":
		return append(began(atResult, delivered), Step{h.At, inResult, "nothing to do: it had ended", ""})
	case "expired":
		return []Step{{h.At, inOrder, "CANCELLED, its hold ran out, seen by", h.Pod}}
	case "unheard":
		return nil // its confirmed tells it
	case "heard":
		return []Step{{h.At, inResult, "nothing to do: its result came late", ""}}
	case "refund_due":
		return []Step{{h.At, inResult, "too late: the payment is to be paid back", ""}}
	}
	return []Step{{h.At, inOrder, h.Hop, h.Pod}}
}

// had are the pods that had a message before, as far as that is known. When they let it go is not: it is told when it came again.
func had(h Hop, depth int) []Step {
	if h.Tries < 2 {
		return nil
	}
	if len(h.Before) == 0 {
		return []Step{{*h.Began, depth, "delivered before, nobody noted to whom", ""}}
	}
	certain := int64(len(h.Before)) < h.Tries
	var steps []Step
	for _, s := range h.Before {
		what := "unfinished by a pod that died:"
		switch {
		case certain && s.Ended != nil:
			what = "let go, as its session ended, by"
		case !certain && s.Ended != nil:
			what = "perhaps with one that ended:"
		case !certain:
			what = "perhaps with one that died:"
		}
		steps = append(steps, Step{*h.Began, depth, what, s.Pod})
	}
	return steps
}

// inOutbox tells how long an event lay in the outbox, from its storing to its confirm.
func inOutbox(h Hop) string {
	if h.Began == nil {
		return ""
	}
	return fmt.Sprintf(" after %s", span(h.At.Sub(*h.Began)))
}

// span is a short time with the digits that tell it from others.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d.Microseconds())/1000)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return d.Round(100 * time.Millisecond).String()
}

func ordinal(n int64) string {
	if last := n % 10; n%100 < 11 || n%100 > 13 {
		switch last {
		case 1:
			return fmt.Sprintf("%dst", n)
		case 2:
			return fmt.Sprintf("%dnd", n)
		case 3:
			return fmt.Sprintf("%drd", n)
		}
	}
	return fmt.Sprintf("%dth", n)
}

// ordered puts causes before their effects: the confirm of an event is noted after the event may have been delivered.
func ordered(steps []Step) []Step {
	var out []Step
	place := func(from, to int) {
		for _, s := range steps {
			if s.Depth >= from && s.Depth <= to {
				out = append(out, s)
			}
		}
	}
	place(atRequest, inOrder)
	place(atPayment, inPayment)
	place(atResult, inResult)
	return out
}

// QueueState is a queue as the broker has it at one moment.
type QueueState struct {
	Name      string `json:"name"`
	Messages  int    `json:"messages"` // that no consumer has in hand
	Consumers int    `json:"consumers"`
}

// waits says what an order without an end waits for.
func waits(l Life, queues []QueueState, letters []Letter) string {
	if len(l.Outbox) > 0 {
		e := l.Outbox[0]
		pod, _, _ := strings.Cut(e.Relay, "/")
		what := fmt.Sprintf("for the broker to confirm %s: it is in the outbox since %s", e.Key, span(l.At.Sub(e.Created)))
		switch {
		case pod == "" || e.Lease == nil:
			return what + ", and no relay has it yet"
		case e.Lease.Before(l.At):
			return what + ", and the lease of " + ShortPod(pod) + " is over: the next relay of that service takes it"
		}
		return what + ", in the hands of " + ShortPod(pod)
	}
	for _, letter := range letters {
		if letter.Order == l.Order {
			return fmt.Sprintf("for you: its %s is dead letter %s: %s", letter.Key, letter.ID, letter.Reason)
		}
	}
	service, queue, event := "payment-service", contract.QueueOrderCreated, contract.KeyOrderCreated
	if l.Payment != nil {
		service, queue, event = "order-api", contract.QueuePaymentResults, "its payment's result"
	}
	what := fmt.Sprintf("for %s to take %s from %s", service, event, queue)
	for _, q := range queues {
		switch {
		case q.Name == queue && q.Messages == 0 && q.Consumers > 0:
			what = fmt.Sprintf("for %s to be done with %s, which it has in hand", service, event)
		case q.Name == queue:
			what += fmt.Sprintf(" (%d waiting there, %d consumers)", q.Messages, q.Consumers)
		}
	}
	if l.Expires != nil {
		if left := l.Expires.Sub(l.At); left > 0 {
			what += fmt.Sprintf("; its hold runs out in %s", left.Round(time.Second))
		} else {
			what += fmt.Sprintf("; its hold ran out %s ago", (-left).Round(time.Second))
		}
	}
	return what
}

// ShortPod is a pod's name without what a release's pods share: "order-api-order-api-chart-6ffb888d48-pxvz9" is "order-api pxvz9".
func ShortPod(pod string) string {
	for _, service := range []string{"order-api", "payment-service"} {
		if rest, ok := strings.CutPrefix(pod, service+"-"); ok {
			return service + " " + rest[strings.LastIndex(rest, "-")+1:]
		}
	}
	return pod
}

// Lines draws the tree: a line a step, with the time since the first step and since the one before.
func (t Trace) Lines() []string {
	var lines []string
	for i, s := range t.Steps {
		var at, took string
		at = span(s.At.Sub(t.Steps[0].At))
		if i > 0 {
			took = "+" + span(s.At.Sub(t.Steps[i-1].At))
		}
		lines = append(lines, fmt.Sprintf("%8s %8s  %s%s", at, took, branches(t.Steps, i), s.text()))
	}
	return lines
}

// Line is a step as it is told the moment it is known, when nobody knows what comes after it: with the time since the first one, and
// the further to the right, the later in the order's life.
func (s Step) Line(since time.Time) string {
	return fmt.Sprintf("%8s  %s%s", span(s.At.Sub(since)), strings.Repeat("   ", level(s)), s.text())
}

// text is what happened, and where.
func (s Step) text() string { return strings.TrimSpace(s.What + " " + ShortPod(s.Pod)) }

// branches are what is drawn before a step: its own branch, and those of the steps that it stands under and that go on below it.
func branches(steps []Step, i int) string {
	drawn := level(steps[i])
	if drawn == 0 {
		return ""
	}
	goesOn := func(at int) bool {
		for _, s := range steps[i+1:] {
			if level(s) <= at {
				return level(s) == at
			}
		}
		return false
	}
	var b strings.Builder
	for at := 1; at < drawn; at++ {
		if goesOn(at) {
			b.WriteString("│  ")
		} else {
			b.WriteString("   ")
		}
	}
	if goesOn(drawn) {
		return b.String() + "├─ "
	}
	return b.String() + "└─ "
}

// level is how far to the right a step is drawn: what a delivery leads to stands under it.
func level(s Step) int { return (s.Depth + 1) / 2 }

// Longest is the longest time between two steps, and what it came before.
func (t Trace) Longest() (longest time.Duration, before string) {
	for i := 1; i < len(t.Steps); i++ {
		if took := t.Steps[i].At.Sub(t.Steps[i-1].At); took > longest {
			longest, before = took, t.Steps[i].text()
		}
	}
	return longest, before
}
