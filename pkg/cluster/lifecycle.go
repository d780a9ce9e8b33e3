package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"platformctl/pkg/command"
)

// graceful is how long the node's processes get to end before they are killed: as long as the servers with data have in
// Kubernetes. They take a second or two.
const graceful = 60 * time.Second

// endPods ends a node's pods as Kubernetes would, all at once, and returns when they have ended or soon after thirty seconds.
//
// The API server, which can write nothing any more when its etcd has ended, would go on trying for a minute and a half; what it was told
// is in etcd. CoreDNS would go on answering for five seconds. These are killed first, and the kubelet is ended, which would start them
// again. Then the first process of each container, a child of its shim, is told to end. systemd knows nothing of the containers: it
// would wait ten seconds for the shims, which take no notice.
const endPods = `systemctl stop kubelet
pkill -KILL -x 'kube-apiserver|coredns'
shims=$(pgrep -d , -f '^/[^ ]*/containerd-shim')
pkill -TERM -P "$shims"
for _ in $(seq 300); do pgrep -P "$shims" >/dev/null || break; sleep 0.1; done
pkill -KILL -f '^/[^ ]*/containerd-shim'`

// kubeletLives is true in a node whose kubelet runs, is about to, or will be started when the node has.
const kubeletLives = `[ "$(systemctl is-active kubelet)" != inactive ] || case $(systemctl is-system-running) in initializing | starting) ;; *) false ;; esac`

// Start starts a stopped node and returns when it runs; Kubernetes in it is not waited for. A node that runs is left alone, unless a
// stop was cut off in it: that is finished first.
func (c *Cluster) Start(ctx context.Context) error {
	s, err := c.Inspect(ctx)
	if err != nil {
		return err
	}
	switch s.Phase {
	case Running:
		if _, err := c.inNode(ctx, "sh", "-c", kubeletLives); err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		// A stop was cut off after it had ended the kubelet. It is finished first: what that kubelet said last, all pods ready, would
		// be taken for true until the next one has looked.
		s.Ending = true
	case Absent, Half:
		return c.absent()
	case Foreign:
		return c.foreign(s)
	}
	if s.Ending {
		if err := c.end(ctx); err != nil {
			return err
		}
	}
	_, err = c.run.Run(ctx, command.New("docker", "start", c.Node()))
	if err != nil && ctx.Err() == nil {
		// docker refuses to start what is only paused, and to unpause what is stopped.
		if _, unpaused := c.run.Run(ctx, command.New("docker", "unpause", c.Node())); unpaused == nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("starting cluster %s: %w", c.name, err)
	}
	return nil
}

// Stop stops the node, which keeps all its data, and returns when it has stopped. A stopped or absent one is left alone.
func (c *Cluster) Stop(ctx context.Context) error {
	s, err := c.Inspect(ctx)
	if err != nil {
		return err
	}
	switch {
	case s.Phase == Absent, s.Phase == Stopped && !s.Ending:
		return nil
	case s.Phase == Foreign:
		return c.foreign(s)
	}
	if s.Phase == Running {
		// Whoever comes after us, if we are killed, must know that this life of the node is over.
		if err := c.writeRecord(ending, record{Container: s.Container, Started: s.Started}); err != nil {
			return fmt.Errorf("stopping cluster %s: %w", c.name, err)
		}
	}
	return c.end(ctx)
}

// end ends the pods and then the node, and returns when it has stopped, also where that was begun already.
func (c *Cluster) end(ctx context.Context) error {
	// A node that is too ill for that is stopped the slow way.
	_, _ = c.inNode(ctx, "sh", "-c", endPods)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stopping cluster %s: %w", c.name, context.Cause(ctx))
	}
	if _, err := c.run.Run(ctx, command.New("docker", "stop", "-t", strconv.Itoa(int(graceful.Seconds())), c.Node())); err != nil {
		return fmt.Errorf("stopping cluster %s: %w", c.name, err)
	}
	return nil
}

// Delete deletes the node with all that is in it and forgets what the state folder tells of it; logs that were kept stay. A
// cluster that is not there is fine, one that platformctl did not make is refused.
func (c *Cluster) Delete(ctx context.Context) error {
	s, err := c.Inspect(ctx)
	if err != nil {
		return err
	}
	if s.Phase == Foreign {
		return c.foreign(s)
	}
	// What is being deleted is no whole cluster any more, whatever the engine shows of it.
	if err := c.forget(finished); err != nil {
		return fmt.Errorf("forgetting cluster %s: %w", c.name, err)
	}
	if err := c.remove(ctx); err != nil {
		return err
	}
	if s.Container == "" {
		if err := c.awaitCutOff(ctx); err != nil {
			return err
		}
	}
	if err := c.store.removeNode(ctx, c.Node(), s.Image); err != nil {
		return err
	}
	if err := c.forget(traces...); err != nil {
		return fmt.Errorf("forgetting cluster %s: %w", c.name, err)
	}
	return nil
}

// Forgotten tells whether the state folder has nothing left of a cluster that is not there; what was kept of a failure may be.
func (c *Cluster) Forgotten() (bool, error) {
	for _, name := range traces {
		if _, err := os.Lstat(filepath.Join(c.state, name)); !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}

// remove deletes our node, if there is one, and looks whether it is gone; docker can refuse while another process makes or deletes it.
func (c *Cluster) remove(ctx context.Context) error {
	tick := time.NewTicker(again)
	defer tick.Stop()
	giveUp := time.After(patience)
	for {
		removeErr := c.removeOurs(ctx)
		node, err := c.inspectNode(ctx)
		switch {
		case err != nil:
			return err
		case node == nil:
			return nil
		case !c.mounted(node):
			return c.foreign(c.judge(node, record{}))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("deleting cluster %s: %w", c.name, context.Cause(ctx))
		case <-giveUp:
			return fmt.Errorf("deleting cluster %s: its node is still there: %w", c.name, removeErr)
		case <-tick.C:
		}
	}
}

// removeOurs tries once to delete the node, if it is ours.
func (c *Cluster) removeOurs(ctx context.Context) error {
	node, err := c.inspectNode(ctx)
	if err != nil || node == nil || !c.mounted(node) {
		return err
	}
	// By its id: a node that somebody else made of that name in this moment is safe.
	_, err = c.run.Run(ctx, command.New("docker", "rm", "-f", "-v", node.ID))
	return err
}
