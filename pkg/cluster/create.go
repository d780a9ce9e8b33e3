package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/exec"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

const (
	// again is the pause between two tries to remove a node that another process is still making.
	again = 200 * time.Millisecond
	// patience is what cleaning up may take when nobody waits for it any more.
	patience = time.Minute
)

// Create makes the cluster and returns when kubeadm has; its pods are not waited for. What an earlier, killed run left half
// done is deleted first; a cluster that is whole is left as it is. note gets a line for each thing that kind begins.
//
// A creation that fails leaves no node behind, and its logs in LogsDir. When ctx ends, Create returns its error once kind has
// stopped and the node is gone.
func (c *Cluster) Create(ctx context.Context, cfg Config, note func(string)) error {
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("making cluster %s: %w", c.name, err)
	}
	s, err := c.Inspect(ctx)
	if err != nil {
		return err
	}
	switch s.Phase {
	case Running, Stopped:
		return nil
	case Foreign:
		return c.foreign(s)
	case Half:
		note("deleting what an earlier run left half done")
		if err := c.remove(ctx); err != nil {
			return err
		}
	}
	if err := c.ensureImage(ctx, cfg, note); err != nil {
		return err
	}
	if s.Container == "" {
		if err := c.awaitCutOff(ctx); err != nil {
			return err
		}
	}
	if err := c.clearState(); err != nil {
		return fmt.Errorf("making the state folder of cluster %s: %w", c.name, err)
	}
	if err := c.writeRecord(unmade, record{Image: cfg.Image, Origin: cfg.Origin}); err != nil {
		return fmt.Errorf("making cluster %s: %w", c.name, err)
	}
	if cfg.Content != "" {
		if err := writeAtomically(filepath.Join(c.state, contentKey), []byte(cfg.Content+"\n"), 0o644); err != nil {
			return fmt.Errorf("making cluster %s: %w", c.name, err)
		}
	}

	said := &journal{note: note, onNode: cfg.OnNode}
	err = c.guarded(ctx, func() error {
		return cluster.NewProvider(cluster.ProviderWithLogger(said), cluster.ProviderWithDocker()).Create(c.name,
			cluster.CreateWithV1Alpha4Config(kindConfig(c.name, c.state, c.store.dir, cfg)),
			cluster.CreateWithRetain(true),    // its logs are wanted; then we delete it
			cluster.CreateWithWaitForReady(0), // kind's wait spins, and ends well when it timed out
			cluster.CreateWithDisplayUsage(false),
			cluster.CreateWithDisplaySalutation(false),
			cluster.CreateWithKubeconfigPath(c.KubeconfigPath()))
	})
	if err != nil {
		return c.failed(ctx, cfg, err, said)
	}
	return c.finish(ctx, cfg)
}

// ensureImage pulls a stock image here rather than in kind, whose pull nobody could interrupt.
func (c *Cluster) ensureImage(ctx context.Context, cfg Config, note func(string)) error {
	_, err := c.run.Run(ctx, command.New("docker", "image", "inspect", "--format", "{{.Id}}", cfg.Image))
	if err == nil || ctx.Err() != nil {
		return err
	}
	if cfg.Origin == Packages {
		return fault.New(fault.CodeFailed, "platformctl up builds it before it makes the cluster",
			"making cluster %s: the engine has no image %s: %w", c.name, cfg.Image, err)
	}
	note("pulling " + cfg.Image)
	if _, err := c.run.Run(ctx, command.New("docker", "pull", "--quiet", cfg.Image)); err != nil {
		return fault.Unfit("where no registry can be reached, build the images: platformctl up --images packages",
			"pulling the node image of cluster %s: %w", c.name, err)
	}
	return nil
}

// traces are what the state folder has of a cluster; the record of a creation goes last.
var traces = []string{finished, ending, kubeconfig, kubeconfig + ".lock", contentKey, unmade}

// clearState makes the state folder and takes from it what tells of an earlier cluster, kind's lock of a killed run included.
func (c *Cluster) clearState() error {
	if err := os.MkdirAll(c.state, 0o700); err != nil {
		return err
	}
	if err := c.forget(traces...); err != nil {
		return err
	}
	return os.RemoveAll(c.LogsDir())
}

// finish records that the cluster is whole, also when ctx ends in this last moment.
func (c *Cluster) finish(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	node, err := c.inspectNode(ctx)
	if err != nil {
		return err
	}
	if node == nil {
		return fmt.Errorf("making cluster %s: its node is gone; did somebody delete it meanwhile?", c.name)
	}
	if err := c.writeRecord(finished, record{Container: node.ID, Image: cfg.Image, Origin: cfg.Origin}); err != nil {
		return err
	}
	return c.forget(unmade)
}

