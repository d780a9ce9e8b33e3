// Package platform knows the ticket shop's platform: its steps and who waits for whom, the names that its users rely on,
// and the lock that lets one platformctl at a time work on a cluster.
package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"platformctl/pkg/cluster"
	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/host"
	"platformctl/pkg/image"
	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
	"platformctl/pkg/recipe"
	"platformctl/pkg/release"
)

// DefaultCluster is the cluster's name where the user gives none.
const DefaultCluster = "platform"

const defaultPort = 8080

// DefaultTimeout is how long a step may work where the user says nothing: each is a matter of seconds, and waits in vain past
// a few minutes.
const DefaultTimeout = 5 * time.Minute

// buildTimeout is for what makes images: the node from nothing takes some eight minutes on two cores, and pulling may take
// longer on a train.
const buildTimeout = 45 * time.Minute

// Origin says where images come from.
type Origin string

// The origins: Auto asks once whether a registry answers, and takes Packages where none does.
const (
	Auto     Origin = "auto"
	Registry Origin = "registry" // pulled
	Packages Origin = "packages" // built from Go modules and Debian packages
)

// Settings is what a caller decides.
type Settings struct {
	Cluster      string // kind's name of the cluster
	Project      string // the checkout; "" for what needs none
	Cache        string // folder for images and parts of them, shared by all clusters
	State        string // folder for the state of all clusters and of an engine that we started
	APIPort      int    // port of the API on 127.0.0.1; 0 is the one that the cluster has, or 8080
	Images       Origin
	Tags         []string      // that the services are compiled with; none in what is released
	Timeout      time.Duration // of a step that makes no image; 0 is DefaultTimeout
	Fix          bool          // mend the host first
	Kubeconfig   string        // the user's file to add the context to; "" is what KUBECONFIG says
	NoKubeconfig bool          // add it nowhere
	Version      string        // of platformctl, for what is kept of a failure
	Getenv       func(string) string
	Chatter      io.Writer // what the libraries inside say; shown when something failed
}

// Platform is the platform of one cluster. It serves one call at a time.
type Platform struct {
	set     Settings
	run     command.Runner
	cluster *cluster.Cluster
	store   *cluster.Store
	cache   *image.Cache
	kitchen *recipe.Kitchen
	lock    *lock

	local   bool              // the engine was seen to be on this machine; which one is meant does not change in a run
	decided Origin            // of images, once it is
	kube    *kube.Client      // once the cluster was seen running
	port    int               // of the API, once it is decided
	filled  map[string]secret // the Secrets, once they were looked at
	rolled  atomic.Bool       // a service of ours was rolled out that had a version before

	detailing sync.Mutex
	details   map[string]release.Difference // what steps found to differ, by step

	helmOnce   sync.Mutex
	helmClient *release.Client // once a release was asked for
}

// New returns the platform that the settings describe; it touches nothing yet. The error is a usage fault for a name that no
// cluster can have.
func New(set Settings, run command.Runner) (*Platform, error) {
	store, err := cluster.NewStore(filepath.Join(set.State, "content"), run)
	if err != nil {
		return nil, err
	}
	c, err := cluster.New(set.Cluster, filepath.Join(set.State, "clusters", set.Cluster), store, run)
	if err != nil {
		return nil, err
	}
	if set.Timeout == 0 {
		set.Timeout = DefaultTimeout
	}
	cache := image.NewCache(filepath.Join(set.Cache, "images"))
	return &Platform{
		set: set, run: run, cluster: c, store: store, cache: cache, kitchen: recipe.New(set.Project, cache, run, set.Tags...),
		// Beside the cluster's folder, not in it: the folder goes with the cluster, under its lock.
		lock: &lock{path: filepath.Join(set.State, "clusters", set.Cluster+".lock")},
	}, nil
}

// change runs steps, the first of which takes the cluster's lock, and records the run of that command.
func (p *Platform) change(ctx context.Context, command string, on func(plan.Event), goals ...*plan.Step) (err error) {
	defer func() { err = errors.Join(err, p.lock.release()) }()
	return p.recordedRun(ctx, command, on, goals...)
}

