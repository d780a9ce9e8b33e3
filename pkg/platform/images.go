package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"platformctl/pkg/cluster"
	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/image"
	"platformctl/pkg/plan"
	"platformctl/pkg/recipe"
)

// dish is an image that the platform needs, however it is come by.
type dish struct {
	release string
	cached  func(context.Context) (image.Archive, bool, error)
	build   func(context.Context, func(image.Note)) (image.Archive, error)

	archive image.Archive // once its step holds
}

// dishes are the images of the four releases, by release: the services' are built from source, the servers' come from where
// origin says.
func (p *Platform) dishes(origin Origin) (map[string]*dish, error) {
	all := map[string]*dish{}
	for _, s := range Services() {
		var d *dish
		switch {
		case s.Ours:
			d = p.fromSource(s.Release)
		case origin == Packages && s.Release == "postgresql":
			d = fromRecipe(p.kitchen.PostgreSQL())
		case origin == Packages && s.Release == "rabbitmq":
			d = fromRecipe(p.kitchen.RabbitMQ())
		default:
			ref, err := p.serverImage(s)
			if err != nil {
				return nil, err
			}
			d = p.pulled(ref)
		}
		d.release = s.Release
		all[s.Release] = d
	}
	return all, nil
}

func fromRecipe(r *recipe.Recipe) *dish { return &dish{cached: r.Cached, build: r.Build} }

// fromSource is a service's image, compiled here.
func (p *Platform) fromSource(name string) *dish {
	return &dish{
		cached: func(ctx context.Context) (image.Archive, bool, error) { return p.kitchen.ServiceCached(ctx, name) },
		build: func(ctx context.Context, note func(image.Note)) (image.Archive, error) {
			return p.kitchen.Service(ctx, name, note)
		},
	}
}

func (p *Platform) pulled(ref string) *dish {
	puller := image.Puller{Cache: p.cache}
	key := image.PullKey(ref, "linux/"+runtime.GOARCH)
	return &dish{
		cached: func(context.Context) (image.Archive, bool, error) {
			e, ok, err := p.cache.Get(key)
			return e.Archive(), ok, err
		},
		build: func(ctx context.Context, note func(image.Note)) (image.Archive, error) {
			return puller.Pull(ctx, ref, note)
		},
	}
}

// step has the image in the cache.
func (d *dish) step(after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name: "image/" + d.release, After: after, Timeout: buildTimeout,
		Check: func(ctx context.Context) (string, error) {
			a, ok, err := d.cached(ctx)
			if err != nil || !ok {
				return "it is not in the cache", err
			}
			d.archive = a
			return "", nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			_, err := d.build(ctx, func(n image.Note) { note(ofImage(n)) })
			return err
		},
	}
}

func ofImage(n image.Note) plan.Note {
	return plan.Note{Text: n.Text, Current: n.Current, Total: n.Total}
}

// loadStep has the image in the cluster's node.
func (p *Platform) loadStep(d *dish, after ...*plan.Step) *plan.Step {
	return &plan.Step{
		Name: "load/" + d.release, After: after, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (string, error) {
			has, err := p.cluster.HasImage(ctx, d.archive.Ref, d.archive.ID)
			if err != nil || has {
				return "", err
			}
			return "the node has not got it", nil
		},
		Do: func(ctx context.Context, _ func(plan.Note)) error { return p.cluster.Load(ctx, d.archive.Open) },
	}
}

// nodeImage is the reference of the node image, and the step that has it in the engine, unless there is a node already.
func (p *Platform) nodeImageStep(origin Origin, ref *string, after ...*plan.Step) *plan.Step {
	build := func(ctx context.Context, note func(plan.Note)) error {
		if kept, ok, err := p.stockKept(ctx); err != nil {
			return err
		} else if ok {
			note(plan.Note{Text: "loading it into the engine"})
			return p.loadIntoEngine(ctx, kept)
		}
		note(plan.Note{Text: "pulling " + *ref})
		if _, err := p.run.Run(ctx, command.New("docker", "pull", "--quiet", *ref)); err != nil {
			return fault.Unfit("where no registry can be reached, build the images: platformctl up"+p.flag()+" --images packages",
				"pull the node image: %w", err)
		}
		return nil
	}
	if origin == Packages {
		build = func(ctx context.Context, note func(plan.Note)) error {
			a, err := p.kitchen.Node().Build(ctx, func(n image.Note) { note(ofImage(n)) })
			if err != nil {
				return err
			}
			note(plan.Note{Text: "loading it into the engine"})
			return p.loadIntoEngine(ctx, a)
		}
	}
	return &plan.Step{
		Name: "image/node", After: after, Timeout: buildTimeout, Do: build,
		Check: func(ctx context.Context) (string, error) {
			state, err := p.cluster.Inspect(ctx)
			if err != nil || state.Phase == cluster.Running || state.Phase == cluster.Stopped {
				return "", err
			}
			if *ref, err = p.nodeRef(ctx, origin); err != nil {
				return "", err
			}
			has, err := p.engineHas(ctx, *ref)
			if err != nil || has {
				return "", err
			}
			return "the engine has not got it", nil
		},
	}
}

