package platform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"platformctl/pkg/cluster"
	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/image"
	"platformctl/pkg/plan"
)

// CachedImage is an image that is kept on this machine, or a part of one.
type CachedImage struct {
	Ref   string `json:"ref,omitempty"` // "" for a part
	Key   string `json:"key,omitempty"` // in the cache
	Where string `json:"where"`         // "cache", "prepared" for new nodes, "engine" or "node"
	Path  string `json:"path,omitempty"`
	Size  int64  `json:"bytes"`
}

func cachedImage(e image.CacheEntry) CachedImage {
	return CachedImage{Ref: e.Ref, Key: e.Key, Where: "cache", Path: e.Path, Size: e.Size}
}

// Images lists what is kept of ours: the cache, the largest first, then the engine where one answers, then
// the cluster's node where it runs.
func (p *Platform) Images(ctx context.Context) ([]CachedImage, error) {
	entries, err := p.cache.List()
	if err != nil {
		return nil, fmt.Errorf("list the cache %s: %w", p.set.Cache, err)
	}
	var all []CachedImage
	for _, e := range entries {
		all = append(all, cachedImage(e))
	}
	prepared, err := p.store.List()
	if err != nil {
		return nil, err
	}
	for _, c := range prepared {
		all = append(all, preparedImages(c))
	}
	inEngine, err := p.engineImages(ctx)
	if err != nil {
		return all, err
	}
	inNode, err := p.nodeImages(ctx)
	return slices.Concat(all, inEngine, inNode), err
}

func preparedImages(c cluster.Content) CachedImage {
	return CachedImage{Key: c.Key, Where: "prepared", Path: c.Path, Size: c.Size}
}

// ours is what all images that we make are called.
const ours = "platformctl.local/"

// engineImages lists our images in the engine; none where no engine answers.
func (p *Platform) engineImages(ctx context.Context) ([]CachedImage, error) {
	if _, err := p.run.Run(ctx, command.New("docker", "version", "--format", "{{.Server.Version}}")); err != nil {
		return nil, ctx.Err()
	}
	out, err := p.run.Run(ctx, command.New("docker", "image", "ls", "--filter", "reference="+ours+"*", "--format", "{{.Repository}}:{{.Tag}}"))
	if err != nil {
		return nil, fmt.Errorf("list the engine's images: %w", err)
	}
	refs := strings.Fields(string(out))
	if len(refs) == 0 {
		return nil, nil
	}
	sizes, err := p.run.Run(ctx, command.New("docker", append([]string{"image", "inspect", "--format", "{{.Size}}"}, refs...)...))
	if err != nil {
		return nil, fmt.Errorf("measure the engine's images: %w", err)
	}
	var all []CachedImage
	for i, text := range strings.Fields(string(sizes)) {
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil || i >= len(refs) {
			return nil, fmt.Errorf("measure the engine's images: it says %q", sizes)
		}
		all = append(all, CachedImage{Ref: refs[i], Where: "engine", Size: size})
	}
	return all, nil
}

// nodeImages lists the images in the cluster's node; none where it does not run.
func (p *Platform) nodeImages(ctx context.Context) ([]CachedImage, error) {
	if state, err := p.cluster.Inspect(ctx); err != nil || state.Phase != cluster.Running {
		return nil, ctx.Err() // what ails the engine or the cluster is for doctor and status to say
	}
	held, err := p.cluster.Images(ctx)
	return loaded(held), err
}

// loaded are those of a node's images that came into it as such. Kubernetes' own are parts of the node's image.
func loaded(held []cluster.NodeImage) (all []CachedImage) {
	for _, i := range held {
		if !strings.HasPrefix(i.Ref, "registry.k8s.io/") && !strings.HasPrefix(i.Ref, "docker.io/kindest/") && !strings.HasPrefix(i.Ref, ours+"kubenode:") {
			all = append(all, CachedImage{Ref: i.Ref, Where: "node", Size: i.Size})
		}
	}
	return all
}

// wanted is what this checkout's platform is made from.
type wanted struct {
	keys    []string // of the images in the cache, and of what tells which sources made them
	parts   []string // keys of what images are made of
	refs    []string // of the images
	missing []string // images that the cache has not got
	content string   // key of what a new node begins with; "" where it begins with its image alone
	node    string   // reference of the node image, if it is one of ours
}

func (p *Platform) wanted(ctx context.Context) (w wanted, err error) {
	origin, err := p.origin(ctx)
	if err != nil {
		return w, err
	}
	dishes, err := p.dishes(origin)
	if err != nil {
		return w, err
	}
	look := func(name string, cached func(context.Context) (image.Archive, bool, error)) (a image.Archive, err error) {
		a, ok, err := cached(ctx)
		switch {
		case err != nil:
			return a, err
		case !ok:
			w.missing = append(w.missing, name)
		default:
			w.keys = append(w.keys, strings.TrimSuffix(filepath.Base(a.Path), ".tar"))
			w.refs = append(w.refs, a.Ref)
		}
		return a, nil
	}
	var services []string
	for _, s := range Services() {
		if dishes[s.Release].archive, err = look(s.Release, dishes[s.Release].cached); err != nil {
			return w, err
		}
		if s.Ours {
			services = append(services, s.Release)
		}
	}
	if origin == Packages {
		node, err := look("node", p.kitchen.Node().Cached)
		if err != nil {
			return w, err
		}
		w.node, w.content = node.Ref, contentKey(node.Ref, dishes)
	} else if _, err := look("node", p.stockKept); err != nil {
		return w, err
	}
	parts, notes, err := p.kitchen.Uses(ctx, services...)
	if err != nil {
		return w, err
	}
	w.parts = parts
	for _, key := range notes {
		if _, ok, err := p.cache.Get(key); err != nil {
			return w, err
		} else if ok {
			w.keys = append(w.keys, key)
		}
	}
	return w, nil
}

