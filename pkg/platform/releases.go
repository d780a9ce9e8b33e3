package platform

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
	"platformctl/pkg/release"
)

// spec is the service's release, running the image of that reference; "" leaves the chart's own. It is what can be said
// without a cluster.
func (p *Platform) spec(s Service, ref string) (release.Spec, error) {
	spec := release.Spec{
		Name: s.Release, Namespace: s.Namespace,
		Chart:      filepath.Join(p.set.Project, "charts", s.Release),
		ValueFiles: []string{filepath.Join(p.set.Project, "values", "dev", s.Release+".yaml")},
	}
	if ref == "" {
		return spec, nil
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return spec, fmt.Errorf("the image of %s: %w", s.Release, err)
	}
	spec.Override = map[string]any{"image": map[string]any{
		// The node has it: were it asked for elsewhere, that would be somebody else's image of the same name.
		"registry": tag.RegistryStr(), "repository": tag.RepositoryStr(), "tag": tag.TagStr(), "digest": "", "pullPolicy": "Never",
	}}
	return spec, nil
}

// deployed is spec with what the cluster adds: pods are replaced when what they read at their start has changed.
func (p *Platform) deployed(ctx context.Context, s Service, ref string) (release.Spec, error) {
	spec, err := p.spec(s, ref)
	if err != nil {
		return spec, err
	}
	hash, err := p.configHash(ctx, s.Namespace)
	if err != nil {
		return spec, err
	}
	annotations := map[string]any{"podAnnotations": map[string]any{"platformctl/config": hash}}
	if s.Release == "postgresql" { // Bitnami's chart has them there
		annotations = map[string]any{"primary": annotations}
	}
	maps.Copy(spec.Override, annotations)
	return spec, nil
}

// volumesStep refuses, before any release is touched, a change of volumes that Kubernetes could not make. listed becomes
// the releases that there are.
func (p *Platform) volumesStep(listed *map[string]release.Status, after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name: "volumes", After: after, Do: nothing,
		Check: func(ctx context.Context) (string, error) {
			helm, err := p.helm(ctx)
			if err != nil {
				return "", err
			}
			if *listed, err = p.releases(ctx); err != nil {
				return "", err
			}
			for _, s := range Services() {
				spec, err := p.spec(s, unbuilt(s))
				if err != nil {
					return "", err
				}
				if err := helm.Possible(spec, (*listed)[s.Release]); err != nil {
					return "", err
				}
			}
			return "", nil
		},
	}
}

// unbuilt stands for an image where only the rest of a release counts; the servers' charts name images of their own.
func unbuilt(s Service) string {
	if s.Ours {
		return "platformctl.local/" + s.Release + ":unbuilt"
	}
	return ""
}

// valuesStep looks, before anything is made, whether the services' charts take the values, and the API server the ConfigMaps.
func (p *Platform) valuesStep(services []Service, after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name: "values", After: after, Do: nothing,
		Check: func(ctx context.Context) (string, error) {
			if _, err := p.configMaps(ctx); err != nil {
				return "", err
			}
			for _, s := range services {
				spec, err := p.spec(s, unbuilt(s))
				if err != nil {
					return "", err
				}
				if _, err := release.Render(spec); err != nil {
					return "", err
				}
			}
			return "", nil
		},
	}
}

// serverImage is the image that the server's chart and values name, for pulling.
func (p *Platform) serverImage(s Service) (string, error) {
	spec, err := p.spec(s, "")
	if err != nil {
		return "", err
	}
	refs, err := release.Images(spec)
	if err != nil {
		return "", err
	}
	if len(refs) != 1 {
		return "", fmt.Errorf("the release %s runs %d images; platformctl loads one", s.Release, len(refs))
	}
	return refs[0], nil
}

// registry is the host that is asked whether registries are in reach: the one of PostgreSQL's image.
func (p *Platform) registry() (string, error) {
	postgres, err := FindService("postgres")
	if err != nil {
		return "", err
	}
	ref, err := p.serverImage(postgres)
	if err != nil {
		return "", err
	}
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return "", fault.Usage("mend image.* in values/dev/"+postgres.Release+".yaml", "the image of %s: %w", postgres.Release, err)
	}
	return parsed.Context().RegistryStr(), nil
}

// helm is the client for the running cluster's releases.
func (p *Platform) helm(ctx context.Context) (*release.Client, error) {
	p.helmOnce.Lock()
	defer p.helmOnce.Unlock()
	if p.helmClient == nil {
		raw, err := p.cluster.Kubeconfig(ctx)
		if err != nil {
			return nil, err
		}
		if p.helmClient, err = release.New(raw, p.set.Chatter); err != nil {
			return nil, err
		}
	}
	return p.helmClient, nil
}

// releases are the newest revisions in the platform's namespaces, by name.
func (p *Platform) releases(ctx context.Context) (map[string]release.Status, error) {
	helm, err := p.helm(ctx)
	if err != nil {
		return nil, err
	}
	list, err := helm.List(ctx, Namespaces()...)
	if err != nil {
		return nil, err
	}
	found := map[string]release.Status{}
	for _, r := range list {
		found[r.Name] = r
	}
	return found, nil
}

