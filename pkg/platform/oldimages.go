package platform

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"platformctl/pkg/plan"
)

// versionsKept is how many versions of a service have their images in the node: the current one, and the one before it, to which a
// roll-back is a matter of a second.
const versionsKept = 2

// oldImagesStep has no images in the node that former versions of the services were rolled out with, where this run has rolled any
// of them out; a run that changes nothing need not look.
func (p *Platform) oldImagesStep(after ...*plan.Step) *plan.Step {
	var old []string
	return &plan.Step{
		Name: "old-images", After: after, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (_ string, err error) {
			if !p.rolled.Load() {
				return "", nil
			}
			if old, err = p.oldImages(ctx); err != nil || len(old) == 0 {
				return "", err
			}
			return fmt.Sprintf("the node has %d that nothing runs any more", len(old)), nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			for _, ref := range old {
				note(plan.Note{Text: "removing " + ref})
				if err := p.cluster.RemoveImage(ctx, ref); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// oldImages are the services' images in the node that none of the versions to keep has.
func (p *Platform) oldImages(ctx context.Context) ([]string, error) {
	held, err := p.cluster.Images(ctx)
	if err != nil {
		return nil, err
	}
	var old []string
	for _, s := range Services() {
		if !s.Ours {
			continue
		}
		versions, err := p.kube.VersionImages(ctx, s.workload())
		if err != nil {
			return nil, err
		}
		keep := versions[:min(versionsKept, len(versions))]
		for _, i := range held {
			if strings.HasPrefix(i.Ref, ours+s.Release+":") && len(keep) > 0 && !slices.Contains(keep, i.Ref) {
				old = append(old, i.Ref)
			}
		}
	}
	return old, nil
}
