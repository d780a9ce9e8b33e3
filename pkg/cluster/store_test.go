package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"platformctl/pkg/command"
)

// preparing is an engine in which a container of the name that the store wants may be at work already.
type preparing struct {
	t       *testing.T
	others  int // how many times another process has taken the name when we come
	refuses string
	says    string

	busy bool
	ran  []string
}

func (p *preparing) Run(ctx context.Context, c command.Command) ([]byte, error) {
	switch line := c.String(); {
	case strings.HasPrefix(line, "docker wait "), strings.HasPrefix(line, "docker inspect "):
		if !p.busy {
			return nil, p.fails(ctx, c, 1)
		}
		if c.Args[0] == "wait" {
			p.busy = false
		}
		return nil, nil
	case strings.HasPrefix(line, "docker rm "):
		return nil, nil
	case strings.HasPrefix(line, "docker run "):
		p.ran = append(p.ran, line)
		if p.others > 0 {
			p.others--
			p.busy = true
			return nil, p.fails(ctx, c, 125)
		}
		if p.refuses != "" {
			return nil, p.fails(ctx, c, 125)
		}
		return []byte(p.says), nil
	default:
		return nil, fmt.Errorf("nobody said %s", line)
	}
}

func (p *preparing) fails(ctx context.Context, c command.Command, code int) error {
	err := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf("exit %d", code)).Run()
	return &command.Error{Command: c, Output: p.refuses, Err: err}
}

func TestPrepareWaitsForAnotherThatPreparesTheSame(t *testing.T) {
	p := &preparing{t: t, others: 2}
	s := newStore(t, p)
	if unfit, err := s.Prepare(t.Context(), "k", "node:1", "/cache/postgresql.tar"); unfit != "" || err != nil {
		t.Errorf("it says %q, %v", unfit, err)
	}
	if len(p.ran) != 3 || !strings.Contains(p.ran[2], "--volume /cache/postgresql.tar:/images/0.tar:ro") || !strings.Contains(p.ran[2], "node:1") {
		t.Errorf("it ran %q", p.ran)
	}
}

func TestPrepareSaysWhyNot(t *testing.T) {
	p := &preparing{t: t, says: "its folder is on a file system of type nfs\n"}
	if unfit, err := newStore(t, p).Prepare(t.Context(), "k", "node:1"); err != nil || unfit != "its folder is on a file system of type nfs" {
		t.Errorf("a folder that cannot be used: %q, %v", unfit, err)
	}
	p = &preparing{t: t, refuses: "no such image"}
	if _, err := newStore(t, p).Prepare(t.Context(), "k", "node:1"); err == nil || !strings.Contains(err.Error(), "no such image") {
		t.Errorf("an engine that refuses: %v", err)
	}
}

func TestStoreListsWhatIsWhole(t *testing.T) {
	s := newStore(t, &command.Fake{})
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("a store that is not there: %v, %v", all, err)
	}
	for _, key := range []string{"c0ffee", ".new-badcafe"} {
		dir := filepath.Join(s.dir, "prepared", key)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, sizeFile), []byte("4096\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != 1 || all[0].Key != "c0ffee" || all[0].Size != 4096 {
		t.Errorf("it lists %+v, %v", all, err)
	}
	if err := s.Remove(t.Context(), "c0ffee", "node:1"); err != nil {
		t.Error(err)
	}
	if has, err := s.Has("c0ffee"); has || err != nil {
		t.Errorf("it still has it: %v, %v", has, err)
	}
}