// roll waits until the workload of a service is complete, whose release was applied just now or is as it should be.
type roll func(ctx context.Context, s Service, applied bool, note func(plan.Note)) error

// patiently is a roll that takes a crash for something that may pass: a service that comes up before its servers starts again.
func (p *Platform) patiently(ctx context.Context, s Service, _ bool, note func(plan.Note)) error {
	return p.kube.AwaitRollouts(ctx, []kube.Workload{s.workload()}, func(t kube.Trouble) { note(waitingFor(t)) })
}

// releaseStep has the release in the cluster as chart and values want it, with every object of its manifest, and its
// workload complete. The first look is at listed, if that is not nil: nobody else changes releases as long as we hold the lock.
func (p *Platform) releaseStep(s Service, d *dish, roll roll, listed *map[string]release.Status, after ...*plan.Step) *plan.Step {
	name := "release/" + s.Release
	status := func(ctx context.Context) (release.Status, error) {
		if first := listed; first != nil {
			listed = nil
			return (*first)[s.Release], nil
		}
		now, err := p.releases(ctx)
		return now[s.Release], err
	}
	return &plan.Step{
		Name: name, After: after, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (string, error) {
			spec, err := p.deployed(ctx, s, d.archive.Ref)
			if err != nil {
				return "", err
			}
			found, err := status(ctx)
			if err != nil {
				return "", err
			}
			if d, err := p.releaseDiffers(ctx, spec, found); err != nil || len(d.Lines) > 0 {
				p.detail(name, d)
				return d.inShort(), err
			}
			p.detail(name, difference{})
			done, why, err := p.kube.Rollout(ctx, s.workload())
			if err != nil || done {
				return "", err
			}
			return why, nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			spec, err := p.deployed(ctx, s, d.archive.Ref)
			if err != nil {
				return err
			}
			helm, err := p.helm(ctx)
			if err != nil {
				return err
			}
			found, err := status(ctx)
			if err != nil {
				return err
			}
			d, err := p.releaseDiffers(ctx, spec, found)
			if err != nil {
				return err
			}
			var result release.Result
			if len(d.Lines) > 0 {
				result, err = helm.Apply(ctx, spec, func(line string) { note(plan.Note{Text: line}) })
				if err != nil {
					return err
				}
				note(plan.Note{Text: result.String()})
			}
			if err := roll(ctx, s, len(d.Lines) > 0, note); err != nil {
				return err
			}
			if s.Ours && len(d.Lines) > 0 && result.Action != release.Installed {
				p.rolled.Store(true)
			}
			return nil
		},
	}
}

// difference is a release's, told in the words of a step's cause.
type difference struct{ release.Difference }

// told is how many lines of a difference a step's cause has.
const told = 2

func (d difference) inShort() string {
	if len(d.Lines) == 0 {
		return ""
	}
	text := strings.Join(d.Lines[:min(told, len(d.Lines))], ", ")
	if more := len(d.Lines) - told; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	if len(d.Restarts) > 0 {
		text += "; restarts " + strings.Join(d.Restarts, ", ")
	}
	return text
}

// releaseDiffers tells in what the release, found in the cluster as List has it, differs from spec. The hash in its labels tells
// whether it does, so that Helm's record is read only then; what the cluster has of its objects is looked at either way.
func (p *Platform) releaseDiffers(ctx context.Context, spec release.Spec, found release.Status) (d difference, err error) {
	hash, err := release.Hash(spec)
	if err != nil {
		return d, err
	}
	helm, err := p.helm(ctx)
	if err != nil {
		return d, err
	}
	if found.Holds(hash) {
		d.Revision = found.Revision
		d.Lines, d.Restarts, err = helm.Drift(ctx, spec)
		return d, err
	}
	d.Difference, err = helm.Explain(ctx, spec)
	if err == nil && len(d.Lines) == 0 {
		d.Lines = []string{fmt.Sprintf("revision %d differs in what is not shown, such as comments", d.Revision)}
	}
	return d, err
}

// detail keeps all that a step found to differ, for who asks for more than its cause.
func (p *Platform) detail(step string, d difference) {
	p.detailing.Lock()
	defer p.detailing.Unlock()
	if p.details == nil {
		p.details = map[string]release.Difference{}
	}
	p.details[step] = d.Difference
}

// uninstallStep has the release gone.
func (p *Platform) uninstallStep(s Service, after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name: "release/" + s.Release, After: after, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (string, error) {
			found, err := p.releases(ctx)
			if err != nil {
				return "", err
			}
			if r, ok := found[s.Release]; ok {
				return fmt.Sprintf("revision %d is %s", r.Revision, r.Status), nil
			}
			return "", nil
		},
		Do: func(ctx context.Context, _ func(plan.Note)) error {
			helm, err := p.helm(ctx)
			if err != nil {
				return err
			}
			return helm.Uninstall(ctx, s.Release, s.Namespace)
		},
	}
}
