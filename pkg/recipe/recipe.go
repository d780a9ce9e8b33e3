// Package recipe is how our images are made where no registry has them: the node, PostgreSQL and RabbitMQ from Go modules
// and Debian packages, and always our services from their Go source.
//
// What a recipe makes is kept in a cache under a key of everything that goes in, and so are the parts that take long: the
// root file systems and the node's programs. A change to one part makes only that part again.
package recipe

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/image"
)

// Note is how far a recipe has come.
type Note = image.Note

// kept is how many versions of an image or a part the cache keeps: enough to go back and forth between two branches.
const kept = 3

// Kitchen is where recipes are carried out: a checkout, a cache for what they make, and this machine.
type Kitchen struct {
	project string
	cache   *image.Cache
	run     command.Runner
	machine machine
	tags    []string // that the services are compiled with
}

// machine is what decides whether Debian's packages can be unpacked here.
type machine struct {
	os, arch string
	uid      int
	look     func(program string) (string, error)
}

// New returns the kitchen for the checkout in the folder project. The services are compiled with the build tags, if any.
func New(project string, cache *image.Cache, run command.Runner, tags ...string) *Kitchen {
	return &Kitchen{
		project: project, cache: cache, run: run, tags: tags,
		machine: machine{os: runtime.GOOS, arch: runtime.GOARCH, uid: os.Geteuid(), look: exec.LookPath},
	}
}

// Recipe makes one image.
type Recipe struct {
	kitchen *Kitchen
	name    string
	// inputs are the version in the image's tag and all that decides what is in it.
	inputs func(ctx context.Context) (version string, inputs []string, err error)
	// make leaves the image in the folder work.
	make func(ctx context.Context, work, ref string, note func(Note)) (image.Archive, error)
}

// Key is the content hash over everything that goes into the image; it is also the key of the image in the cache.
func (r *Recipe) Key(ctx context.Context) (string, error) {
	_, key, err := r.identity(ctx)
	return key, err
}

// Ref is the name that the image has or will have: platformctl.local/NAME:VERSION-KEY.
func (r *Recipe) Ref(ctx context.Context) (string, error) {
	ref, _, err := r.identity(ctx)
	return ref, err
}

func (r *Recipe) identity(ctx context.Context) (ref, key string, err error) {
	version, inputs, err := r.inputs(ctx)
	if err != nil {
		return "", "", fmt.Errorf("find out what the image %s is made of: %w", r.name, err)
	}
	sum := digest(append([]string{r.name, version, image.Format}, inputs...)...)
	return "platformctl.local/" + r.name + ":" + version + "-" + sum, r.name + "-" + sum, nil
}

// Cached is the image if it has been made before; it makes nothing.
func (r *Recipe) Cached(ctx context.Context) (image.Archive, bool, error) {
	key, err := r.Key(ctx)
	if err != nil {
		return image.Archive{}, false, err
	}
	e, ok, err := r.kitchen.cache.Get(key)
	return e.Archive(), ok, err
}

// Build returns the image from the cache, or makes it. What it makes on the way is in the cache's work folders, which are
// removed however it ends; no process and no mount outlives it. note is called by one goroutine at a time. On a machine
// that cannot make it the error has exit code 3.
func (r *Recipe) Build(ctx context.Context, note func(Note)) (image.Archive, error) {
	ref, key, err := r.identity(ctx)
	if err != nil {
		return image.Archive{}, err
	}
	e, err := r.kitchen.cache.Make(ctx, key, func(ctx context.Context, work string) (image.Made, error) {
		if err := r.kitchen.machine.fit(r.name); err != nil {
			return image.Made{}, err
		}
		a, err := r.make(ctx, work, ref, oneAtATime(note))
		return image.Made{Path: a.Path, Ref: a.Ref, ID: a.ID}, err
	})
	if err != nil {
		return image.Archive{}, fmt.Errorf("make the image %s: %w", ref, err)
	}
	if err := r.kitchen.cache.Trim(ctx, r.name, kept); err != nil {
		return image.Archive{}, fmt.Errorf("remove old images of %s: %w", r.name, err)
	}
	return e.Archive(), nil
}

// part returns a part of an image from the cache, or has it made and then removes those that have not been used for long.
func (k *Kitchen) part(ctx context.Context, key string, maker func(ctx context.Context, work string) (image.Made, error)) (image.CacheEntry, error) {
	e, err := k.cache.Make(ctx, key, maker)
	if err != nil {
		return image.CacheEntry{}, err
	}
	name := key[:strings.LastIndex(key, "-")]
	if err := k.cache.Trim(ctx, name, kept); err != nil {
		return image.CacheEntry{}, fmt.Errorf("remove old parts of %s: %w", name, err)
	}
	return e, nil
}

// fit says what keeps this machine from making the image of that name out of packages.
func (m machine) fit(name string) error {
	if m.os != "linux" || m.arch != "amd64" {
		return fault.Unfit("connect the machine to a container registry and run it again",
			"the image %s can be built from packages on linux/amd64 only, this is %s/%s, and no container registry is in reach to pull it from", name, m.os, m.arch)
	}
	if m.uid != 0 {
		return fault.Unfit("run it again as root, or connect the machine to a container registry",
			"building the image %s from packages needs root: Debian's packages are unpacked with their owners", name)
	}
	for _, need := range []struct{ program, from string }{
		{"mmdebstrap", "mmdebstrap"}, {"unshare", "util-linux"}, {"setpriv", "util-linux"},
	} {
		if _, err := m.look(need.program); err != nil {
			return fault.Unfit("platformctl doctor --fix, or: apt-get install -y "+need.from, "building the image %s from packages needs %s: %w", name, need.program, err)
		}
	}
	return nil
}

// oneAtATime lets steps that run side by side share a function.
func oneAtATime(note func(Note)) func(Note) {
	var mu sync.Mutex
	return func(n Note) {
		mu.Lock()
		defer mu.Unlock()
		note(n)
	}
}
