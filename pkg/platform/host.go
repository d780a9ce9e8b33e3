package platform

import (
	"context"
	"strings"

	"platformctl/pkg/host"
	"platformctl/pkg/plan"
)

const hostPrefix = "host/"

// hostSteps are the machine's requirements as steps. Without fix they only look: an unmet one fails with its cure, and an
// optional one is passed over. With fix they are mended; an optional one that cannot be is told, and passed over.
func hostSteps(requirements []host.Requirement, fix bool) []*plan.Step {
	byName := map[string]*plan.Step{}
	var steps []*plan.Step
	for _, r := range requirements {
		if r.Optional && !fix {
			continue
		}
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
	return all, nil
}

// Mend does what Doctor's cures say, each command noted before it runs.
func (p *Platform) Mend(ctx context.Context, on func(plan.Event)) error {
	return plan.Run(ctx, on, hostSteps(host.Requirements(p.machine(p.needs(ctx))), true)...)
}
