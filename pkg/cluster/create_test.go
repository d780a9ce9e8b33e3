package cluster

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

// engine is a docker whose one node comes into being late, as it does when docker run was under way when it was interrupted.
type engine struct {
	command.Fake
	described string

	mu      sync.Mutex
	asked   int
	appears int // at the how-manieth inspection the node is there
	removed chan struct{}
}

func (e *engine) Run(ctx context.Context, cmd command.Command) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	gone := false
	select {
	case <-e.removed:
		gone = true
	default:
	}
	switch line := cmd.String(); {
	case line == inspectLine:
		e.asked++
		if e.asked < e.appears || gone {
			return nil, &command.Error{Command: cmd, Err: errors.New("exit status 1")}
		}
		return []byte(e.described), nil
	case strings.HasPrefix(line, psLine):
		return nil, nil
	case line == "docker rm -f -v c0ffee" && !gone:
		close(e.removed)
		return nil, nil
	case strings.HasPrefix(line, "docker create --name platform-control-plane --label io.x-k8s.kind.cluster=platform --volume "):
		if !gone {
			return nil, &command.Error{Command: cmd, Output: "Conflict. The container name is already in use", Err: errors.New("exit status 1")}
		}
		return []byte("5tandin\n"), nil
	default:
		return e.Fake.Run(ctx, cmd)
	}
}

// kind takes no context: when ours ends, its node is taken away until it has noticed.
func TestInterruptedCreationJoinsAndCleansUp(t *testing.T) {
	e := &engine{appears: 3, removed: make(chan struct{})}
	c := newCluster(t, e)
	e.described = node(t, c, nil)

	ctx, cancel := context.WithCancel(t.Context())
	ended := false
	err := c.guarded(ctx, func() error {
		cancel()
		<-e.removed // what kind waits for in the node ends when the node does
		ended = true
		return errors.New("docker exec: exit status 137")
	})
	if !errors.Is(err, context.Canceled) || fault.CodeOf(err) != fault.CodeInterrupted {
		t.Errorf("guarded = %v", err)
	}
	if !ended {
		t.Error("guarded returned before kind had stopped")
	}
}

// On Ctrl-C kind's children may be gone before our context ends; what kind says of it is then not the error. The engine may
// still be making the node, whose name is taken before anything is to be seen of it.
func TestChildrenKilledFirstIsStillAnInterruption(t *testing.T) {
	e := &engine{appears: 4, removed: make(chan struct{})}
	c := newCluster(t, e)
	e.described = node(t, c, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := c.failed(ctx, Config{Image: "x"}, errors.New("signal: interrupt"), &journal{note: func(string) {}})
	if fault.CodeOf(err) != fault.CodeInterrupted {
		t.Errorf("failed = %v", err)
	}
	select {
	case <-e.removed:
	default:
		t.Error("the node is still there")
	}
}

// A run that is killed together with its docker run leaves an engine that goes on making a node which nobody sees yet. Neither may
// the next run find the name taken, nor down say that nothing is there.
func TestWhatAKilledCreationLeftUnderWayIsAwaited(t *testing.T) {
	e := &engine{appears: 4, removed: make(chan struct{})}
	c := newCluster(t, e)
	e.described = node(t, c, nil)
	if forgotten, err := c.Forgotten(); err != nil || !forgotten {
		t.Errorf("before anything: %v, %v", forgotten, err)
	}
	if err := c.writeRecord(unmade, record{Image: "platformctl.local/node:x", Origin: Packages}); err != nil {
		t.Fatal(err)
	}
	e.Fake.Answers = map[string]command.Answer{"docker image inspect": {Stdout: "sha256:1mage"}}
	if s, err := c.Inspect(t.Context()); err != nil || s.Phase != Half {
		t.Errorf("nothing is to be seen: %+v, %v", s, err)
	}
	if forgotten, err := c.Forgotten(); err != nil || forgotten {
		t.Errorf("a creation was cut off: %v, %v", forgotten, err)
	}
	if err := c.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-e.removed:
	default:
		t.Error("the node that came late is still there")
	}
	if s, err := c.Inspect(t.Context()); err != nil || s.Phase != Absent {
		t.Errorf("after Delete: %+v, %v", s, err)
	}
	if forgotten, err := c.Forgotten(); err != nil || !forgotten {
		t.Errorf("after Delete: %v, %v", forgotten, err)
	}
}

// Where the image is gone nothing can be made of it, and docker create would try to pull it, again and again.
func TestOfAnImageThatIsGoneNothingIsUnderWay(t *testing.T) {
	fake := &command.Fake{Answers: map[string]command.Answer{
		inspectLine:            {Fail: "no such container"},
		psLine:                 {},
		"docker image inspect": {Fail: "no such image"},
	}}
	c := newCluster(t, fake)
	if err := c.writeRecord(unmade, record{Image: "platformctl.local/node:x", Origin: Packages}); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if forgotten, err := c.Forgotten(); err != nil || !forgotten {
		t.Errorf("after Delete: %v, %v", forgotten, err)
	}
}

func TestMissingImages(t *testing.T) {
	fake := &command.Fake{Answers: map[string]command.Answer{
		inspectLine:            {Fail: "no such container"},
		psLine:                 {},
		"docker image inspect": {Fail: "no such image"},
		"docker pull":          {Fail: "dial tcp: lookup: no such host"},
	}}
	c := newCluster(t, fake)
	var notes []string
	note := func(s string) { notes = append(notes, s) }
	err := c.Create(t.Context(), Config{Image: "platformctl.local/node:x", Origin: Packages, APIPort: 8080}, note)
	if err == nil || !strings.Contains(err.Error(), "platformctl.local/node:x") || len(notes) != 0 {
		t.Errorf("an image of ours: %v, notes %q", err, notes)
	}
	err = c.Create(t.Context(), Config{Image: "kindest/node:x", Origin: Pulled, APIPort: 8080}, note)
	if fault.CodeOf(err) != fault.CodeUnfit || !strings.Contains(fault.CureOf(err), "--images packages") || len(notes) != 1 {
		t.Errorf("a stock image: %v, cure %q, notes %q", err, fault.CureOf(err), notes)
	}
}

func TestJournalNotesWhatKindBegins(t *testing.T) {
	var notes []string
	j := &journal{note: func(s string) { notes = append(notes, s) }}
	j.V(0).Infof("Creating cluster %q ...\n", "platform")
	j.V(0).Infof(" • %s  ...\n", "Preparing nodes 📦 ")
	j.V(0).Infof(" ✓ %s\n", "Preparing nodes 📦 ")
	j.V(0).Infof(" • %s  ...\n", "Starting control-plane 🕹️")
	j.V(3).Info("kubeadm: a thousand lines")
	j.Warn("cgroup v1 is deprecated")
	want := "Preparing nodes|Starting control-plane|kind warns: cgroup v1 is deprecated"
	if got := strings.Join(notes, "|"); got != want {
		t.Errorf("notes %q, want %q", got, want)
	}
	if all := string(j.text()); !strings.Contains(all, "a thousand lines\n") {
		t.Errorf("the journal lost lines:\n%s", all)
	}
}
