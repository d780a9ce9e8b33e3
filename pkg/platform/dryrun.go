package platform

import (
	"context"
	"errors"
	"slices"
	"strings"

	"platformctl/pkg/cluster"
	"platformctl/pkg/fault"
	"platformctl/pkg/plan"
)

// Intent is what Up would do about one step.
type Intent string

// The intents.
const (
	Keep    Intent = "keep"    // it is as it should be
	Mend    Intent = "mend"    // of the machine
	Build   Intent = "build"   // of an image
	Pull    Intent = "pull"    // of an image
	Create  Intent = "create"  // it is not there
	Start   Intent = "start"   // it is stopped
	Load    Intent = "load"    // of an image into the node
	Change  Intent = "change"  // it is there and differs
	Wait    Intent = "wait"    // it is on its way
	Refuse  Intent = "refuse"  // Up would end here
	Unknown Intent = "unknown" // it cannot be told before another step is done
)

// Foresight is what Up would do about one step, and why.
type Foresight struct {
	Step     string   `json:"step"`
	Intent   Intent   `json:"intent"`
	Why      string   `json:"why,omitempty"`      // the cause; "" for Keep
	Differs  []string `json:"differs,omitempty"`  // all in which it differs
	Restarts []string `json:"restarts,omitempty"` // workloads whose pods would be replaced
	Until    string   `json:"until,omitempty"`    // for Unknown: the step to be done first
	Cure     string   `json:"cure,omitempty"`     // for Refuse
}

// Foresee tells what Up would do, step by step, and does nothing. What it cannot tell, since a step before has yet to be done,
// is Unknown; without a cluster all that would be in it is to be created. The error is for a look that failed for another reason
// than that Up would refuse.
func (p *Platform) Foresee(ctx context.Context) ([]Foresight, error) {
	goals, err := p.upSteps(ctx)
	if err != nil {
		return nil, err
	}
	findings, err := plan.Look(ctx, goals...)
	if err != nil {
		return nil, err
	}
	// Without an engine there is no cluster either; that it is missing is told by the host's steps.
	phase := cluster.Absent
	if state, err := p.inspect(ctx); err == nil {
		phase = state.Phase
	}
	var all []Foresight
	for _, f := range findings {
		if f.Step == "node" || f.Step == "old-images" {
			continue // the beginning of the cluster, and what a roll-out leaves behind
		}
		seen, err := p.foresee(ctx, f, phase)
		if err != nil {
			return nil, err
		}
		all = append(all, seen)
	}
	return all, nil
}

func (p *Platform) foresee(ctx context.Context, f plan.Finding, phase cluster.Phase) (Foresight, error) {
	family, name, _ := strings.Cut(f.Step, "/")
	seen := Foresight{Step: f.Step, Why: f.Why}
	switch {
	case f.Holds():
		seen.Intent = Keep
		return seen, nil
	case f.Err != nil:
		if code := fault.CodeOf(f.Err); code != fault.CodeUsage && code != fault.CodeUnfit {
			return seen, f.Err
		}
		seen.Intent, seen.Why, seen.Cure = Refuse, f.Err.Error(), fault.CureOf(f.Err)
		return seen, nil
	case f.Until != "":
		return p.foreseeUnknown(ctx, seen, f.Until, phase)
	}
	p.detailing.Lock()
	d := p.details[f.Step]
	p.detailing.Unlock()
	seen.Differs, seen.Restarts = d.Lines, d.Restarts
	switch family {
	case "host":
		if seen.Intent = Mend; !p.set.Fix {
			seen.Intent, seen.Cure = Refuse, "platformctl doctor --fix"
		}
	case "content":
		seen.Intent = Build
	case "image":
		seen.Intent = Build
		if s, err := FindService(name); p.decided == Registry && (name == "node" || err == nil && !s.Ours) {
			seen.Intent = Pull
		}
	case "cluster":
		seen.Intent = map[cluster.Phase]Intent{cluster.Stopped: Start, cluster.Running: Wait}[phase]
		if seen.Intent == "" {
			seen.Intent = Create
		}
	case "load":
		seen.Intent = Load
	case "release":
		switch {
		case len(d.Lines) == 0:
			seen.Intent = Wait // it is installed, and its pods are not ready
		case d.Revision == 0:
			seen.Intent = Create
		default:
			seen.Intent = Change
		}
	case "api":
		seen.Intent = Wait
	case "kubeconfig":
		seen.Intent = Change
	default:
		seen.Intent = Change
		if len(d.Lines) > 0 && !slices.ContainsFunc(d.Lines, func(line string) bool { return !strings.HasSuffix(line, " is missing") }) {
			seen.Intent = Create
		}
	}
	return seen, nil
}

