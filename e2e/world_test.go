//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"platformctl/pkg/command"
)

const (
	clusterName = "platformctl-e2e"
	node        = clusterName + "-control-plane"
	contextName = "kind-" + clusterName
	apiPort     = "18080"
	api         = "http://localhost:" + apiPort
	binary      = "bin/platformctl" // seen from the checkout

	// lastMinutes of the test's own time-out are kept for the evidence and for removing the cluster.
	lastMinutes = 2 * time.Minute
	// marker names containers that the scenarios start beside the cluster.
	marker = "platformctl-e2e-scenario"
)

// theirs is the user's kubeconfig before the first up: somebody else's cluster, and no current context.
const theirs = `# mine: do not lose this line
apiVersion: v1
kind: Config
clusters:
- cluster:
    server: https://192.0.2.7:6443
  name: production
contexts:
- context:
    cluster: production
    namespace: shop
    user: me
  name: production
users:
- name: me
  user:
    token: not-a-real-one
`

// world is where the scenarios take place.
type world struct {
	ctx        context.Context // ends at Ctrl-C and shortly before the test's time-out
	checkout   string
	kubeconfig string // the user's
	other      string // another file of theirs
	env        []string
	runner     command.Runner
	up         bool // whether up has come through and nothing has taken it away since
}

// begin makes a world, or refuses to where something of its name is there that it did not make.
func begin(t *testing.T) *world {
	t.Helper()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the test at once
	if end, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, end.Add(-lastMinutes), errors.New("the test's -timeout is about to run out"))
		t.Cleanup(cancel)
	}
	checkout, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(checkout, binary)); err != nil {
		t.Fatalf("the scenarios drive %s, run `make build` first: %v", binary, err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &world{
		ctx: ctx, checkout: checkout, kubeconfig: kubeconfig, other: kubeconfig + "-other", runner: command.Local{},
		env: []string{
			"PLATFORMCTL_CLUSTER=" + clusterName,
			"KUBECONFIG=" + kubeconfig,
			// Where the machine has no kubectl, make has put one here.
			"PATH=" + os.Getenv("PATH") + string(filepath.ListSeparator) + filepath.Join(checkout, "bin"),
		},
	}
	w.claim(t)
	return w
}

// claim makes the cluster's name ours for the run. The claim is a file that stands from before the first up until the cluster
// is gone: a cluster that is there without one is somebody else's.
func (w *world) claim(t *testing.T) {
	t.Helper()
	path := filepath.Join(os.TempDir(), clusterName+".claim")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatalf("other scenarios are at work on cluster %s (%s is locked: %v)", clusterName, path, err)
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	there, err := w.containers(w.ctx, "name=^/?"+node+"$")
	switch {
	case err != nil:
		t.Fatalf("the scenarios need a container engine: %v", err)
	case len(there) > 0 && info.Size() == 0:
		t.Fatalf("there is a container %s that the scenarios did not make; it is left alone. If nobody needs it: docker rm -f -v %[1]s", node)
	case info.Size() > 0:
		t.Logf("removing what an earlier run left behind")
		if err := w.remove(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := file.WriteString("claimed by the scenarios of e2e\n"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Also after Ctrl-C, so not within w.ctx.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), lastMinutes)
		defer cancel()
		if err := w.remove(ctx); err != nil {
			t.Error(err)
			return // the claim stands, so that the next run finds it
		}
		if err := file.Truncate(0); err != nil {
			t.Error(err)
		}
	})
}

// remove takes away the cluster and what scenarios started beside it. The product does it; where it cannot, the engine does.
func (w *world) remove(ctx context.Context) error {
	down := command.New(binary, "down", "-y", "--no-snapshot")
	down.Dir, down.Env = w.checkout, w.env
	_, downErr := w.runner.Run(ctx, down)
	var left []string
	for _, filter := range []string{"name=^/?" + node + "$", "label=" + marker} {
		ids, err := w.containers(ctx, filter)
		if err != nil {
			return errors.Join(downErr, err)
		}
		left = append(left, ids...)
	}
	if len(left) == 0 {
		return downErr
	}
	_, err := w.runner.Run(ctx, command.New("docker", append([]string{"rm", "--force", "--volumes"}, left...)...))
	return errors.Join(downErr, err)
}

func (w *world) containers(ctx context.Context, filter string) (ids []string, err error) {
	out, err := w.runner.Run(ctx, command.New("docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", filter))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(out)), nil
}

// evidence is what there is to see of the cluster, for a scenario that failed.
func (w *world) evidence() string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), lastMinutes/2)
	defer cancel()
	var b strings.Builder
	for _, line := range []string{
		binary + " status",
		"kubectl --context " + contextName + " get pods -A -o wide",
		"kubectl --context " + contextName + " get events -A --sort-by=.lastTimestamp | tail -n 40",
		binary + " logs --tail 25 order payment rabbitmq postgres",
	} {
		cmd := command.New("sh", "-c", line+" 2>&1")
		cmd.Dir, cmd.Env = w.checkout, w.env
		fmt.Fprintf(&b, "$ %s\n", line)
		out, err := w.runner.Run(ctx, cmd)
		b.Write(out)
		if err != nil {
			fmt.Fprintf(&b, "(%v)\n", errors.Unwrap(err))
		}
	}
	return b.String()
}
