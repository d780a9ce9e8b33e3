package proof

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A history goes on behind what earlier runs wrote whole; what is none stays as it is.
func TestAHistoryGoesOn(t *testing.T) {
	t.Parallel()
	var earlier strings.Builder
	first := Record(&earlier)
	first.Ask(7, 1)
	for _, c := range []struct {
		name, before string
		runs, asked  int // 0: it is no history
	}{
		{"new", "", 1, 1},
		{"whole", earlier.String(), 2, 2},
		{"cut off", earlier.String() + `{"at":"2026-01`, 2, 2},
		{"cut off in its first line", `{"at":"2026-01`, 1, 1},
		{"notes", "buy milk\nand bread\n", 0, 0},
		{"a history, and notes", earlier.String() + "buy milk\n", 0, 0},
		{"a note", "buy milk", 0, 0},
		{"a history, and a note", earlier.String() + "buy milk", 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			name := filepath.Join(t.TempDir(), "history")
			if err := os.WriteFile(name, []byte(c.before), 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := os.OpenFile(name, os.O_APPEND|os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			err = Resume(file)
			if c.runs == 0 {
				after, readErr := os.ReadFile(name)
				if err == nil || readErr != nil || string(after) != c.before {
					t.Errorf("%v: %q", errors.Join(err, readErr), after)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r := Record(file)
			r.Ask(7, 1)
			if err := r.Err(); err != nil {
				t.Fatal(err)
			}
			if _, err := file.Seek(0, 0); err != nil {
				t.Fatal(err)
			}
			h, err := ReadHistory(file)
			if err != nil || len(h.Runs) != c.runs || len(h.Asked) != c.asked {
				t.Errorf("%+v %v", h, err)
			}
		})
	}
}
