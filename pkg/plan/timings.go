package plan

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// Span is what one step took of a run.
type Span struct {
	Step  string
	Kind  Kind // how it ended; "" if it had not when the record ends
	Cause string
	Began time.Time // of the look at it
	Took  time.Duration

	after []string
}

// MarshalJSON writes times as users measure them.
func (s Span) MarshalJSON() ([]byte, error) { return json.Marshal(s.view()) }

type spanView struct {
	Step   string    `json:"step"`
	Kind   Kind      `json:"ended,omitempty"`
	Cause  string    `json:"cause,omitempty"`
	Began  time.Time `json:"began"`
	TookMS int64     `json:"tookMs"`
}

func (s Span) view() spanView {
	return spanView{s.Step, s.Kind, s.Cause, s.Began, s.Took.Milliseconds()}
}

func (s Span) end() time.Time { return s.Began.Add(s.Took) }

// Link is a step that the run waited for, and what ran beside it.
type Link struct {
	Span
	Beside []Span // the longest first; each span stands beside the link that it shares the most time with
}

// MarshalJSON writes a span with what ran beside it.
func (l Link) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		spanView
		Beside []Span `json:"beside"`
	}{l.view(), append([]Span{}, l.Beside...)})
}

// Timings tells where the time of a run went.
type Timings struct {
	Began time.Time
	Took  time.Duration
	Steps int    // that were planned
	Chain []Link // what the run waited for, one after the other; the critical path
}

// MarshalJSON writes times as users measure them.
func (t Timings) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Began  time.Time `json:"began"`
		TookMS int64     `json:"tookMs"`
		Steps  int       `json:"steps"`
		Chain  []Link    `json:"chain"`
	}{t.Began, t.Took.Milliseconds(), t.Steps, append([]Link{}, t.Chain...)})
}

// Time reads the timings out of the events of a run, also of one that failed or was cut off. The chain is found from its end:
// the step that ended last, before it the one of those it waited for that ended last, and so on.
func Time(events []Event) Timings {
	if len(events) == 0 {
		return Timings{}
	}
	last := events[len(events)-1].Time
	t := Timings{Began: events[0].Time, Took: last.Sub(events[0].Time)}
	spans := map[string]*Span{}
	for _, e := range events {
		switch e.Kind {
		case Planned:
			t.Steps++
			spans[e.Step] = &Span{Step: e.Step, after: e.After}
			continue
		}
		s := spans[e.Step]
		if s == nil {
			continue // of a step that was not planned nothing can be said
		}
		switch e.Kind {
		case Checking:
			s.Began = e.Time
		case Doing:
			s.Cause = e.Cause
		case Already, Done, Failed, Stopped:
			s.Kind, s.Took = e.Kind, e.Time.Sub(s.Began)
		}
	}
	var final *Span
	for _, s := range spans {
		if s.Began.IsZero() {
			delete(spans, s.Step)
			continue
		}
		if s.Kind == "" {
			s.Took = last.Sub(s.Began)
		}
		final = later(final, s)
	}
	for s := final; s != nil; {
		t.Chain = append(t.Chain, Link{Span: *s})
		delete(spans, s.Step)
		var before *Span
		for _, name := range s.after {
			if b := spans[name]; b != nil {
				before = later(before, b)
			}
		}
		s = before
	}
	slices.Reverse(t.Chain)
	for _, s := range spans {
		beside(t.Chain, *s)
	}
	for i := range t.Chain {
		slices.SortFunc(t.Chain[i].Beside, func(a, b Span) int {
			return cmp.Or(cmp.Compare(b.Took, a.Took), cmp.Compare(a.Step, b.Step))
		})
	}
	return t
}

// later is the span that ended later: one that had not ended at all, and of two that ended at once the one that took longer, which
// is the one that was waited for.
func later(a, b *Span) *Span {
	if a == nil {
		return b
	}
	open := func(s *Span) int {
		if s.Kind == "" {
			return 1
		}
		return 0
	}
	if cmp.Or(cmp.Compare(open(a), open(b)), a.end().Compare(b.end()), cmp.Compare(a.Took, b.Took), cmp.Compare(b.Step, a.Step)) < 0 {
		return b
	}
	return a
}

// beside puts a span beside the link that it shares the most time with; where it shares none, beside the first that ends after it.
func beside(chain []Link, s Span) {
	best, most := -1, time.Duration(-1)
	for i, l := range chain {
		from, to := l.Began, l.end()
		if s.Began.After(from) {
			from = s.Began
		}
		if s.end().Before(to) {
			to = s.end()
		}
		if shared := max(0, to.Sub(from)); shared > most {
			best, most = i, shared
		}
	}
	if best >= 0 {
		chain[best].Beside = append(chain[best].Beside, s)
	}
}