// SaveImages writes all images of this checkout's platform into a file, for a machine that reaches nothing.
func (p *Platform) SaveImages(ctx context.Context, file string, on func(plan.Event)) error {
	origin, err := p.origin(ctx)
	if err != nil {
		return err
	}
	return plan.Run(ctx, on, always("images/save", "they are to be written to "+file, func(ctx context.Context, note func(plan.Note)) error {
		if origin == Registry {
			if err := p.keepStock(ctx, note); err != nil {
				return err
			}
		}
		w, err := p.wanted(ctx)
		if err != nil {
			return err
		}
		if len(w.missing) > 0 {
			return fault.Unfit("platformctl up"+p.flag(), "not made yet: %s", strings.Join(w.missing, ", "))
		}
		if err := p.cache.Export(ctx, file, w.keys, func(n image.Note) { note(ofImage(n)) }); err != nil {
			return fmt.Errorf("save the images to %s: %w", file, err)
		}
		return nil
	}))
}

// LoadImages puts into the cache what SaveImages wrote. A file that is not as it was written is refused before anything is touched.
func (p *Platform) LoadImages(ctx context.Context, file string, on func(plan.Event)) (loaded []CachedImage, err error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fault.Usage("platformctl images save FILE   # on a machine that has them", "read the images: %w", err)
	}
	err = plan.Run(ctx, on, always("images/load", "they are to be taken from "+file, func(ctx context.Context, note func(plan.Note)) error {
		entries, err := p.cache.Import(ctx, file, func(n image.Note) { note(ofImage(n)) })
		for _, e := range entries {
			loaded = append(loaded, cachedImage(e))
		}
		if errors.Is(err, image.ErrBundle) {
			return fault.New(fault.CodeFailed, "copy the file anew; nothing was taken from it", "load the images from %s: %w", file, err)
		}
		return err
	}))
	return loaded, err
}

// always is a step that is to be done, whatever there is.
func always(name, cause string, do func(context.Context, func(plan.Note)) error) *plan.Step {
	done := false
	return &plan.Step{
		Name: name,
		Check: func(context.Context) (string, error) {
			if done {
				return "", nil
			}
			return cause, nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			err := do(ctx, note)
			done = err == nil
			return err
		},
	}
}

// PruneImages removes what is ours and neither this checkout's platform nor any cluster uses, and returns it; with dry it only
// tells. With parts it removes the parts, too, of which the images are made: it takes minutes to make them anew.
func (p *Platform) PruneImages(ctx context.Context, parts, dry bool) ([]CachedImage, error) {
	w, err := p.wanted(ctx)
	if err != nil {
		return nil, err
	}
	keep := w.keys
	if !parts {
		keep = append(keep, w.parts...)
	}
	unused, err := p.cache.Unused(func(key string) bool { return slices.Contains(keep, key) })
	if err != nil {
		return nil, fmt.Errorf("look through the cache: %w", err)
	}
	if !dry {
		if unused, err = p.cache.Prune(ctx, unused); err != nil {
			return nil, fmt.Errorf("prune the cache: %w", err)
		}
	}
	var gone []CachedImage
	for _, e := range unused {
		gone = append(gone, cachedImage(e))
	}
	prepared, err := p.store.List()
	if err != nil {
		return gone, err
	}
	for _, c := range prepared {
		if c.Key == w.content {
			continue
		}
		if !dry {
			if err := p.store.Remove(ctx, c.Key, w.node); err != nil {
				return gone, err
			}
		}
		gone = append(gone, preparedImages(c))
	}
	inEngine, err := p.pruneEngine(ctx, w.refs, dry)
	return append(gone, inEngine...), err
}

// pruneEngine removes our images from the engine that no container is made from, running or not, and that are not wanted.
func (p *Platform) pruneEngine(ctx context.Context, keep []string, dry bool) ([]CachedImage, error) {
	all, err := p.engineImages(ctx)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	out, err := p.run.Run(ctx, command.New("docker", "ps", "--all", "--format", "{{.Image}}"))
	if err != nil {
		return nil, fmt.Errorf("ask which images are in use: %w", err)
	}
	keep = append(strings.Fields(string(out)), keep...)
	var gone []CachedImage
	for _, i := range all {
		if slices.Contains(keep, i.Ref) {
			continue
		}
		if !dry {
			// Without force: what came into use meanwhile is refused.
			if _, err := p.run.Run(ctx, command.New("docker", "image", "rm", i.Ref)); err != nil {
				return gone, fmt.Errorf("remove %s from the engine: %w", i.Ref, err)
			}
		}
		gone = append(gone, i)
	}
	return gone, nil
}
