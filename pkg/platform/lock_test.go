package platform

import (
	"path/filepath"
	"strings"
	"testing"

	"platformctl/pkg/plan"
)

func TestTheLockIsHeldUntilItIsReleased(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	one, other := &Platform{lock: &lock{path: path}}, &lock{path: path}
	release, err := one.Hold(t.Context(), func(plan.Event) {})
	if err != nil {
		t.Fatal(err)
	}
	if holder, err := other.take(); err != nil || !strings.Contains(holder, "another platformctl is at work") {
		t.Errorf("%q, %v", holder, err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if holder, err := other.take(); err != nil || holder != "" {
		t.Errorf("it is not given back: %q, %v", holder, err)
	}
	if err := other.release(); err != nil {
		t.Error(err)
	}
}

func TestLockWaitsForItsHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "lock")
	first, second := &lock{path: path}, &lock{path: path}
	if err := plan.Run(t.Context(), func(plan.Event) {}, first.step()); err != nil {
		t.Fatal(err)
	}
	var said string
	err := plan.Run(t.Context(), func(e plan.Event) {
		if e.Kind == plan.Noted {
			said = e.Note.Message
			if err := first.release(); err != nil {
				t.Error(err)
			}
		}
	}, second.step())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, "pid ") {
		t.Errorf("the second one said %q, want who holds the lock", said)
	}
	if second.file == nil {
		t.Error("the second one does not hold the lock")
	}
	if err := second.release(); err != nil {
		t.Fatal(err)
	}
}
