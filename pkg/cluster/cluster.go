// Package cluster is one kind cluster: what it is in now, making it, stopping and starting it, throwing it away, putting
// images into its node, and the one context that it adds to the user's kubeconfig.
//
// Who made a cluster is proved by its state folder: it is mounted into the node from the node's first instant. Whether it was
// made to its end is proved by a file in that folder which names the node's container and is written last.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

// NodePort is the port of the node that is published on the host: the order API's NodePort.
const NodePort = 30080

const (
	clusterLabel = "io.x-k8s.kind.cluster"
	stateInNode  = "/platformctl" // where the state folder is seen in the node
	kubeconfig   = "kubeconfig"   // in the state folder: platformctl's own, mode 0600
	finished     = "created.json" // in the state folder: written when the cluster was made to its end
	unmade       = "making.json"  // in the state folder: stands while the cluster is made
	ending       = "ending.json"  // in the state folder: the life of the node that is about to be ended
)

// maxName leaves room for the node's suffix in a host name, which has at most 64 characters.
const maxName = 50

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// Cluster is one kind cluster, there or not.
type Cluster struct {
	name  string
	state string
	store *Store
	run   command.Runner
}

// New returns the cluster of that name. stateDir is its state folder; it need not exist yet, and it is taken with its
// symbolic links resolved. store has what its node may begin with. The error is a usage fault where kind could not take the name.
func New(name, stateDir string, store *Store, run command.Runner) (*Cluster, error) {
	if len(name) > maxName || !validName.MatchString(name) {
		return nil, fault.Usage("take a name such as \"platform\": at most 50 lower-case letters, digits, dots and dashes, with a letter or a digit at both ends",
			"%q cannot be the name of a cluster", name)
	}
	dir, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, fmt.Errorf("finding the state folder of cluster %s: %w", name, err)
	}
	if dir, err = resolve(dir); err != nil {
		return nil, fmt.Errorf("finding the state folder of cluster %s: %w", name, err)
	}
	return &Cluster{name: name, state: dir, store: store, run: run}, nil
}

// resolve follows the symbolic links of what exists of a path.
func resolve(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	parent, err := resolve(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(path)), nil
}

// Name is the cluster's name as kind has it.
func (c *Cluster) Name() string { return c.name }

// Node is the name of the one node's container.
func (c *Cluster) Node() string { return c.name + "-control-plane" }

// Context is the name of the cluster's context in a kubeconfig, as kind names it.
func (c *Cluster) Context() string { return "kind-" + c.name }

// KubeconfigPath is platformctl's own kubeconfig for the cluster; it exists once the cluster was made.
func (c *Cluster) KubeconfigPath() string { return filepath.Join(c.state, kubeconfig) }

// LogsDir is where the logs of a failed creation are kept.
func (c *Cluster) LogsDir() string { return filepath.Join(c.state, "create-logs") }

// Phase is what a cluster is in.
type Phase string

// The phases of a cluster.
const (
	Absent  Phase = "absent"
	Foreign Phase = "foreign" // a container of the node's name, which platformctl did not make
	Half    Phase = "half"    // ours, but its creation never came to its end
	Stopped Phase = "stopped" // ours and whole, but its node does not run, or only until it has been stopped
	Running Phase = "running"
)

// State is what Inspect saw.
type State struct {
	Phase     Phase
	Why       string // Foreign, Half: what gives it away
	Container string // the id of the node's container; "" when absent
	APIPort   int    // the host's port on 127.0.0.1 that leads to NodePort; 0 when absent or unmapped
	Image     string // the reference that the node was made from
	ImageID   string // the id of that image: sha256:…
	Origin    Origin // as it was created; "" unless Stopped or Running
	Ending    bool   // Stopped: a stop was cut off, and the node may run still

	// Started is when the node began its present life, by the clock that its own programs have too; zero unless Running.
	Started time.Time
}

// record is the content of the file that tells a whole cluster from a half one, and of those that tell what is being done to one.
type record struct {
	Container string    `json:"container,omitempty"`
	Image     string    `json:"image,omitempty"`
	Origin    Origin    `json:"origin,omitempty"`
	Started   time.Time `json:"started,omitzero"`
}

// inspected is what is read of docker's description of a container.
type inspected struct {
	ID    string
	Image string
	State struct {
		Status    string
		Running   bool
		Paused    bool
		StartedAt time.Time
	}
	Config struct {
		Image  string
		Labels map[string]string
	}
	HostConfig struct {
		PortBindings map[string][]struct{ HostPort string }
	}
	Mounts []struct{ Source, Destination string }
}