// flag is what names this cluster on a command line, with a blank before it; "" for the default one.
func (p *Platform) flag() string {
	if p.set.Cluster == DefaultCluster {
		return ""
	}
	return " --cluster " + p.set.Cluster
}

// connect makes the client of a running cluster, and tells why its API server or its node is not ready.
func (p *Platform) connect(ctx context.Context, state cluster.State) (why string, err error) {
	if p.kube == nil {
		raw, err := p.cluster.Kubeconfig(ctx)
		if err != nil {
			return "", err
		}
		if p.kube, err = kube.Connect(raw, state.Started, p.set.Chatter); err != nil {
			return "", err
		}
	}
	return p.kube.Ready(ctx)
}

// awaitAPIServer returns when the API server of a cluster that was started just now answers.
func (p *Platform) awaitAPIServer(ctx context.Context, note func(plan.Note)) error {
	p.kube = nil // it may know of the cluster's life before
	state, err := p.cluster.Inspect(ctx)
	if err != nil {
		return err
	}
	if why, err := p.connect(ctx, state); err != nil || why == "" {
		return err
	}
	return p.kube.AwaitReady(ctx, func(why string) { note(plan.Note{Text: "waiting", Object: "cluster " + p.set.Cluster, Message: why}) })
}

// inspect is the cluster's state, asked of an engine on this machine and of no other.
func (p *Platform) inspect(ctx context.Context) (cluster.State, error) {
	for _, r := range host.Requirements(p.machine(host.Needs{})) {
		if r.Name != "docker/local" || p.local {
			continue
		}
		if why, err := r.Check(ctx); err != nil {
			return cluster.State{}, err
		} else if why != "" {
			return cluster.State{}, r.Unmet(why)
		}
	}
	p.local = true
	return p.cluster.Inspect(ctx)
}

// running is the cluster's state when it is there and runs, with a client for it; else a fault with exit code 3.
func (p *Platform) running(ctx context.Context) (cluster.State, error) {
	state, err := p.inspect(ctx)
	if err != nil {
		return state, err
	}
	switch state.Phase {
	case cluster.Foreign:
		return state, p.foreign(state)
	case cluster.Running:
		_, err := p.connect(ctx, state)
		return state, err
	case cluster.Stopped:
		return state, fault.Unfit("platformctl start"+p.flag(), "the platform is not running: cluster %s is stopped", p.set.Cluster)
	}
	return state, fault.Unfit("platformctl up"+p.flag(), "the platform is not running: cluster %s is %s", p.set.Cluster, state.Phase)
}

// Kube is a client for the running cluster; a fault with exit code 3 when it does not run.
func (p *Platform) Kube(ctx context.Context) (*kube.Client, error) {
	if _, err := p.running(ctx); err != nil {
		return nil, err
	}
	return p.kube, nil
}

// API is the address of the running platform's API, "http://127.0.0.1:8080"; a fault with exit code 3 when it does not run.
func (p *Platform) API(ctx context.Context) (string, error) {
	state, err := p.running(ctx)
	if err != nil {
		return "", err
	}
	order, err := FindService("order")
	if err != nil {
		return "", err
	}
	if live, err := p.kube.Get(ctx, order.object()); err != nil {
		return "", err
	} else if live == nil {
		return "", p.notInstalled(order)
	}
	return address(state.APIPort), nil
}

func (p *Platform) notInstalled(s Service) error {
	return fault.Unfit("platformctl up"+p.flag(), "the platform is not running: cluster %s has no %s", p.set.Cluster, s.Release)
}

func address(port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port) }

// Kubeconfig is the path of the cluster's own kubeconfig file; a fault with exit code 3 when there is no running cluster.
func (p *Platform) Kubeconfig(ctx context.Context) (string, error) {
	if _, err := p.running(ctx); err != nil {
		return "", err
	}
	return p.cluster.KubeconfigPath(), nil
}

func (p *Platform) machine(needs host.Needs) host.Machine {
	return host.Local(p.set.State, p.set.Cache, p.set.Project, needs)
}
