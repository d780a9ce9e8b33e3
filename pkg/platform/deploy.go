package platform

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"platformctl/pkg/cluster"
	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
)

// Deployed is a service as Deploy left it, and how long each part took: 0 where there was nothing to do.
type Deployed struct {
	Service  string        // its release: "order-api"
	Image    string        // what its pods run
	Revision int           // of its release
	Build    time.Duration // compiling and packing
	Load     time.Duration // into the node
	Roll     time.Duration // from the release's upgrade until the new pods are ready
}

// Unchanged tells that there was nothing to do.
func (d Deployed) Unchanged() bool { return d.Build == 0 && d.Load == 0 && d.Roll == 0 }

// Deploy has the services run in the cluster as the checkout has them, their charts, values and configuration included, and
// returns when their new pods are ready. The rest of the platform must be up; else its error has exit code 3. Source that
// does not compile is a fault with the compiler's lines, and nothing has been touched then. A new pod that crashes is a
// fault with its last lines; the pod before it goes on serving.
func (p *Platform) Deploy(ctx context.Context, services []Service, on func(plan.Event)) (done []Deployed, err error) {
	// It runs or it does not, whoever holds the lock.
	if _, err := p.running(ctx); err != nil {
		return nil, err
	}
	release, err := p.Hold(ctx, on)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := p.installed(ctx); err != nil {
		return nil, err
	}
	took := map[string]time.Duration{}
	dishes := map[string]*dish{}
	err = p.recordedRun(ctx, "deploy", func(e plan.Event) {
		if e.Kind == plan.Done {
			took[e.Step] = e.Took
		}
		on(e)
	}, p.deploySteps(services, dishes)...)
	if err != nil {
		var crash *kube.Crash
		var step *plan.StepError
		if errors.As(err, &crash) || errors.As(err, &step) && strings.HasPrefix(step.Step, "image/") {
			return nil, err // the pod's last lines, or the compiler's, are the evidence
		}
		return nil, p.withEvidence(ctx, err)
	}
	releases, err := p.releases(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range services {
		done = append(done, Deployed{
			Service: s.Release, Image: dishes[s.Release].archive.Ref, Revision: releases[s.Release].Revision,
			Build: took["image/"+s.Release], Load: took["load/"+s.Release], Roll: took["release/"+s.Release],
		})
	}
	return done, nil
}

// installed is nil where every release is in the cluster, in whatever state; else a fault with exit code 3.
func (p *Platform) installed(ctx context.Context) error {
	found, err := p.releases(ctx)
	if err != nil {
		return err
	}
	for _, s := range Services() {
		if _, ok := found[s.Release]; !ok {
			return p.notInstalled(s)
		}
	}
	return nil
}

// deploySteps are the steps of Deploy behind its lock. Nothing in the cluster is touched before every image is there:
//
//	values → image/… ┬→ configmaps, secrets ┬→ release/…
//	node ────────────┴→ load/… ─────────────┘
func (p *Platform) deploySteps(services []Service, dishes map[string]*dish) []*plan.Step {
	values := p.valuesStep(services)
	var images []*plan.Step
	for _, s := range services {
		d := p.fromSource(s.Release)
		d.release = s.Release
		dishes[s.Release] = d
		images = append(images, d.step(values))
	}
	configs := p.objectsStep("configmaps", p.configMaps, images...)
	secrets := p.secretsStep(images...)
	var held []cluster.NodeImage
	node := &plan.Step{Name: "node", Do: nothing, Check: func(ctx context.Context) (_ string, err error) {
		held, err = p.cluster.Images(ctx)
		return "", err
	}}
	var goals []*plan.Step
	for _, s := range services {
		d := dishes[s.Release]
		load := lookedUp(p.loadStep(d, append(images, node)...), d, &held)
		goals = append(goals, p.releaseStep(s, d, p.atOnce, nil, load, configs, secrets))
	}
	return append(goals, p.oldImagesStep(goals...))
}

// lookedUp has a load's first look made at what the node held when it was asked for all its images: to ask it takes a quarter of
// a second, and nobody else loads as long as we hold the lock. An image whose id the list does not have yet is asked for.
func lookedUp(load *plan.Step, d *dish, held *[]cluster.NodeImage) *plan.Step {
	ask, first := load.Check, true
	load.Check = func(ctx context.Context) (string, error) {
		if !first {
			return ask(ctx)
		}
		first = false
		i := slices.IndexFunc(*held, func(i cluster.NodeImage) bool { return i.Ref == d.archive.Ref })
		switch {
		case i < 0:
			return "the node has not got it", nil
		case (*held)[i].ID == d.archive.ID:
			return "", nil
		}
		return ask(ctx)
	}
	return load
}

// atOnce is a roll to which a crash of the new pod is the end: the servers are there, so it is the service's own fault.
func (p *Platform) atOnce(ctx context.Context, s Service, applied bool, note func(plan.Note)) error {
	if !applied {
		// What an earlier run left crashed may start now, and would be tried again in minutes only.
		gone, err := p.kube.Retry(ctx, s.workload())
		if err != nil {
			return err
		}
		if len(gone) > 0 {
			note(plan.Note{Text: "trying again in place of " + strings.Join(gone, ", ")})
		}
	}
	err := p.kube.AwaitDeployment(ctx, s.workload(), func(t kube.Trouble) { note(waitingFor(t)) })
	var crash *kube.Crash
	if !errors.As(err, &crash) {
		return err
	}
	still := "no pod of " + s.Name + " serves now"
	if crash.Serving > 0 {
		still = "the pod before it goes on serving"
	}
	return fault.New(fault.CodeFailed,
		fmt.Sprintf("mend it, and: platformctl deploy %s%s   # %s", s.Name, p.flag(), still), "%w", err)
}
