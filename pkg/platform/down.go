package platform

import (
	"context"
	"fmt"

	"platformctl/pkg/cluster"
	"platformctl/pkg/host"
	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
)

// Losses lists what Down would delete for good, a line each; empty when there is nothing to lose.
func (p *Platform) Losses(ctx context.Context) ([]string, error) {
	state, err := p.inspect(ctx)
	if err != nil {
		return nil, err
	}
	switch state.Phase {
	case cluster.Foreign:
		return nil, p.foreign(state)
	case cluster.Absent, cluster.Half:
		return nil, nil
	}
	return []string{
		"cluster " + p.set.Cluster + " with all that runs in it",
		"the orders and payments in its PostgreSQL, the messages in its RabbitMQ",
	}, nil
}

// Down deletes the cluster and what Up added to the user's files; the caches stay. With engine it also stops an engine that
// we started. It is no error when nothing is there.
func (p *Platform) Down(ctx context.Context, engine bool, on func(plan.Event)) error {
	locked := p.lock.step()
	gone := &plan.Step{
		Name: "cluster", After: []*plan.Step{locked}, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (string, error) {
			state, err := p.inspect(ctx)
			if err != nil {
				return "", err
			}
			switch state.Phase {
			case cluster.Absent:
				if forgotten, err := p.cluster.Forgotten(); err != nil || forgotten {
					return "", err
				}
				return "a run that deleted it was cut off", nil
			case cluster.Foreign:
				return "", p.foreign(state)
			}
			return "it is " + string(state.Phase), nil
		},
		Do: func(ctx context.Context, _ func(plan.Note)) error { return p.cluster.Delete(ctx) },
	}
	forgotten := &plan.Step{
		Name: "kubeconfig", After: []*plan.Step{locked},
		Check: func(context.Context) (string, error) {
			files, err := p.cluster.ContextFiles()
			if err != nil || len(files) == 0 {
				return "", err
			}
			return "context " + p.cluster.Context() + " is in " + files[0], nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			change, err := p.cluster.RemoveContext(ctx)
			if err != nil {
				return err
			}
			for _, file := range change.Files {
				note(plan.Note{Text: "took context " + change.Context + " out of " + file})
			}
			for _, left := range change.Left {
				note(plan.Note{Text: left})
			}
			return nil
		},
	}
	goals := []*plan.Step{gone, forgotten}
	if engine {
		stopped := false
		goals = append(goals, &plan.Step{
			Name: "engine", After: []*plan.Step{gone}, Timeout: p.set.Timeout,
			Check: func(context.Context) (string, error) {
				if stopped {
					return "", nil
				}
				return "it is to be stopped, if platformctl started it", nil
			},
			Do: func(ctx context.Context, note func(plan.Note)) error {
				ours, err := p.machine(host.Needs{}).StopEngine(ctx, func(line string) { note(plan.Note{Text: line}) })
				if err != nil {
					return err
				}
				if !ours {
					note(plan.Note{Text: "it was not started by platformctl, and goes on"})
				}
				stopped = true
				return nil
			},
		})
	}
	return p.change(ctx, "down", on, goals...)
}

// CleanupList lists what Cleanup would delete, a line each.
func (p *Platform) CleanupList(ctx context.Context) ([]string, error) {
	if _, err := p.running(ctx); err != nil {
		return nil, err
	}
	var lines []string
	releases, err := p.releases(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range Services() {
		if _, ok := releases[s.Release]; ok {
			lines = append(lines, "release "+s.Release+" in namespace "+s.Namespace)
		}
	}
	present, err := p.presentNamespaces(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range present {
		lines = append(lines, "namespace "+name+" with all data in it")
	}
	return lines, nil
}

// Cleanup deletes the releases and the namespaces with their data; the cluster stays.
func (p *Platform) Cleanup(ctx context.Context, on func(plan.Event)) error {
	if _, err := p.running(ctx); err != nil {
		return err
	}
	locked := p.lock.step()
	var uninstalled []*plan.Step
	for _, s := range Services() {
		uninstalled = append(uninstalled, p.uninstallStep(s, locked))
	}
	gone := &plan.Step{
		Name: "namespaces", After: uninstalled, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (string, error) {
			present, err := p.presentNamespaces(ctx)
			if err != nil || len(present) == 0 {
				return "", err
			}
			return fmt.Sprintf("%v are there", present), nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			return p.kube.DeleteNamespaces(ctx, func(t kube.Trouble) { note(waitingFor(t)) }, Namespaces()...)
		},
	}
	return p.change(ctx, "cleanup", on, gone)
}

func (p *Platform) presentNamespaces(ctx context.Context) ([]string, error) {
	wanted, err := namespaces(ctx)
	if err != nil {
		return nil, err
	}
	var present []string
	for _, o := range wanted {
		live, err := p.kube.Get(ctx, o)
		if err != nil {
			return nil, err
		}
		if live != nil {
			present = append(present, o.GetName())
		}
	}
	return present, nil
}

func waitingFor(t kube.Trouble) plan.Note {
	return plan.Note{Text: "waiting", Object: t.Object, Reason: t.Reason, Message: t.Message}
}
