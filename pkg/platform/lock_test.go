package platform

import (
	"path/filepath"
	"strings"
	"testing"

	"platformctl/pkg/plan"
)

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
