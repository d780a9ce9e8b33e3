package platform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"platformctl/pkg/cluster"
	"platformctl/pkg/fault"
	"platformctl/pkg/host"
	"platformctl/pkg/plan"
)

const hostPrefix = "host/"

// toRun are the requirements that a run has to do with: optional ones only where they are to be mended, and can be.
func toRun(all []host.Requirement, fix bool) []host.Requirement {
	return slices.DeleteFunc(all, func(r host.Requirement) bool { return r.Optional && (!fix || r.Mend == nil) })
}

// hostSteps are requirements as steps. Without fix they only look: an unmet one fails with its cure. With fix they are mended; an
// optional one that cannot be is told, and passed over.
func hostSteps(requirements []host.Requirement, fix bool) []*plan.Step {
	byName := map[string]*plan.Step{}
	var steps []*plan.Step
	for _, r := range requirements {
		var unmet string // what the last Check saw
		passed := false  // an optional one that could not be mended
		step := &plan.Step{Name: hostPrefix + strings.TrimPrefix(r.Name, hostPrefix)}
		for _, name := range r.After {
			if before, ok := byName[name]; ok {
				step.After = append(step.After, before)
			}
		}
		step.Check = func(ctx context.Context) (string, error) {
			if passed {
				return "", nil
			}
			var err error
			unmet, err = r.Check(ctx)
			return unmet, err
		}
		step.Do = func(ctx context.Context, note func(plan.Note)) error {
			if !fix || r.Mend == nil {
				return r.Unmet(unmet)
			}
			err := r.Mend(ctx, func(line string) { note(plan.Note{Text: line}) })
			if err != nil && r.Optional && ctx.Err() == nil {
				note(plan.Note{Text: "passed over: " + err.Error()})
				passed, err = true, nil
			}
			return err
		}
		byName[r.Name] = step
		steps = append(steps, step)
	}
	return steps
}

// Ailment is one requirement of the machine, and what it lacks of it.
type Ailment struct {
	Name     string   `json:"name"`
	Why      string   `json:"why,omitempty"` // "" when it is met
	Optional bool     `json:"optional,omitempty"`
	Cure     []string `json:"cure,omitempty"` // what to type
}

// Doctor looks at what the machine offers, and changes nothing.
func (p *Platform) Doctor(ctx context.Context) ([]Ailment, error) {
	requirements := host.Requirements(p.machine(p.needs(ctx)))
	findings, err := plan.Look(ctx, hostSteps(requirements, true)...)
	if err != nil {
		return nil, err
	}
	all := make([]Ailment, len(requirements))
	for i, r := range requirements { // Look keeps their order: each comes after those it waits for
		f := findings[i]
		all[i] = Ailment{Name: r.Name, Why: f.Why, Optional: r.Optional}
		switch {
		case f.Err != nil:
			all[i].Why = f.Err.Error()
		case f.Until != "":
			all[i].Why = "unknown until " + strings.TrimPrefix(f.Until, hostPrefix) + " is met"
			continue
		}
		if !f.Holds() {
			all[i].Cure = r.Cure
		}
	}
	leftovers, err := p.leftovers(ctx)
	return append(all, leftovers...), err
}

// leftovers are what is in the way of a run, or was left behind by one, that is no requirement of the machine's.
func (p *Platform) leftovers(ctx context.Context) ([]Ailment, error) {
	port := Ailment{Name: "platform/port", Optional: true}
	half := Ailment{Name: "platform/cluster", Optional: true}
	state, err := p.inspect(ctx)
	if err == nil { // else the engine's requirements have said why
		p.port = state.APIPort
		if p.port == 0 {
			p.port = defaultPort
		}
		if state.Phase != cluster.Running {
			var taken *fault.Error
			switch err := p.portFree(ctx, state); {
			case errors.As(err, &taken):
				port.Why, port.Cure = err.Error(), strings.Split(taken.Cure, "\n")
			case err != nil:
				return nil, err
			}
		}
		if state.Phase == cluster.Half {
			half.Why = "an earlier run left cluster " + p.set.Cluster + " half made: " + state.Why
			half.Cure = []string{"platformctl up" + p.flag() + "   # finishes it", "platformctl down" + p.flag()}
		}
	}
	caches := Ailment{Name: "platform/caches", Optional: true}
	left, err := p.cache.Unused(func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	if len(left) > 0 {
		var size int64
		for _, e := range left {
			size += e.Size
		}
		caches.Why = fmt.Sprintf("runs that were killed, or are at work now, have %d MB in work folders of the cache", size/1_000_000)
		caches.Cure = []string{"platformctl images prune   # leaves alone what is at work"}
	}
	return []Ailment{port, half, caches}, nil
}

// Mend does what Doctor's cures say, each command noted before it runs.
func (p *Platform) Mend(ctx context.Context, on func(plan.Event)) error {
	return plan.Run(ctx, on, hostSteps(toRun(host.Requirements(p.machine(p.needs(ctx))), true), true)...)
}
