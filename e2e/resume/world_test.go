//go:build e2e

package resume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"platformctl/pkg/command"
)

const (
	clusterName = "platformctl-resume"
	node        = clusterName + "-control-plane"
	contextName = "kind-" + clusterName
	apiPort     = "8098"
	api         = "http://127.0.0.1:" + apiPort

	// lastMinutes of the test's own time-out are kept for removing what it made.
	lastMinutes = 2 * time.Minute
	again       = 100 * time.Millisecond
)

// theirs is the user's kubeconfig before the first up.
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
    user: me
  name: production
current-context: production
users:
- name: me
  user:
    token: not-a-real-one
`

// world is where the test takes place: a copy of the checkout, and a user's files, in a folder of their own.
type world struct {
	t          *testing.T
	ctx        context.Context
	binary     string
	dir        string
	checkout   string
	kubeconfig string // the user's
	state      string
	temp       string
	run        command.Runner
	env        []string
}

// begin makes a world, or refuses to where a cluster of its name is there that it did not make.
func begin(t *testing.T) *world {
	t.Helper()
	ctx := t.Context()
	if end, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, end.Add(-lastMinutes), errors.New("the test's -timeout is about to run out"))
		t.Cleanup(cancel)
	}
	project, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, ctx: ctx, run: command.Local{}, binary: filepath.Join(project, "bin", "platformctl"), dir: filepath.Join(os.TempDir(), clusterName)}
	if _, err := os.Stat(w.binary); err != nil {
		t.Fatalf("it drives %s, run `make build` first: %v", w.binary, err)
	}
	w.checkout, w.kubeconfig = filepath.Join(w.dir, "checkout"), filepath.Join(w.dir, "home", "kubeconfig")
	w.state, w.temp = filepath.Join(w.dir, "state"), filepath.Join(w.dir, "tmp")
	if os.Getenv("RESUME_KILL_ENGINE") != "" {
		w.state = engineState() // where it is known that platformctl started the engine
	}
	w.env = []string{"PLATFORMCTL_CLUSTER=" + clusterName, "PLATFORMCTL_STATE=" + w.state, "KUBECONFIG=" + w.kubeconfig, "TMPDIR=" + w.temp,
		// Where the machine has no kubectl, make has put one here.
		"PATH=" + os.Getenv("PATH") + string(filepath.ListSeparator) + filepath.Join(project, "bin")}
	w.claim()
	w.must(os.RemoveAll(w.dir))
	for _, dir := range []string{w.temp, filepath.Dir(w.kubeconfig)} {
		w.must(os.MkdirAll(dir, 0o755))
	}
	w.must(os.WriteFile(w.kubeconfig, []byte(theirs), 0o600))
	w.must(copyCheckout(project, w.checkout))
	return w
}

// engineState is platformctl's own state folder.
func engineState() string {
	if dir := os.Getenv("PLATFORMCTL_STATE"); dir != "" {
		return dir
	}
	dir := os.Getenv("XDG_STATE_HOME")
	if dir == "" {
		dir = filepath.Join(os.Getenv("HOME"), ".local", "state")
	}
	return filepath.Join(dir, "platformctl")
}

// claim makes the cluster's name ours: by a file that stands from before the first up until the cluster is gone. A cluster that is
// there without one is somebody else's.
func (w *world) claim() {
	w.t.Helper()
	path := filepath.Join(os.TempDir(), clusterName+".claim")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	w.must(err)
	w.t.Cleanup(func() {
		if err := file.Close(); err != nil {
			w.t.Error(err)
		}
	})
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		w.t.Fatalf("another test is at work on cluster %s (%s is locked: %v)", clusterName, path, err)
	}
	info, err := file.Stat()
	w.must(err)
	there := w.containers()
	if len(there) > 0 && info.Size() == 0 {
		w.t.Fatalf("there is a cluster %s that this test did not make; it is left alone. If nobody needs it: kind delete cluster --name %[1]s", clusterName)
	}
	if info.Size() > 0 {
		w.must(w.remove(w.ctx))
	}
	_, err = file.WriteString("claimed by the test of e2e/resume\n")
	w.must(err)
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), lastMinutes)
		defer cancel()
		if err := w.remove(ctx); err != nil {
			w.t.Error(err)
			return // the claim stands, so that the next run finds it
		}
		if w.t.Failed() {
			w.t.Logf("what platformctl wrote is kept in %s until the next run", w.dir)
		} else if err := os.RemoveAll(w.dir); err != nil {
			w.t.Error(err)
		}
		if err := file.Truncate(0); err != nil {
			w.t.Error(err)
		}
	})
}

// containers are those that kind counts to the cluster.
func (w *world) containers() []string {
	w.t.Helper()
	out, err := w.run.Run(w.ctx, command.New("docker", "ps", "--all", "--filter", "label=io.x-k8s.kind.cluster="+clusterName, "--format", "{{.Names}}"))
	w.must(err)
	return strings.Fields(string(out))
}

// remove takes the cluster away without the product's help, which may be what failed.
func (w *world) remove(ctx context.Context) error {
	out, err := w.run.Run(ctx, command.New("docker", "ps", "--all", "--quiet", "--filter", "label=io.x-k8s.kind.cluster="+clusterName))
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		return err
	}
	_, err = w.run.Run(ctx, command.New("docker", append([]string{"rm", "--force", "--volumes"}, strings.Fields(string(out))...)...))
	return err
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// copyCheckout copies what git would have in it, and nothing that is built or secret.
func copyCheckout(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case name == ".git" || name == "bin":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		case filepath.Dir(name) == "secrets" && filepath.Ext(name) == ".yaml", !d.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), content, 0o644)
	})
}

// does runs a program to its end and returns its standard output.
func (w *world) does(name string, args ...string) string {
	w.t.Helper()
	out, err := w.tries(name, args...)
	w.must(err)
	return out
}

func (w *world) tries(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(w.ctx, 2*time.Minute)
	defer cancel()
	c := command.New(name, args...)
	c.Dir, c.Env = w.checkout, w.env
	out, err := w.run.Run(ctx, c)
	return string(out), err
}

func (w *world) kubectl(args ...string) string {
	w.t.Helper()
	return w.does("kubectl", append([]string{"--kubeconfig", filepath.Join(w.state, "clusters", clusterName, "kubeconfig")}, args...)...)
}

// platformctl is a command of it at work, leading a process group of its own.
type platformctl struct {
	*exec.Cmd
	began time.Time
	said  *os.File // a file, so that nothing waits for children that outlive it
	ended chan struct{}
	err   error // once it has ended
	took  time.Duration
}

// starts begins a command of platformctl.
func (w *world) starts(args ...string) *platformctl {
	w.t.Helper()
	said, err := os.Create(filepath.Join(w.dir, "said"))
	w.must(err)
	p := &platformctl{Cmd: exec.Command(w.binary, append(args, "--progress", "plain")...), said: said, ended: make(chan struct{})}
	p.Dir, p.Env = w.checkout, append(os.Environ(), w.env...)
	p.Stdout, p.Stderr = said, said
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.began = time.Now()
	w.must(p.Start())
	go func() {
		p.err = p.Wait()
		p.took = time.Since(p.began)
		close(p.ended)
	}()
	return p
}

// awaits returns whether the command has ended within the time.
func (w *world) awaits(p *platformctl, within time.Duration) bool {
	w.t.Helper()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
		return false
	case <-w.ctx.Done():
		w.must(errors.Join(context.Cause(w.ctx), p.kill(itsTree)))
		return false
	}
}

// finish runs a command that must come through within the time.
func (w *world) finish(within time.Duration, args ...string) time.Duration {
	w.t.Helper()
	p := w.starts(args...)
	if !w.awaits(p, within) {
		w.must(p.kill(itsTree))
		w.t.Fatalf("platformctl %s has not come through within %s:\n%s", strings.Join(args, " "), within, p.output())
	}
	if p.err != nil {
		w.t.Fatalf("platformctl %s: %v after %s\n%s", strings.Join(args, " "), p.err, p.took.Round(again), p.output())
	}
	return p.took
}

func (p *platformctl) output() string {
	raw, err := os.ReadFile(p.said.Name())
	return errors.Join(err, p.said.Close(), errors.New(string(raw))).Error()
}

// kill sends SIGKILL to the process, its group, or all that descends from it, and returns when it has ended.
func (p *platformctl) kill(victim string) error {
	var err error
	switch victim {
	case itsTree:
		var tree []int
		// Stopped, it starts nothing more while its descendants are looked for.
		if err = syscall.Kill(p.Process.Pid, syscall.SIGSTOP); err == nil {
			tree, err = descendants(p.Process.Pid)
		}
		for _, pid := range append(tree, p.Process.Pid) {
			if killErr := syscall.Kill(pid, syscall.SIGKILL); killErr != nil && !errors.Is(killErr, syscall.ESRCH) {
				err = errors.Join(err, killErr)
			}
		}
	case itself:
		err = syscall.Kill(p.Process.Pid, syscall.SIGKILL)
	default:
		err = syscall.Kill(-p.Process.Pid, syscall.SIGKILL)
	}
	if errors.Is(err, syscall.ESRCH) {
		err = nil
	}
	<-p.ended
	return err
}

// descendants are the processes that a process has started, and those of them in turn.
func descendants(of int) ([]int, error) {
	all, err := processes()
	found := []int{of}
	for i := 0; i < len(found); i++ {
		for pid, p := range all {
			if p.parent == found[i] && !slices.Contains(found, pid) {
				found = append(found, pid)
			}
		}
	}
	return found[1:], err
}

type process struct {
	parent int
	line   string
}

func processes() (map[int]process, error) {
	out, err := exec.Command("ps", "-A", "-ww", "-o", "pid=,ppid=,args=").Output()
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	all := map[int]process{}
	for _, line := range strings.Split(string(out), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		pid, err := strconv.Atoi(fields[0])
		if err != nil {
			return nil, err
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, err
		}
		all[pid] = process{parent, strings.Join(fields[2:], " ")}
	}
	return all, nil
}

// killEngine kills the engine that platformctl has started, and nothing else.
func (w *world) killEngine() error {
	var ours struct {
		PID int `json:"pid"`
	}
	raw, err := os.ReadFile(filepath.Join(w.state, "engine", "started.json"))
	if err == nil {
		err = json.Unmarshal(raw, &ours)
	}
	if err != nil {
		return fmt.Errorf("RESUME_KILL_ENGINE: no engine is known that platformctl started: %w", err)
	}
	all, err := processes()
	if err != nil {
		return err
	}
	if !strings.Contains(all[ours.PID].line, "dockerd") || !strings.Contains(all[ours.PID].line, filepath.Join(w.state, "engine")) {
		return fmt.Errorf("RESUME_KILL_ENGINE: process %d is no engine that platformctl started: %q", ours.PID, all[ours.PID].line)
	}
	return syscall.Kill(ours.PID, syscall.SIGKILL)
}

// order places an order and returns its id.
func (w *world) order(ctx context.Context) (int, error) {
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/orders", strings.NewReader(`{"userId":1,"showId":1,"quantity":1}`))
	if err != nil {
		return 0, err
	}
	post.Header.Set("Content-Type", "application/json")
	var told struct{ OrderID int }
	err = ask(post, http.StatusAccepted, &told)
	return told.OrderID, err
}

// ended waits for an order's end and returns its status.
func (w *world) ended(id int) (string, error) {
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	for {
		var told struct{ Status string }
		get, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/orders/%d?wait=5s", api, id), http.NoBody)
		if err != nil {
			return "", err
		}
		if err := ask(get, http.StatusOK, &told); err != nil {
			return "", err
		}
		if told.Status != "PENDING" {
			return told.Status, nil
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("order %d has not ended", id)
		}
	}
}

func ask(r *http.Request, want int, into any) error {
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != want {
		return fmt.Errorf("%s %s: %s: %s", r.Method, r.URL.Path, response.Status, raw)
	}
	return json.Unmarshal(raw, into)
}
