package terminal

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"platformctl/pkg/plan"
)

// waitShown is the age from which on a step at work says what it waits for: shorter waits are nobody's business.
const waitShown = 5 * time.Second

// progress is what the events have told so far; live and plain draw it.
type progress struct {
	began   time.Time // the first event of the run
	steps   int       // planned
	already int
	done    int
	skipped int
	name    int            // the width of the longest name
	running []*running     // in the plan's order
	known   map[string]int // planned and not yet ended, and where in the plan
	groups  map[string]group
}

// running is a step between Checking and its end.
type running struct {
	step  string
	since time.Time // of Doing; before that, of Checking
	doing bool
	cause string
	note  plan.Note
	told  told // plain's memory
}

// take notes an event and returns the step it is about while that runs, else nil.
func (p *progress) take(e plan.Event) *running {
	if len(p.known) == 0 {
		// A run begins when the one before has ended: its figures are its own.
		*p = progress{began: e.Time, name: p.name, known: map[string]int{}, groups: map[string]group{}}
	}
	p.name = max(p.name, len(e.Step))
	switch e.Kind {
	case plan.Planned:
		p.known[e.Step] = p.steps
		p.steps++
	case plan.Checking:
		p.running = append(p.running, &running{step: e.Step, since: e.Time})
		slices.SortStableFunc(p.running, func(a, b *running) int { return p.known[a.step] - p.known[b.step] })
	case plan.Doing:
		if r := p.find(e.Step); r != nil {
			r.doing, r.since, r.cause = true, e.Time, e.Cause
		}
	case plan.Noted:
		if r := p.find(e.Step); r != nil {
			r.note = e.Note
		}
	case plan.Already, plan.Done, plan.Failed, plan.Stopped, plan.Skipped:
		p.end(e)
	}
	return p.find(e.Step)
}

func (p *progress) end(e plan.Event) {
	switch e.Kind {
	case plan.Already:
		p.already++
		g := p.groups[family(e.Step)]
		g.last, g.steps, g.took = e.Step, g.steps+1, max(g.took, e.Took)
		p.groups[family(e.Step)] = g
	case plan.Done:
		p.done++
	case plan.Skipped:
		p.skipped++
	}
	delete(p.known, e.Step)
	for i, r := range p.running {
		if r.step == e.Step {
			p.running = append(p.running[:i], p.running[i+1:]...)
			break
		}
	}
}

func (p *progress) find(step string) *running {
	for _, r := range p.running {
		if r.step == step {
			return r
		}
	}
	return nil
}

// group is what there was already of a family of steps, "host/disk" and "host/memory": where nothing was to do, one line
// tells enough.
type group struct {
	last  string // of its steps
	steps int
	took  time.Duration // the longest
}

func (g group) String() string {
	if g.steps == 1 {
		return g.last
	}
	return fmt.Sprintf("%s (%d)", family(g.last), g.steps)
}

func family(step string) string {
	name, _, _ := strings.Cut(step, "/")
	return name
}

// settled returns the group of a step that has just ended, if that was the last of its family and the group is not empty.
func (p *progress) settled(step string) (group, bool) {
	if _, runs := p.known[step]; runs {
		return group{}, false
	}
	for other := range p.known {
		if family(other) == family(step) {
			return group{}, false
		}
	}
	g, ok := p.groups[family(step)]
	delete(p.groups, family(step))
	return g, ok
}

// summary is the last line of a run, once all its steps have ended; before that it is "".
func (p *progress) summary(now time.Time) string {
	switch {
	case len(p.known) > 0 || p.steps == 0:
		return ""
	case p.skipped > 0:
		return fmt.Sprintf("%s not begun", steps(p.skipped))
	case p.already+p.done < p.steps:
		return ""
	case p.already == p.steps:
		return fmt.Sprintf("nothing to do: %s already, %s", steps(p.steps), Duration(now.Sub(p.began)))
	}
	return fmt.Sprintf("%s, %d of them already, %s", steps(p.steps), p.already, Duration(now.Sub(p.began)))
}

func steps(n int) string {
	if n == 1 {
		return "1 step"
	}
	return fmt.Sprintf("%d steps", n)
}
