package platform

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"platformctl/pkg/cluster"
	"platformctl/pkg/host"
	"platformctl/pkg/plan"
	"platformctl/pkg/release"
)

// Up brings the platform up, from wherever an earlier run left it, and returns the address of its API. What failed leaves
// its evidence in a folder that the error names.
func (p *Platform) Up(ctx context.Context, on func(plan.Event)) (api string, err error) {
	// What there is to do is decided under the lock: who had it before us may have done it all.
	release, err := p.Hold(ctx, on)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, release()) }()
	goals, err := p.upSteps(ctx)
	if err != nil {
		return "", err
	}
	if err := p.recordedRun(ctx, "up", on, goals...); err != nil {
		return "", p.withEvidence(ctx, err)
	}
	return address(p.port), nil
}

// upSteps are the steps of Up behind its lock, in an order in which each comes after those it waits for:
//
//	host → port, values → image/node ┬→ content ┬→ cluster ┬→ kubeconfig
//	              │                  │          │          └→ namespaces → configmaps, secrets ┐
//	              └→ image/… ────────┴──────────┴→ node → load/… ────────────────────────────┴→ release/… → api, old-images
func (p *Platform) upSteps(ctx context.Context) ([]*plan.Step, error) {
	origin, err := p.origin(ctx)
	if err != nil {
		return nil, err
	}
	dishes, err := p.dishes(origin)
	if err != nil {
		return nil, err
	}
	values := p.valuesStep(Services())
	fit := hostSteps(toRun(host.Requirements(p.machine(p.needsFor(ctx, origin))), p.set.Fix), p.set.Fix)
	port := p.portStep(fit...)
	var ref string
	nodeImage := p.nodeImageStep(origin, &ref, append(fit, values)...)
	images := map[string]*plan.Step{}
	for release, d := range dishes {
		images[release] = d.step(append(fit, values)...)
	}
	var key string
	content := p.contentStep(origin, &ref, &key, dishes, append(serversOf(images), nodeImage)...)
	var held []cluster.NodeImage
	node, up := p.nodeSteps(origin, &ref, &key, &held, content, port)
	spaces := p.objectsStep("namespaces", namespaces, up)
	configs := p.objectsStep("configmaps", p.configMaps, spaces)
	secrets := p.secretsStep(spaces)
	var listed map[string]release.Status
	volumes := p.volumesStep(&listed, up)
	goals := []*plan.Step{up}
	if !p.set.NoKubeconfig {
		goals = append(goals, p.contextStep(up))
	}
	var releases []*plan.Step
	for _, s := range Services() {
		d := dishes[s.Release]
		loaded := lookedUp(p.loadStep(d, images[s.Release], node), d, &held)
		releases = append(releases, p.releaseStep(s, d, p.patiently, &listed, loaded, volumes, configs, secrets))
	}
	return append(goals, p.apiStep(releases...), p.oldImagesStep(releases...)), nil
}

// apiStep has the API answering on this machine's loopback.
func (p *Platform) apiStep(after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name: "api", After: after, Timeout: p.set.Timeout,
		Check: p.apiAnswers,
		Do: func(ctx context.Context, note func(plan.Note)) error {
			// The service's pods are ready by now; what is left is the node's own routing, a matter of a second.
			again := time.NewTicker(100 * time.Millisecond)
			defer again.Stop()
			said := ""
			for {
				why, err := p.apiAnswers(ctx)
				if err != nil || why == "" {
					return err
				}
				if why != said {
					note(plan.Note{Text: "waiting", Object: address(p.port), Message: why})
					said = why
				}
				select {
				case <-again.C:
				case <-ctx.Done():
					return fmt.Errorf("%s: %w", why, context.Cause(ctx))
				}
			}
		},
	}
}

func (p *Platform) apiAnswers(ctx context.Context) (why string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address(p.port)+"/ready", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "the API does not answer: " + err.Error(), nil
	}
	if err := response.Body.Close(); err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "the API answers " + response.Status, nil
	}
	return "", nil
}

// needsFor is what this run wants of the machine: the more is there already, the less.
func (p *Platform) needsFor(ctx context.Context, origin Origin) host.Needs {
	if state, err := p.inspect(ctx); err == nil && (state.Phase == cluster.Running || state.Phase == cluster.Stopped) {
		return host.Needs{}
	}
	needs := host.Needs{Packages: origin == Packages, Disk: host.DiskPulled, Memory: host.MemoryCluster}
	if origin == Packages {
		needs.Disk = host.DiskPackages
		if _, ok, err := p.kitchen.Node().Cached(ctx); err == nil && ok {
			needs.Disk = host.DiskCached
		}
	}
	return needs
}

// needs is needsFor for a look at the machine alone, whatever the cluster is in.
func (p *Platform) needs(ctx context.Context) host.Needs {
	origin, err := p.origin(ctx)
	if err != nil {
		origin = Packages // what this machine cannot do, its requirements say better
	}
	needs := p.needsFor(ctx, origin)
	needs.Disk = max(needs.Disk, host.DiskRunning)
	return needs
}
