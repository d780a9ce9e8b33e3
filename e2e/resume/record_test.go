package resume

import (
	"bufio"
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorded is what platformctl has recorded of a run, see docs/events.md.
type recorded struct {
	command string
	steps   []string // that were planned
	atWork  []string // that were being looked at or worked on when the record ends
	undone  []string // that had not begun
}

// readRecord reads a record; it is another run's, and false, where it began before the given time. A kill may have cut its last line.
func readRecord(raw []byte, since time.Time) (r recorded, ours bool) {
	last := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, len(raw)+1) // an error may bring a program's output along
	for lines.Scan() {
		var l struct {
			Time                 time.Time
			Event, Step, Command string
		}
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			break
		}
		switch {
		case l.Event == "run":
			if l.Time.Before(since) {
				return recorded{}, false
			}
			r.command = l.Command
		case l.Step != "":
			if l.Event == "planned" {
				r.steps = append(r.steps, l.Step)
			}
			last[l.Step] = l.Event
		}
	}
	for _, step := range r.steps {
		switch last[step] {
		case "planned":
			r.undone = append(r.undone, step)
		case "checking", "doing", "noted":
			r.atWork = append(r.atWork, step)
		}
	}
	return r, r.command != ""
}

// beforeAll is where a run is that has recorded nothing yet.
const beforeAll = "before its first step"

// moment says in a few words where a run was when its record broke off.
func (r recorded) moment() string {
	switch {
	case len(r.atWork) > 0:
		return strings.Join(r.atWork, ", ")
	case len(r.undone) > 0:
		return "between steps, before " + r.undone[0]
	case len(r.steps) == 0:
		return beforeAll
	}
	return "after its last step"
}

func TestTheRecordTellsWhatWasAtWork(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	line := func(event, step string) string {
		return `{"v":1,"time":"2026-01-02T03:04:06Z","event":"` + event + `","step":"` + step + `"}` + "\n"
	}
	run := `{"v":1,"time":"2026-01-02T03:04:05.5Z","event":"run","command":"up"}` + "\n"
	planned := line("planned", "port") + line("planned", "cluster") + line("planned", "api")
	for name, test := range map[string]struct{ raw, want string }{
		"nothing":   {run, "before its first step"},
		"not begun": {run + planned, "between steps, before port"},
		"at work":   {run + planned + line("checking", "port") + line("already", "port") + line("checking", "cluster") + line("doing", "cluster"), "cluster"},
		"cut short": {run + planned + line("checking", "port") + line("checking", "cluster") + `{"v":1,"ti`, "port, cluster"},
		"ended":     {run + line("planned", "port") + line("checking", "port") + line("done", "port"), "after its last step"},
	} {
		r, ours := readRecord([]byte(test.raw), began)
		if !ours || r.moment() != test.want {
			t.Errorf("%s: %q (%v), want %q", name, r.moment(), ours, test.want)
		}
	}
	for name, raw := range map[string]string{"empty": "", "the run before": strings.ReplaceAll(run, "04:05", "04:04") + planned} {
		if r, ours := readRecord([]byte(raw), began); ours {
			t.Errorf("%s: taken for the run's: %+v", name, r)
		}
	}
	if r, _ := readRecord([]byte(run+planned), began); !slices.Equal(r.steps, []string{"port", "cluster", "api"}) {
		t.Errorf("planned are %v", r.steps)
	}
}