func (p *Platform) nodeRef(ctx context.Context, origin Origin) (string, error) {
	if origin == Packages {
		return p.kitchen.Node().Ref(ctx)
	}
	return p.stockRef(ctx)
}

// engineHas tells whether the engine has an image of that name.
func (p *Platform) engineHas(ctx context.Context, ref string) (bool, error) {
	// A listing knows no reference with both a tag and a digest, which is how kind names its image.
	_, err := p.run.Run(ctx, command.New("docker", "image", "inspect", "--format", "{{.Id}}", ref))
	if err == nil {
		return true, nil
	}
	// It is not there, or the engine does not answer; an engine that does tells which.
	if _, dead := p.run.Run(ctx, command.New("docker", "version", "--format", "{{.Server.Version}}")); dead != nil {
		return false, fmt.Errorf("look for the image %s in the engine: %w", ref, dead)
	}
	return false, nil
}

func (p *Platform) loadIntoEngine(ctx context.Context, a image.Archive) (err error) {
	r, err := a.Open()
	if err != nil {
		return fmt.Errorf("load %s into the engine: %w", a.Ref, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	// A cut or altered archive ends in an error of the reader, which the engine then sees as a broken stream.
	reader := &failedReader{Reader: r}
	_, err = p.run.Run(ctx, command.Command{Name: "docker", Args: []string{"load", "--quiet"}, Stdin: reader})
	if err = errors.Join(reader.err, err); err != nil {
		return fmt.Errorf("load %s into the engine: %w", a.Ref, err)
	}
	return nil
}

// failedReader remembers the error that its reader ended with.
type failedReader struct {
	io.Reader
	err error
}

func (f *failedReader) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// origin decides where images come from: as the user said, else as the cluster that is there was made, else as the cache
// has them, else by whether a registry answers, which is asked once.
func (p *Platform) origin(ctx context.Context) (_ Origin, err error) {
	if p.decided == "" {
		p.decided, err = p.decideOrigin(ctx)
	}
	return p.decided, err
}

func (p *Platform) decideOrigin(ctx context.Context) (Origin, error) {
	if p.set.Images != Auto {
		return p.set.Images, nil
	}
	// A machine without an engine has no cluster; that the engine is missing is for the host's steps to say.
	if state, err := p.inspect(ctx); err == nil && state.Origin != "" {
		if state.Origin == cluster.Packages {
			return Packages, nil
		}
		return Registry, nil
	}
	if _, ok, err := p.kitchen.Node().Cached(ctx); err != nil {
		return "", err
	} else if ok {
		return Packages, nil
	}
	if _, ok, err := p.stockKept(ctx); err != nil {
		return "", err
	} else if ok {
		return Registry, nil
	}
	host, err := p.registry()
	if err != nil {
		return "", err
	}
	if image.Reachable(ctx, host) == nil {
		return Registry, nil
	}
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return "", fault.Unfit("connect the machine to the internet and run it again",
			"no container registry answers (%s), and images can be built from packages on linux/amd64 only; this is %s/%s", host, runtime.GOOS, runtime.GOARCH)
	}
	return Packages, nil
}

// engineImage has the release's image in the engine and returns its name.
func (p *Platform) engineImage(ctx context.Context, release string) (string, error) {
	origin, err := p.origin(ctx)
	if err != nil {
		return "", err
	}
	all, err := p.dishes(origin)
	if err != nil {
		return "", err
	}
	a, err := all[release].build(ctx, func(image.Note) {})
	if err != nil {
		return "", err
	}
	has, err := p.engineHas(ctx, a.Ref)
	if err != nil || has {
		return a.Ref, err
	}
	return a.Ref, p.loadIntoEngine(ctx, a)
}
