package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

const (
	inspectLine = "docker inspect --type container platform-control-plane"
	psLine      = "docker ps --all --no-trunc"
)

func newCluster(t *testing.T, run command.Runner) *Cluster {
	t.Helper()
	c, err := New("platform", t.TempDir(), newStore(t, run), run)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newStore(t *testing.T, run command.Runner) *Store {
	t.Helper()
	s, err := NewStore(t.TempDir(), run)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// node is what docker inspect prints of a node; change alters it first.
func node(t *testing.T, c *Cluster, change func(*inspected)) string {
	t.Helper()
	n := inspected{ID: "c0ffee", Image: "sha256:1mage"}
	n.State.Status, n.State.Running = "running", true
	n.Config.Image = "platformctl.local/node:v1"
	n.Config.Labels = map[string]string{clusterLabel: "platform"}
	n.HostConfig.PortBindings = map[string][]struct{ HostPort string }{"30080/tcp": {{HostPort: "8080"}}, "6443/tcp": {{HostPort: "40001"}}}
	n.Mounts = []struct{ Source, Destination string }{{"/var/lib/docker/volumes/x", "/var"}, {c.state, stateInNode}}
	if change != nil {
		change(&n)
	}
	raw, err := json.Marshal([]inspected{n})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestInspectTellsThePhase(t *testing.T) {
	whole := `{"container":"c0ffee","image":"platformctl.local/node:v1","origin":"packages"}`
	for name, test := range map[string]struct {
		record string
		change func(*inspected)
		want   Phase
		why    string
	}{
		"whole and running":             {record: whole, want: Running},
		"whole and stopped":             {record: whole, want: Stopped, change: func(n *inspected) { n.State.Status, n.State.Running = "exited", false }},
		"paused":                        {record: whole, want: Stopped, change: func(n *inspected) { n.State.Status, n.State.Paused = "paused", true }},
		"killed while it was made":      {want: Half, why: "creation"},
		"the record is of another node": {record: `{"container":"decaf"}`, want: Half, why: "creation"},
		"the record was cut short":      {record: `{"contai`, want: Half, why: "creation"},
		"killed while it was deleted":   {record: whole, want: Half, why: "deletion", change: func(n *inspected) { n.State.Status, n.State.Running = "removing", false }},
		"made by kind alone":            {record: whole, want: Foreign, why: "mounted", change: func(n *inspected) { n.Mounts = n.Mounts[:1] }},
		"made with another state folder": {record: whole, want: Foreign, why: "/home/else",
			change: func(n *inspected) { n.Mounts[1].Source = "/home/else" }},
		"no kind node at all":     {record: whole, want: Foreign, why: "no node of kind", change: func(n *inspected) { n.Config.Labels = nil }},
		"a node of another":       {record: whole, want: Foreign, why: `"other"`, change: func(n *inspected) { n.Config.Labels[clusterLabel] = "other" }},
		"seen by Docker Desktop":  {record: whole, want: Running, change: func(n *inspected) { n.Mounts[1].Source = "/host_mnt" + n.Mounts[1].Source }},
		"a prefix is not a proof": {record: whole, want: Foreign, why: "made with", change: func(n *inspected) { n.Mounts[1].Source += "-2" }},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &command.Fake{}
			c := newCluster(t, fake)
			fake.Answers = map[string]command.Answer{inspectLine: {Stdout: node(t, c, test.change)}}
			if test.record != "" {
				if err := os.WriteFile(filepath.Join(c.state, finished), []byte(test.record), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := c.Inspect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if s.Phase != test.want || !strings.Contains(s.Why, test.why) || (test.why == "") != (s.Why == "") {
				t.Errorf("Inspect = %s (%q), want %s (…%s…)", s.Phase, s.Why, test.want, test.why)
			}
			if s.APIPort != 8080 || s.Image != "platformctl.local/node:v1" || s.ImageID != "sha256:1mage" {
				t.Errorf("Inspect = %+v", s)
			}
			if runs := fake.Runs(); len(runs) != 1 {
				t.Errorf("it took %d calls: %q", len(runs), runs)
			}
		})
	}
}

func TestInspectTellsNoClusterFromNoEngine(t *testing.T) {
	fake := &command.Fake{Answers: map[string]command.Answer{
		inspectLine: {Stdout: "[]\n", Fail: "Error: No such container"},
		psLine:      {Stdout: "\n"},
	}}
	s, err := newCluster(t, fake).Inspect(t.Context())
	if err != nil || s.Phase != Absent {
		t.Errorf("without a node: %+v, %v", s, err)
	}

	fake.Answers[psLine] = command.Answer{Fail: "Cannot connect to the Docker daemon"}
	_, err = newCluster(t, fake).Inspect(t.Context())
	if fault.CodeOf(err) != fault.CodeUnfit || !strings.Contains(fault.CureOf(err), "doctor --fix") {
		t.Errorf("without an engine: %v, cure %q", err, fault.CureOf(err))
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newCluster(t, fake).Inspect(ctx); !errors.Is(err, context.Canceled) || fault.CodeOf(err) != fault.CodeInterrupted {
		t.Errorf("interrupted: %v", err)
	}
}

// making is an engine whose one node is listed before it can be described.
type making struct {
	described string
	asked     int
}

func (m *making) Run(_ context.Context, cmd command.Command) ([]byte, error) {
	if line := cmd.String(); line != inspectLine {
		return []byte("platform-control-plane\n"), nil
	}
	if m.asked++; m.asked < 3 {
		return []byte("[]"), &command.Error{Command: cmd, Err: errors.New("exit status 1")}
	}
	return []byte(m.described), nil
}

func TestNodeInTheMakingIsWaitedFor(t *testing.T) {
	m := &making{}
	c := newCluster(t, m)
	m.described = node(t, c, nil)
	s, err := c.Inspect(t.Context())
	if err != nil || s.Phase != Half {
		t.Errorf("Inspect = %+v, %v", s, err)
	}
}

func TestForeignClustersAreNeverTouched(t *testing.T) {
	fake := &command.Fake{}
	c := newCluster(t, fake)
	fake.Answers = map[string]command.Answer{inspectLine: {Stdout: node(t, c, func(n *inspected) { n.Mounts = nil })}}
	for name, act := range map[string]func() error{
		"create": func() error {
			return c.Create(t.Context(), Config{Image: "x", Origin: Pulled, APIPort: 1}, func(string) {})
		},
		"delete":     func() error { return c.Delete(t.Context()) },
		"stop":       func() error { return c.Stop(t.Context()) },
		"start":      func() error { return c.Start(t.Context()) },
		"kubeconfig": func() error { _, err := c.Kubeconfig(t.Context()); return err },
	} {
		err := act()
		if fault.CodeOf(err) != fault.CodeUnfit || !strings.Contains(fault.CureOf(err), "kind delete cluster --name platform") {
			t.Errorf("%s: %v, cure %q", name, err, fault.CureOf(err))
		}
	}
	for _, line := range fake.Runs() {
		if line != inspectLine {
			t.Errorf("it ran %s", line)
		}
	}
}

func TestNamesThatKindCannotTake(t *testing.T) {
	for _, name := range []string{"", "Platform", "a_b", "-a", "a/b", "../a", strings.Repeat("a", 51)} {
		if _, err := New(name, t.TempDir(), newStore(t, &command.Fake{}), &command.Fake{}); fault.CodeOf(err) != fault.CodeUsage {
			t.Errorf("the name %q: %v", name, err)
		}
	}
	for _, name := range []string{"platform", "p", "e2e-1.2"} {
		if _, err := New(name, t.TempDir(), newStore(t, &command.Fake{}), &command.Fake{}); err != nil {
			t.Errorf("the name %q: %v", name, err)
		}
	}
}

func TestStateFolderIsTakenWithItsLinksResolved(t *testing.T) {
	real := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	c, err := New("platform", filepath.Join(link, "not", "there"), newStore(t, &command.Fake{}), &command.Fake{})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(real, "not", "there"); c.state != want {
		t.Errorf("the state folder is %s, want %s", c.state, want)
	}
}

func TestKubeconfigIsMadeAgainFromTheNode(t *testing.T) {
	fake := &command.Fake{}
	c := newCluster(t, fake)
	if err := os.WriteFile(filepath.Join(c.state, finished), []byte(`{"container":"c0ffee"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	fake.Answers = map[string]command.Answer{
		inspectLine: {Stdout: node(t, c, nil)},
		"docker exec platform-control-plane cat /etc/kubernetes/admin.conf": {Stdout: `apiVersion: v1
kind: Config
clusters: [{name: platform, cluster: {server: "https://platform-control-plane:6443", certificate-authority-data: Q0E=}}]
users: [{name: kubernetes-admin, user: {client-key-data: S0VZ}}]
contexts: [{name: a@b, context: {cluster: platform, user: kubernetes-admin}}]
current-context: a@b
`},
	}
	raw, err := c.Kubeconfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"server: https://127.0.0.1:40001", "current-context: kind-platform", "client-key-data: S0VZ"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("no %q in\n%s", want, raw)
		}
	}
	info, err := os.Stat(c.KubeconfigPath())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %04o", info.Mode().Perm())
	}
}