func (c *Cluster) writeRecord(name string, r record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeAtomically(filepath.Join(c.state, name), append(raw, '\n'), 0o600)
}

// forget removes files of the state folder; those that are not there are fine.
func (c *Cluster) forget(names ...string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(c.state, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// awaitCutOff returns when nothing is under way any more of a creation that was killed: its docker run may have left an engine at
// work that shows no node yet, and would have one when we are about to make ours or have said that there is none.
func (c *Cluster) awaitCutOff(ctx context.Context) error {
	unfinished, err := c.readRecord(unmade)
	if err != nil || unfinished == (record{}) {
		return err
	}
	// Without its image nothing is made.
	if _, err := c.run.Run(ctx, command.New("docker", "image", "inspect", "--format", "{{.Id}}", unfinished.Image)); err != nil {
		return ctx.Err()
	}
	return c.freeName(ctx, unfinished.Image)
}

// freeName makes sure that no container has the node's name, nor is about to get it: a docker run whose client was killed can
// leave an engine at work that has taken the name and shows nothing yet. What takes the name itself knows. The stand-in carries
// the marks of a half-made cluster of ours, so that it is found again if we are killed here. ctx bounds it.
func (c *Cluster) freeName(ctx context.Context, image string) error {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		if err := c.remove(ctx); err != nil {
			return err
		}
		_, err := c.run.Run(ctx, command.New("docker", "create", "--name", c.Node(), "--label", clusterLabel+"="+c.name,
			"--volume", c.state+":"+stateInNode+":ro", image))
		if err == nil {
			return c.remove(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("taking the name of the node of cluster %s: %w", c.name, err)
		case <-tick.C:
		}
	}
}

// guarded runs work that takes no context and whose child processes cannot be told to stop. When ctx ends it takes the node
// away from under them, again and again since one of them may be just making it, until work has ended; its error is ctx's
// then. kind's children share our process group: on Ctrl-C they are gone before ctx ends, and work fails by itself.
func (c *Cluster) guarded(ctx context.Context, work func() error) error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}

	cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		removeErr := c.removeOurs(cleaning)
		select {
		case <-done:
			return context.Cause(ctx)
		case <-cleaning.Done():
			return fault.New(fault.CodeOf(context.Cause(ctx)), "see what is left, and remove it: docker rm -f -v "+c.Node(),
				"%w; kind did not stop within %s (%v)", context.Cause(ctx), patience, removeErr)
		case <-tick.C:
		}
	}
}

// failed keeps the logs of a failed creation, deletes the node, and says what kind said.
func (c *Cluster) failed(ctx context.Context, cfg Config, err error, said *journal) error {
	var kept error
	if ctx.Err() == nil {
		kept = c.keepLogs(ctx, err, said)
	}
	cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	gone := c.freeName(cleaning, cfg.Image)
	if gone == nil {
		gone = c.store.removeNode(cleaning, c.Node(), cfg.Image)
	}
	if gone == nil {
		gone = c.forget(unmade)
	}
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), gone)
	}
	message := err.Error()
	if ran := exec.RunErrorForError(err); ran != nil {
		message += "\n" + lastLines(string(ran.Output), 12)
	}
	cure := "read the logs in " + c.LogsDir() + ", then run it again: it starts afresh"
	return errors.Join(fault.New(fault.CodeFailed, cure, "making cluster %s: %s", c.name, message), kept, gone)
}

// keepLogs collects what the node can tell. Our own node image lacks a tool that kind asks for, so what could not be
// collected is a line in the log, not an error.
func (c *Cluster) keepLogs(ctx context.Context, failure error, said *journal) error {
	if err := os.MkdirAll(c.LogsDir(), 0o700); err != nil {
		return fmt.Errorf("keeping the logs of the failed creation: %w", err)
	}
	said.V(0).Infof("%v", failure)
	if ran := exec.RunErrorForError(failure); ran != nil {
		said.V(1).Info(string(ran.Output))
	}
	collect := func() error {
		return cluster.NewProvider(cluster.ProviderWithDocker()).CollectLogs(c.name, c.LogsDir())
	}
	if err := c.guarded(ctx, collect); err != nil {
		said.V(1).Infof("collecting the node's logs: %v", err)
	}
	if err := os.WriteFile(filepath.Join(c.LogsDir(), "create.log"), said.text(), 0o600); err != nil {
		return fmt.Errorf("keeping the logs of the failed creation: %w", err)
	}
	return nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
