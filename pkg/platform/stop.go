package platform

import (
	"context"
	"errors"

	"platformctl/pkg/cluster"
	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
)

// Stop stops the cluster: its memory and its processors' time are free, and all that is in it stays. It is no error when
// nothing runs.
func (p *Platform) Stop(ctx context.Context, on func(plan.Event)) error {
	stopped := &plan.Step{
		Name: "cluster", After: []*plan.Step{p.lock.step()}, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (string, error) {
			state, err := p.inspect(ctx)
			if err != nil {
				return "", err
			}
			switch state.Phase {
			case cluster.Running:
				return "it is running", nil
			case cluster.Stopped:
				if state.Ending {
					return "an earlier stop was cut off", nil
				}
			case cluster.Foreign:
				return "", p.foreign(state)
			case cluster.Half:
				return "", p.unfinished()
			}
			return "", nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			note(plan.Note{Text: "waiting for the servers to write down what they have"})
			return p.cluster.Stop(ctx)
		},
	}
	return p.change(ctx, "stop", on, stopped)
}

// Start brings back what Stop, a restarted engine or a restarted machine stopped, and returns the API's address when the
// platform takes orders again. It makes and upgrades nothing: what is not there is a fault with exit code 3.
func (p *Platform) Start(ctx context.Context, on func(plan.Event)) (api string, err error) {
	defer func() { err = errors.Join(err, p.lock.release()) }()
	started := &plan.Step{
		Name: "cluster", After: []*plan.Step{p.lock.step()}, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (string, error) {
			state, err := p.inspect(ctx)
			if err != nil {
				return "", err
			}
			p.port = state.APIPort
			switch state.Phase {
			case cluster.Absent:
				return "", fault.Unfit("platformctl up"+p.flag(), "there is no cluster %s to start", p.set.Cluster)
			case cluster.Foreign:
				return "", p.foreign(state)
			case cluster.Half:
				return "", p.unfinished()
			case cluster.Stopped:
				return "it is stopped", p.portFree(ctx, state)
			}
			return p.connect(ctx, state)
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			if err := p.cluster.Start(ctx); err != nil {
				return err
			}
			return p.awaitAPIServer(ctx, note)
		},
	}
	ready := p.podsStep(started)
	if err := p.recordedRun(ctx, "start", on, p.apiStep(ready)); err != nil {
		return "", p.withEvidence(ctx, err)
	}
	return address(p.port), nil
}

func (p *Platform) unfinished() error {
	return fault.Unfit("platformctl up"+p.flag()+"   # finishes it", "cluster %s was never made to its end", p.set.Cluster)
}

// podsStep has every workload of the platform complete.
func (p *Platform) podsStep(after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name: "pods", After: after, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (string, error) {
			for _, s := range Services() {
				if live, err := p.kube.Get(ctx, s.object()); err != nil {
					return "", err
				} else if live == nil {
					return "", p.notInstalled(s)
				}
			}
			return p.notRolledOut(ctx)
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			var workloads []kube.Workload
			for _, s := range Services() {
				workloads = append(workloads, s.workload())
			}
			return p.kube.AwaitRollouts(ctx, workloads, func(t kube.Trouble) { note(waitingFor(t)) })
		},
	}
}