// foreseeUnknown tells what can be told of a step that waits for another.
func (p *Platform) foreseeUnknown(ctx context.Context, seen Foresight, until string, phase cluster.Phase) (Foresight, error) {
	seen.Intent, seen.Until = Unknown, until
	family, name, _ := strings.Cut(seen.Step, "/")
	nothing := phase == cluster.Absent || phase == cluster.Half
	switch {
	case nothing && family == "image":
	case nothing && family == "content":
		seen.Intent, seen.Until, seen.Why = Build, "", "the images are yet to be made"
	case nothing && family == "volumes":
		seen.Intent, seen.Until = Keep, "" // there is none to change
	case nothing && family == "api":
		seen.Intent, seen.Until, seen.Why = Wait, "", "there is no cluster yet"
	case nothing && family == "load":
		seen.Intent, seen.Until, seen.Why = Load, "", "there is no cluster yet"
	case nothing && family != "port" && family != "values":
		seen.Intent, seen.Until, seen.Why = Create, "", "there is no cluster yet"
	case family == "load" && until == "image/"+name:
		seen.Why = "what is built decides whether the node has it"
	case family == "release" && until == "image/"+name && p.filled != nil:
		return p.foreseeRest(ctx, seen, name)
	}
	return seen, nil
}

// foreseeRest tells of a release whose image is to be built in what else it differs: it is compared as if it kept the image that
// it has.
func (p *Platform) foreseeRest(ctx context.Context, seen Foresight, name string) (Foresight, error) {
	s, err := FindService(name)
	if err != nil {
		return seen, err
	}
	helm, err := p.helm(ctx)
	if err != nil {
		return seen, err
	}
	images, err := helm.Installed(ctx, s.Release, s.Namespace)
	if err != nil {
		return seen, err
	}
	if len(images) != 1 {
		seen.Intent, seen.Until, seen.Why = Create, "", "it is not installed"
		return seen, nil
	}
	spec, err := p.deployed(ctx, s, images[0])
	if err != nil {
		return seen, err
	}
	d, err := helm.Explain(ctx, spec)
	if err != nil {
		return seen, err
	}
	if len(d.Lines) > 0 {
		seen.Intent, seen.Differs, seen.Restarts = Change, d.Lines, d.Restarts
	}
	spec, err = p.deployed(ctx, s, unbuilt(s))
	if err != nil {
		return seen, err
	}
	rebuilt, err := helm.Explain(ctx, spec)
	if err != nil {
		return seen, err
	}
	seen.Why = "its image is to be built; if the program in it is another one, that restarts " + strings.Join(rebuilt.Restarts, ", ")
	return seen, nil
}

// Refused is the fault that Up would end with, of what was foreseen; nil where it would refuse nothing.
func Refused(all []Foresight) error {
	for _, f := range all {
		if f.Intent != Refuse {
			continue
		}
		code := fault.CodeUsage
		if family, _, _ := strings.Cut(f.Step, "/"); family == "host" || f.Step == "port" || f.Step == "cluster" {
			code = fault.CodeUnfit
		}
		return fault.New(code, f.Cure, "%w", errors.New("up would be refused: "+f.Step+": "+f.Why))
	}
	return nil
}
