package cluster

import (
	"context"
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

func endLine() string {
	return command.New("docker", "exec", "platform-control-plane", "sh", "-c", endPods).String()
}

// What writes must have its time, also where the node is too ill for its pods to be ended first.
func TestStopEndsThePodsFirstAndWaitsForTheServers(t *testing.T) {
	c, fake := whole(t, nil)
	fake.Answers["docker exec"] = command.Answer{Fail: "no such process"}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		inspectLine,
		endLine(),
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
func TestStartOfANodeThatRunsFinishesAStop(t *testing.T) {
	const look = "docker exec platform-control-plane sh -c '" + kubeletLives + "'"
	for name, test := range map[string]struct {
		change func(*inspected)
		ended  bool // its kubelet has
		want   []string
	}{
		"runs":       {nil, false, []string{inspectLine, look}},
		"half-way":   {nil, true, []string{inspectLine, look, endLine(), "docker stop -t 60 platform-control-plane", "docker start platform-control-plane"}},
		"is stopped": {stopped, false, []string{inspectLine, "docker start platform-control-plane"}},
	} {
		c, fake := whole(t, test.change)
		if test.ended {
			fake.Answers["docker exec"] = command.Answer{Fail: "exit status 1"}
		}
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := fake.Runs(); !slices.Equal(got, test.want) {
			t.Errorf("%s: it ran %q, want %q", name, got, test.want)
		}
	}
}

// The engine goes on with a stop whose client was killed: for a while there is a node that runs, and will not.
func TestAStopThatWasCutOffIsFinishedFirst(t *testing.T) {
	at := time.Date(2026, 11, 25, 22, 31, 0, 5, time.UTC)
	cutOff := func() (*Cluster, *command.Fake) {
		c, fake := whole(t, func(n *inspected) { n.State.StartedAt = at })
		fake.Answers["docker stop"] = command.Answer{Fail: "killed"}
		if err := c.Stop(t.Context()); err == nil {
			t.Fatal("the stop was not cut off")
		}
		fake.Answers["docker stop"] = command.Answer{}
		return c, fake
	}
	c, fake := cutOff()
	if s, err := c.Inspect(t.Context()); err != nil || s.Phase != Stopped || !s.Ending || !s.Started.IsZero() {
		t.Errorf("it is %+v, %v", s, err)
	}
	before := len(fake.Runs())
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{inspectLine, endLine(), "docker stop -t 60 platform-control-plane", "docker start platform-control-plane"}
	if got := fake.Runs()[before:]; !slices.Equal(got, want) {
		t.Errorf("start ran %q, want %q", got, want)
	}
	fake.Answers[inspectLine] = command.Answer{Stdout: node(t, c, func(n *inspected) { n.State.StartedAt = at.Add(time.Minute) })}
	if s, err := c.Inspect(t.Context()); err != nil || s.Phase != Running || s.Ending {
		t.Errorf("in its next life it is %+v, %v", s, err)
	}

	c, fake = cutOff()
	before = len(fake.Runs())
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fake.Runs()[before:]; got[len(got)-1] != want[2] {
		t.Errorf("a second stop ran %q", got)
	}
}

// A deletion whose client was killed goes on in the engine: what is there still is not to be used.
func TestWhatIsBeingDeletedIsNotWhole(t *testing.T) {
	c, fake := whole(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	fake.Answers["docker rm"] = command.Answer{Fail: "killed"}
	time.AfterFunc(again/2, cancel)
	if err := c.Delete(ctx); err == nil {
		t.Fatal("the deletion was not cut off")
	}
	if s, err := c.Inspect(t.Context()); err != nil || s.Phase != Half {
		t.Errorf("it is %+v, %v", s, err)
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
