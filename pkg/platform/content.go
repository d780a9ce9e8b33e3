package platform

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"platformctl/pkg/cluster"
	"platformctl/pkg/plan"
)

// contentsKept is how many prepared folders stay when another is made: two checkouts can take turns.
const contentsKept = 2

// serversOf are the steps of the images that are not built from our source.
func serversOf(images map[string]*plan.Step) (steps []*plan.Step) {
	for _, s := range Services() {
		if !s.Ours {
			steps = append(steps, images[s.Release])
		}
	}
	return steps
}

// contentStep has what a new node begins with prepared, the servers' images in it, and puts its key into key. It comes after the
// images. A node that is there, or that is a stock one, has no use for it. Without it, images are loaded into the node.
func (p *Platform) contentStep(origin Origin, node, key *string, dishes map[string]*dish, after ...*plan.Step) *plan.Step {
	given := false // up, and cannot be had
	return &plan.Step{
		Name: "content", After: after, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (string, error) {
			if origin != Packages || given {
				return "", nil
			}
			state, err := p.cluster.Inspect(ctx)
			if err != nil || state.Phase == cluster.Running || state.Phase == cluster.Stopped {
				return "", err
			}
			*key = contentKey(*node, dishes)
			has, err := p.store.Has(*key)
			if err != nil || has {
				return "", err
			}
			return "it is not prepared for these images", nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			note(plan.Note{Text: "unpacking the images that a node begins with"})
			var archives []string
			for _, s := range Services() {
				if !s.Ours {
					archives = append(archives, dishes[s.Release].archive.Path)
				}
			}
			unfit, err := p.store.Prepare(ctx, *key, *node, archives...)
			if err != nil && ctx.Err() == nil {
				unfit = err.Error()
			} else if err != nil {
				return err
			}
			if unfit != "" {
				// It only saves time.
				note(plan.Note{Text: "left out: " + unfit})
				*key, given = "", true
				return nil
			}
			return p.trimContent(ctx, *node)
		},
	}
}

// contentKey names what a node of that image with the servers' images begins with.
func contentKey(node string, dishes map[string]*dish) string {
	sum := sha256.New()
	fmt.Fprintln(sum, node)
	for _, s := range Services() {
		if d := dishes[s.Release]; !s.Ours {
			fmt.Fprintln(sum, d.archive.Ref, d.archive.ID)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:12]
}

// trimContent removes what was prepared before, all but the latest.
func (p *Platform) trimContent(ctx context.Context, node string) error {
	all, err := p.store.List()
	if err != nil {
		return err
	}
	for _, old := range all[min(contentsKept, len(all)):] {
		if err := p.store.Remove(ctx, old.Key, node); err != nil {
			return err
		}
	}
	return nil
}