// Inspect tells what the cluster is in, by one call of the engine where there is a node. An engine that does not answer is an
// error (unfit, with its cure), never an absent cluster.
func (c *Cluster) Inspect(ctx context.Context) (State, error) {
	node, err := c.inspectNode(ctx)
	if err != nil {
		return State{}, err
	}
	if node == nil {
		if unfinished, err := c.readRecord(unmade); err != nil {
			return State{}, err
		} else if unfinished != (record{}) {
			return State{Phase: Half, Why: "a run that made it was cut off before there was a node"}, nil
		}
		return State{Phase: Absent}, nil
	}
	made, err := c.readRecord(finished)
	if err != nil {
		return State{}, err
	}
	s := c.judge(node, made)
	if s.Phase == Running {
		last, err := c.readRecord(ending)
		if err != nil {
			return State{}, err
		}
		if last.Container == s.Container && last.Started.Equal(s.Started) {
			// The engine goes on to stop what it was told to stop, for a minute, and shows a node that runs.
			s.Phase, s.Ending, s.Started = Stopped, true, time.Time{}
		}
	}
	return s, nil
}

// inspectNode returns nil where there is no container of the node's name. One that the engine is just making is listed and
// cannot be described yet: it is waited for.
func (c *Cluster) inspectNode(ctx context.Context) (*inspected, error) {
	var tick *time.Ticker
	giveUp := time.After(patience)
	for {
		out, err := c.run.Run(ctx, command.New("docker", "inspect", "--type", "container", c.Node()))
		if err == nil {
			var all []inspected
			if err := json.Unmarshal(out, &all); err != nil {
				return nil, fmt.Errorf("inspecting cluster %s: %w", c.name, err)
			}
			if len(all) != 1 {
				return nil, fmt.Errorf("inspecting cluster %s: docker described %d containers", c.name, len(all))
			}
			return &all[0], nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		// docker inspect ends with 1 both for no such container and for no engine. The list tells which.
		names, listErr := c.run.Run(ctx, command.New("docker", "ps", "--all", "--no-trunc",
			"--filter", "name=^/?"+regexp.QuoteMeta(c.Node())+"$", "--format", "{{.Names}}"))
		if listErr != nil {
			return nil, c.deadEngine(ctx, listErr)
		}
		if strings.TrimSpace(string(names)) == "" {
			return nil, nil
		}
		if tick == nil {
			tick = time.NewTicker(again)
			defer tick.Stop()
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("inspecting cluster %s: %w", c.name, context.Cause(ctx))
		case <-giveUp:
			return nil, fmt.Errorf("inspecting cluster %s: %w", c.name, err)
		case <-tick.C:
		}
	}
}

func (c *Cluster) deadEngine(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fault.Unfit("start the container engine, or let platformctl do it: platformctl doctor --fix",
		"asking the container engine for cluster %s: %w", c.name, err)
}

// judge decides the state from what docker says of the node and what was recorded when it was made.
func (c *Cluster) judge(node *inspected, made record) State {
	s := State{
		Container: node.ID,
		Image:     node.Config.Image,
		ImageID:   node.Image,
	}
	for _, b := range node.HostConfig.PortBindings[strconv.Itoa(NodePort)+"/tcp"] {
		// What is not a number is an unmapped port.
		s.APIPort, _ = strconv.Atoi(b.HostPort)
	}
	switch whose := node.Config.Labels[clusterLabel]; {
	case whose == "":
		s.Phase, s.Why = Foreign, fmt.Sprintf("the container %s is no node of kind", c.Node())
	case whose != c.name:
		s.Phase, s.Why = Foreign, fmt.Sprintf("the container %s belongs to the kind cluster %q", c.Node(), whose)
	case !c.mounted(node):
		s.Phase, s.Why = Foreign, fmt.Sprintf("the container %s has not %s mounted", c.Node(), c.state)
		for _, m := range node.Mounts {
			if m.Destination == stateInNode {
				s.Why = fmt.Sprintf("it was made with the state folder %s, and this one is %s", m.Source, c.state)
			}
		}
	case made.Container != node.ID:
		s.Phase, s.Why = Half, "its creation, or its deletion, never came to its end"
	case node.State.Status == "dead" || node.State.Status == "removing":
		s.Phase, s.Why = Half, "its deletion never came to its end"
	default:
		s.Phase, s.Origin = Stopped, made.Origin
		if node.State.Running && !node.State.Paused {
			s.Phase, s.Started = Running, node.State.StartedAt
		}
	}
	return s
}

// mounted tells whether our state folder is in the node. Docker Desktop shows a folder of the host under /host_mnt.
func (c *Cluster) mounted(node *inspected) bool {
	for _, m := range node.Mounts {
		if m.Destination == stateInNode && (m.Source == c.state || m.Source == "/host_mnt"+c.state) {
			return true
		}
	}
	return false
}

// readRecord reads one of the records; one that is not there is empty.
func (c *Cluster) readRecord(name string) (record, error) {
	var r record
	raw, err := os.ReadFile(filepath.Join(c.state, name))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("reading what is known of cluster %s: %w", c.name, err)
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		// A file that was cut short was never finished, and neither was the cluster, as far as we can tell.
		return record{}, nil
	}
	return r, nil
}

