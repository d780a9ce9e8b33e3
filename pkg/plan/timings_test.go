package plan

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// lasting is a step that works for so long; 0 is one whose state is there.
func lasting(name string, d time.Duration, after ...*Step) *Step {
	done := d == 0
	return &Step{
		Name: name, After: after,
		Check: func(context.Context) (string, error) {
			if done {
				return "", nil
			}
			return "it is not there", nil
		},
		Do: func(context.Context, func(Note)) error { time.Sleep(d); done = true; return nil },
	}
}

// drawn is a chain as text: each link, and what is beside it.
func drawn(t Timings) []string {
	var lines []string
	for _, l := range t.Chain {
		line := l.Step + " " + l.Took.String()
		for _, b := range l.Beside {
			line += " | " + b.Step + " " + b.Took.String()
		}
		lines = append(lines, line)
	}
	return lines
}

func TestTheChainIsWhatTheRunWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := lasting("host", 0)
		image := lasting("image", 3*time.Second, host)
		node := lasting("node", 5*time.Second, host)
		load := lasting("load", time.Second, image, node)
		config := lasting("config", 2*time.Second, node)
		release := lasting("release", 4*time.Second, load, config)
		context := lasting("context", time.Second, node)
		var events []Event
		if err := Run(t.Context(), func(e Event) { events = append(events, e) }, context, release); err != nil {
			t.Fatal(err)
		}
		got := Time(events)
		if got.Took != 11*time.Second || got.Steps != 7 || !got.Began.Equal(events[0].Time) {
			t.Errorf("%+v", got)
		}
		want := []string{"host 0s", "node 5s | image 3s", "config 2s | context 1s | load 1s", "release 4s"}
		if diff := cmp.Diff(want, drawn(got)); diff != "" {
			t.Error(diff)
		}
		// As it was recorded it reads the same, up to whole milliseconds.
		var recorded bytes.Buffer
		lines := []Line{{Version: StreamVersion, Event: LineRun, Command: "up"}}
		for _, e := range events {
			lines = append(lines, e.Line())
		}
		for _, l := range lines {
			if err := l.Write(&recorded); err != nil {
				t.Fatal(err)
			}
		}
		command, read, err := ReadRun(&recorded)
		if err != nil || command != "up" {
			t.Fatal(command, err)
		}
		if diff := cmp.Diff(want, drawn(Time(read))); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTheChainOfARunThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := lasting("first", time.Second)
		long := lasting("long", time.Minute, first)
		bad := lasting("bad", time.Second, first)
		bad.Do = func(context.Context, func(Note)) error { time.Sleep(2 * time.Second); return errors.New("no") }
		long.Do = func(ctx context.Context, _ func(Note)) error { <-ctx.Done(); return ctx.Err() }
		last := lasting("last", time.Second, long, bad)
		var events []Event
		if err := Run(t.Context(), func(e Event) { events = append(events, e) }, last); err == nil {
			t.Fatal("no error")
		}
		got := Time(events)
		if got.Took != 3*time.Second || len(got.Chain) != 2 || got.Chain[0].Step != "first" || got.Chain[1].Took != 2*time.Second {
			t.Errorf("%v", drawn(got))
		}
		// Cut off while two steps work: what is known of them counts up to the last event.
		cut := Time(events[:8])
		if len(cut.Chain) == 0 || cut.Chain[len(cut.Chain)-1].Kind != "" {
			t.Errorf("%v %+v", drawn(cut), events[:8])
		}
	})
	if got := Time(nil); len(got.Chain) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestReadRun(t *testing.T) {
	good := `{"v":1,"time":"2026-01-02T03:04:05Z","event":"run","command":"down"}
{"v":1,"time":"2026-01-02T03:04:06Z","event":"planned","step":"cluster","after":["lock"]}
`
	for _, c := range []struct {
		text, err string
		events    int
	}{
		{good, "", 1},
		{good + `{"v":1,"time":"2026-01-0`, "", 1}, // killed while it wrote
		{good + "{\"v\":1\n" + good, "line 3 is none of a run", 0},
		{strings.ReplaceAll(good, `"v":1`, `"v":2`), "version 2", 0},
		{"", "", 0},
	} {
		command, events, err := ReadRun(strings.NewReader(c.text))
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v", c.text, err)
			}
		case err != nil || len(events) != c.events || c.events > 0 && (command != "down" || events[0].After[0] != "lock"):
			t.Errorf("%q: %q %+v %v", c.text, command, events, err)
		}
	}
}

func FuzzReadRun(f *testing.F) {
	f.Add([]byte(`{"v":1,"time":"2026-01-02T03:04:05Z","event":"done","step":"a","tookMs":3}` + "\n"))
	f.Add([]byte("{\n{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, events, err := ReadRun(bytes.NewReader(raw))
		if err == nil {
			Time(events)
		}
	})
}
