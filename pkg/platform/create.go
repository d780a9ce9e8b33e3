package platform

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"platformctl/pkg/cluster"
	"platformctl/pkg/fault"
	"platformctl/pkg/host"
	"platformctl/pkg/plan"
)

// portStep makes sure, before anything is made, that the API's port is ours or free.
func (p *Platform) portStep(after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name: "port", After: after,
		Check: func(ctx context.Context) (string, error) {
			state, err := p.cluster.Inspect(ctx)
			if err != nil {
				return "", err
			}
			if state.Phase == cluster.Foreign {
				return "", p.foreign(state)
			}
			half := state.Phase == cluster.Half // it is made anew, and what holds the port now goes first
			if has := state.APIPort; has != 0 && !(half && p.set.APIPort != 0) {
				if p.set.APIPort != 0 && p.set.APIPort != has {
					return "", fault.Usage(
						fmt.Sprintf("leave --api-port out, or make the cluster anew: platformctl down%s, then platformctl up%[1]s --api-port %d", p.flag(), p.set.APIPort),
						"the API of cluster %s is at port %d, and a cluster keeps the port that it was made with", p.set.Cluster, has)
				}
				p.port = has
			} else if p.port = p.set.APIPort; p.port == 0 {
				p.port = defaultPort
			}
			if state.Phase == cluster.Running || half && p.port == state.APIPort {
				return "", nil
			}
			return "", p.portFree(ctx, state)
		},
		Do: nothing,
	}
}

// PortHolder names who listens on a port of 127.0.0.1, "" where nobody does.
func (p *Platform) PortHolder(ctx context.Context, port int) (string, error) {
	process, pid, taken, err := p.machine(host.Needs{}).PortHolder(ctx, port)
	switch {
	case err != nil || !taken:
		return "", err
	case process == "":
		return "another program", nil
	}
	return fmt.Sprintf("%s (pid %d)", process, pid), nil
}

// portFree is a fault where another program has the port that the API is to have.
func (p *Platform) portFree(ctx context.Context, state cluster.State) error {
	if state.Ending {
		return nil // it is the node's still
	}
	holder, err := p.PortHolder(ctx, p.port)
	if err != nil || holder == "" {
		return err
	}
	cure := fmt.Sprintf("platformctl up%s --api-port %d", p.flag(), p.port+1)
	if state.APIPort != 0 {
		cure = fmt.Sprintf("end %s, or make the cluster anew at another port: platformctl down%s", holder, p.flag())
	}
	return fault.Unfit(cure, "port %d on 127.0.0.1, which the API is to have, is taken by %s", p.port, holder)
}

// nothing is the Do of a step whose Check either holds or fails.
func nothing(context.Context, func(plan.Note)) error { return nil }

// nodeSteps have the cluster running and its API server answering (up), and before that its node taking images (node):
// a new cluster's node does so while kubeadm is still at work on it. What the node holds then is put into held.
func (p *Platform) nodeSteps(origin Origin, image, content *string, held *[]cluster.NodeImage, after ...*plan.Step) (node, up *plan.Step) {
	takes := make(chan struct{})
	open := sync.OnceFunc(func() { close(takes) })
	node = &plan.Step{
		Name: "node", After: after, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (_ string, err error) {
			running := false
			select {
			case <-takes:
			default:
				state, err := p.cluster.Inspect(ctx)
				if err != nil {
					return "", err
				}
				if state.Phase != cluster.Running {
					return "the cluster is " + string(state.Phase), nil
				}
				running = true
			}
			*held, err = p.cluster.Images(ctx)
			if err != nil && running && ctx.Err() == nil {
				open() // its container is there, and may have been started by a run that was killed a moment ago
				return "its containerd does not answer yet", nil
			}
			return "", err
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			note(plan.Note{Text: "waiting for the cluster's container"})
			select {
			case <-takes:
				return p.cluster.AwaitImages(ctx)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
	}
	up = &plan.Step{
		Name: "cluster", After: after, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (string, error) {
			state, err := p.cluster.Inspect(ctx)
			if err != nil {
				return "", err
			}
			switch state.Phase {
			case cluster.Foreign:
				return "", p.foreign(state)
			case cluster.Running:
				return p.connect(ctx, state)
			case cluster.Half:
				return "an earlier run left it half made: " + state.Why, nil
			}
			return "it is " + string(state.Phase), nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			state, err := p.cluster.Inspect(ctx)
			if err != nil {
				return err
			}
			switch state.Phase {
			case cluster.Running, cluster.Stopped:
				if err := p.cluster.Start(ctx); err != nil {
					return err
				}
			default:
				config := cluster.Config{Image: *image, Origin: cluster.Packages, APIPort: p.port, Content: *content, OnNode: open}
				if origin == Registry {
					config.Origin = cluster.Pulled
				}
				if err := p.cluster.Create(ctx, config, func(line string) { note(plan.Note{Text: line}) }); err != nil {
					return err
				}
			}
			open()
			return p.awaitAPIServer(ctx, note)
		},
	}
	return node, up
}

func (p *Platform) foreign(state cluster.State) error {
	return fault.Unfit("choose another name: --cluster NAME\nor, if another user of this machine made it with platformctl, run it as that user",
		"there is a cluster %s already that platformctl did not make: %s; it is left alone", p.set.Cluster, state.Why)
}

// contextStep has the cluster's context in the user's kubeconfig.
func (p *Platform) contextStep(after ...*plan.Step) *plan.Step {
	files := p.userFiles()
	return &plan.Step{
		Name: "kubeconfig", After: after,
		Check: func(ctx context.Context) (string, error) { return p.cluster.ContextMissing(ctx, files) },
		Do: func(ctx context.Context, note func(plan.Note)) error {
			change, err := p.cluster.MergeContext(ctx, files)
			if err != nil {
				return err
			}
			text := "added context " + change.Context + " to " + strings.Join(change.Files, ", ")
			if change.Current {
				text += " and made it the current one"
			}
			note(plan.Note{Text: text})
			return nil
		},
	}
}

func (p *Platform) userFiles() cluster.UserFiles {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/" // as kubectl has it where HOME is unset
	}
	return cluster.UserFiles{Explicit: p.set.Kubeconfig, List: p.set.Getenv("KUBECONFIG"), Home: home}
}
