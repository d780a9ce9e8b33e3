package cluster

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"platformctl/pkg/command"
)

// whole is a cluster that was made to its end, as an engine with these answers describes it.
func whole(t *testing.T, change func(*inspected)) (*Cluster, *command.Fake) {
	t.Helper()
	fake := &command.Fake{}
	c := newCluster(t, fake)
	fake.Answers = map[string]command.Answer{
		inspectLine: {Stdout: node(t, c, change)}, "docker exec": {}, "docker stop": {}, "docker start": {},
	}
	if err := os.WriteFile(filepath.Join(c.state, finished), []byte(`{"container":"c0ffee"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return c, fake
}

func stopped(n *inspected) { n.State.Status, n.State.Running = "exited", false }

// What writes must have its time, also where the API server is too ill to be ended first.
func TestStopEndsTheAPIServerFirstAndWaitsForTheServers(t *testing.T) {
	c, fake := whole(t, nil)
	fake.Answers["docker exec"] = command.Answer{Fail: "no such process"}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		inspectLine,
		`docker exec platform-control-plane sh -c 'systemctl stop kubelet; pkill -KILL -x kube-apiserver'`,
		"docker stop -t 60 platform-control-plane",
	}
	if got := fake.Runs(); !slices.Equal(got, want) {
		t.Errorf("it ran %q, want %q", got, want)
	}
	c, fake = whole(t, stopped)
	if err := c.Stop(t.Context()); err != nil || len(fake.Runs()) != 1 {
		t.Errorf("of a stopped one: %v, %q", err, fake.Runs())
	}
}

// A stop that was cut off leaves a node that runs without its kubelet.
func TestStartOfANodeThatRunsHasItsKubeletRun(t *testing.T) {
	for _, test := range []struct {
		change func(*inspected)
		want   string
	}{
		{nil, "docker exec platform-control-plane systemctl start kubelet"},
		{stopped, "docker start platform-control-plane"},
	} {
		c, fake := whole(t, test.change)
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := fake.Runs(); !slices.Equal(got, []string{inspectLine, test.want}) {
			t.Errorf("it ran %q, want %q", got, test.want)
		}
	}
}

func TestInspectTellsSinceWhenANodeRuns(t *testing.T) {
	at := time.Date(2026, 11, 25, 22, 31, 0, 5, time.UTC)
	c, _ := whole(t, func(n *inspected) { n.State.StartedAt = at })
	if s, err := c.Inspect(t.Context()); err != nil || !s.Started.Equal(at) {
		t.Errorf("%v, %v", s.Started, err)
	}
	c, _ = whole(t, func(n *inspected) { stopped(n); n.State.StartedAt = at })
	if s, err := c.Inspect(t.Context()); err != nil || !s.Started.IsZero() {
		t.Errorf("of a stopped one: %v, %v", s.Started, err)
	}
}
