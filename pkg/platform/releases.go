package platform

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
	"platformctl/pkg/release"
)

// spec is the service's release, running the image of that reference; "" leaves the chart's own.
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

// valuesStep looks, before anything is made, whether the charts take the values.
func (p *Platform) valuesStep(after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name: "values", After: after, Do: nothing,
		Check: func(context.Context) (string, error) {
			for _, s := range Services() {
				ref := ""
				if s.Ours {
					ref = "platformctl.local/" + s.Release + ":unbuilt" // its chart has no image of its own
				}
				spec, err := p.spec(s, ref)
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
	raw, err := p.cluster.Kubeconfig(ctx)
	if err != nil {
		return nil, err
	}
	return release.New(raw, p.set.Chatter)
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

// releaseStep has the release in the cluster as chart and values want it, with every object of its manifest, and its
// workload complete.
func (p *Platform) releaseStep(s Service, d *dish, after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name: "release/" + s.Release, After: after, Timeout: waitTimeout,
		Check: func(ctx context.Context) (string, error) {
			spec, err := p.spec(s, d.archive.Ref)
			if err != nil {
				return "", err
			}
			if why, err := p.releaseDiffers(ctx, spec); err != nil || why != "" {
				return why, err
			}
			done, why, err := p.kube.Rollout(ctx, s.workload())
			if err != nil || done {
				return "", err
			}
			return why, nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			spec, err := p.spec(s, d.archive.Ref)
			if err != nil {
				return err
			}
			helm, err := p.helm(ctx)
			if err != nil {
				return err
			}
			if why, err := p.releaseDiffers(ctx, spec); err != nil {
				return err
			} else if why != "" {
				result, err := helm.Apply(ctx, spec, func(line string) { note(plan.Note{Text: line}) })
				if err != nil {
					return err
				}
				note(plan.Note{Text: result.String()})
			}
			return p.kube.AwaitRollouts(ctx, []kube.Workload{s.workload()}, func(t kube.Trouble) { note(waitingFor(t)) })
		},
	}
}

func (p *Platform) releaseDiffers(ctx context.Context, spec release.Spec) (why string, err error) {
	hash, err := release.Hash(spec)
	if err != nil {
		return "", err
	}
	found, err := p.releases(ctx)
	if err != nil {
		return "", err
	}
	r, ok := found[spec.Name]
	switch {
	case !ok:
		return "it is not installed", nil
	case !r.Holds(hash):
		return fmt.Sprintf("revision %d is %s, and chart, values or image differ", r.Revision, r.Status), nil
	}
	helm, err := p.helm(ctx)
	if err != nil {
		return "", err
	}
	missing, err := helm.Missing(ctx, spec)
	if err != nil || len(missing) == 0 {
		return "", err
	}
	return strings.Join(missing, ", ") + " is gone", nil
}

// uninstallStep has the release gone.
func (p *Platform) uninstallStep(s Service, after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name: "release/" + s.Release, After: after, Timeout: waitTimeout,
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
