package plan

import "context"

// Finding is what a look at one step found.
type Finding struct {
	Step  string
	Why   string // "" when the state holds; else the cause
	Until string // the step whose state must hold before this one can be looked at; Why is "" then, and means nothing
	Err   error  // the look itself failed
}

// Holds tells whether the step's state is there.
func (f Finding) Holds() bool { return f.Why == "" && f.Until == "" && f.Err == nil }

// Look checks the goals and all that they wait for, in order, and does nothing. Behind a step that does not hold the rest is
// unknown until it does.
func Look(ctx context.Context, goals ...*Step) ([]Finding, error) {
	steps, err := order(goals)
	if err != nil {
		return nil, err
	}
	open := map[*Step]string{} // steps that do not hold, and the first step to blame
	findings := make([]Finding, 0, len(steps))
	for _, s := range steps {
		f := Finding{Step: s.Name}
		for _, before := range s.After {
			if blame, ok := open[before]; ok {
				f.Until = blame
				break
			}
		}
		if f.Until == "" {
			f.Why, f.Err = s.Check(ctx)
		}
		switch {
		case f.Until != "":
			open[s] = f.Until
		case !f.Holds():
			open[s] = s.Name
		}
		findings = append(findings, f)
	}
	return findings, ctx.Err()
}
