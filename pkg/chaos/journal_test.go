package chaos

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// node is a node that notes what is run in it.
type node struct {
	ran []string
	err error
}

func (n *node) hands() Hands {
	return Hands{
		Node: "n",
		Shell: func(_ context.Context, script string) ([]byte, error) {
			n.ran = append(n.ran, script)
			return nil, n.err
		},
		Engine: func(_ context.Context, argv ...string) error {
			n.ran = append(n.ran, strings.Join(argv, " "))
			return n.err
		},
	}
}

func TestWhatAKilledChaosLeftIsHealed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clusters", "c.fault")
	heal := func(n *node) (said []string, err error) {
		err = HealLeft(t.Context(), path, n.hands(), func(f Fault) { said = append(said, f.String()) })
		return said, err
	}
	if said, err := heal(&node{}); err != nil || said != nil {
		t.Errorf("where nothing was ever done it says %q, %v", said, err)
	}
	j, left, err := OpenJournal(path)
	if err != nil || left != nil {
		t.Fatal(left, err)
	}
	if said, err := heal(&node{}); err != nil || said != nil {
		t.Errorf("before a fault it says %q, %v", said, err)
	}
	if err := j.begin(Fault{N: 3, Kind: Partition, Target: "apps→database", For: 1e9}); err != nil {
		t.Fatal(err)
	}
	if said, err := heal(&node{}); err != nil || said != nil {
		t.Errorf("while chaos is at work it says %q, %v", said, err)
	}
	if _, _, err := OpenJournal(path); !errors.Is(err, ErrAtWork) {
		t.Errorf("a second chaos begins: %v", err)
	}
	if err := j.Close(); err != nil { // as the kernel does it
		t.Fatal(err)
	}
	if _, err := heal(&node{err: errors.New("the node does not run")}); err == nil {
		t.Error("it was healed in a node that does not run")
	}
	n := &node{}
	said, err := heal(n)
	if err != nil || len(said) != 1 || said[0] != "partition apps→database for 1s" || len(n.ran) != 1 || !strings.Contains(n.ran[0], "nft delete table ip platformctl_chaos") {
		t.Errorf("%q %q %v", said, n.ran, err)
	}
	if said, err := heal(n); err != nil || said != nil || len(n.ran) != 1 {
		t.Errorf("it is healed again: %q %v", said, err)
	}
	// A journal that was cut off tells that nothing had begun.
	if err := os.WriteFile(path, []byte(`{"n":1,"ki`), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := heal(n); err != nil || said != nil || len(n.ran) != 1 {
		t.Errorf("%q %v", said, err)
	}
	if j, left, err = OpenJournal(path); err != nil || left != nil {
		t.Error(left, err)
	} else if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// Every kind can be healed where it was never made: the healer cannot know how far a killed chaos came.
func TestEveryKindHasItsHealing(t *testing.T) {
	for _, s := range sorts() {
		for _, target := range s.targets {
			n := &node{}
			if err := n.hands().heal(t.Context(), Fault{Kind: s.kind, Target: target}); err != nil {
				t.Errorf("%s %s: %v", s.kind, target, err)
			}
			if heals := s.kind != Kill && s.kind != Deploy && s.kind != Duplicates && s.kind != Poison && s.kind != Gap; heals != (len(n.ran) == 1) {
				t.Errorf("%s %s is healed by %q", s.kind, target, n.ran)
			}
			if _, err := (World{Hands: n.hands()}).strike(t.Context(), Fault{Kind: "dance"}, nil); err == nil {
				t.Error("an unknown fault is made")
			}
		}
	}
}

// An interrupt in the middle of a fault ends it healed, and nothing is left for others to heal.
func TestAnInterruptHeals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.fault")
	j, _, err := OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	n := &node{}
	hands := n.hands()
	shell := hands.Shell
	hands.Shell = func(c context.Context, script string) ([]byte, error) {
		if raw, err := os.ReadFile(path); err != nil || len(raw) == 0 {
			t.Errorf("%s: nothing is in the journal, %v", script, err)
		}
		cancel(stopped)
		if strings.Contains(script, "CONT") && c.Err() != nil {
			t.Error("the heal is interrupted")
		}
		return shell(c, script)
	}
	_, err = Chaos{Journal: j, World: World{Hands: hands}}.one(ctx, Fault{N: 1, Kind: Freeze, Target: orderAPI, For: 1e12}, nil)
	if !errors.Is(err, stopped) || len(n.ran) != 2 || !strings.Contains(n.ran[0], "kill -STOP $pids") || !strings.Contains(n.ran[1], "pkill -CONT") {
		t.Errorf("%q %v", n.ran, err)
	}
	if raw, err := os.ReadFile(path); err != nil || len(raw) > 0 {
		t.Errorf("%s is left %v", raw, err)
	}
}