// foreign is the refusal to touch a cluster that is not ours.
func (c *Cluster) foreign(s State) error {
	return fault.Unfit(fmt.Sprintf("take another name: platformctl --cluster NAME …; or, if nobody needs it, delete it yourself: kind delete cluster --name %s", c.name),
		"there is a cluster %q that platformctl did not make, and that it will not touch: %s", c.name, s.Why)
}

// absent is the answer to what needs a cluster.
func (c *Cluster) absent() error {
	return fault.Unfit("make it: platformctl up", "there is no cluster %q", c.name)
}

// Nodes lists the names of all containers that kind counts to the cluster, of whatever phase.
func (c *Cluster) Nodes(ctx context.Context) ([]string, error) {
	out, err := c.run.Run(ctx, command.New("docker", "ps", "--all", "--filter", "label="+clusterLabel+"="+c.name, "--format", "{{.Names}}"))
	if err != nil {
		return nil, c.deadEngine(ctx, err)
	}
	return strings.Fields(string(out)), nil
}

// Kubeconfig returns platformctl's own kubeconfig for the cluster, with an administrator's certificate. Where its file was
// lost it is made again from the node, which must run then.
func (c *Cluster) Kubeconfig(ctx context.Context) ([]byte, error) {
	raw, err := os.ReadFile(c.KubeconfigPath())
	if err == nil && len(raw) > 0 {
		return raw, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the kubeconfig of cluster %s: %w", c.name, err)
	}
	node, err := c.inspectNode(ctx)
	if err != nil {
		return nil, err
	}
	made, err := c.readRecord(finished)
	if err != nil {
		return nil, err
	}
	if node == nil {
		return nil, c.absent()
	}
	switch s := c.judge(node, made); s.Phase {
	case Foreign:
		return nil, c.foreign(s)
	case Half:
		return nil, c.absent()
	}
	if raw, err = c.kubeconfigFromNode(ctx, node); err != nil {
		return nil, fmt.Errorf("making the kubeconfig of cluster %s again: %w", c.name, err)
	}
	return raw, writeAtomically(c.KubeconfigPath(), raw, 0o600)
}

// kubeconfigFromNode takes the administrator's kubeconfig out of the node and gives it the name and the address that kind
// would have given it.
func (c *Cluster) kubeconfigFromNode(ctx context.Context, node *inspected) ([]byte, error) {
	admin, err := c.inNode(ctx, "cat", "/etc/kubernetes/admin.conf")
	if err != nil {
		return nil, err
	}
	inside, err := clientcmd.Load(admin)
	if err != nil {
		return nil, err
	}
	ports := node.HostConfig.PortBindings["6443/tcp"]
	if len(ports) != 1 || len(inside.Clusters) != 1 || len(inside.AuthInfos) != 1 {
		return nil, fmt.Errorf("the node publishes %d ports for %d clusters and %d users, not one each", len(ports), len(inside.Clusters), len(inside.AuthInfos))
	}
	outside := api.NewConfig()
	for _, cluster := range inside.Clusters {
		cluster.Server = "https://" + net.JoinHostPort("127.0.0.1", ports[0].HostPort)
		outside.Clusters[c.Context()] = cluster
	}
	for _, user := range inside.AuthInfos {
		outside.AuthInfos[c.Context()] = user
	}
	outside.Contexts[c.Context()] = &api.Context{Cluster: c.Context(), AuthInfo: c.Context()}
	outside.CurrentContext = c.Context()
	return clientcmd.Write(*outside)
}

// inNode runs a program in the node and returns its standard output.
func (c *Cluster) inNode(ctx context.Context, words ...string) ([]byte, error) {
	return c.run.Run(ctx, command.New("docker", append([]string{"exec", c.Node()}, words...)...))
}

// writeAtomically writes a file so that a reader sees the old content or the new, and makes its folder.
func writeAtomically(path string, content []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	if _, err := tmp.Write(content); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := errors.Join(tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
