package page

import (
	"strings"
	"testing"
)

func nothing() State { return State{} }

// Who does not read is ended, holds up nobody, and leaves nothing behind.
func TestASlowClientIsDropped(t *testing.T) {
	var l live
	slow, err := l.join(nothing)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := l.join(nothing)
	if err != nil {
		t.Fatal(err)
	}
	<-quick.frames
	for i := range 2 * backlog {
		if err := l.send(map[string]any{"n": i}, nil); err != nil {
			t.Fatal(err)
		}
		if f := string(<-quick.frames); !strings.HasPrefix(f, `data: {"n":`) || !strings.HasSuffix(f, "\n\n") {
			t.Fatalf("%q", f)
		}
	}
	frames := 0
	for range slow.frames { // it is closed
		frames++
	}
	if frames != backlog {
		t.Errorf("%d frames were kept for who did not read", frames)
	}
	l.leave(slow)
	if len(l.streams) != 1 || !l.watched.Load() {
		t.Errorf("%d streams are left", len(l.streams))
	}
	l.leave(quick)
	if l.watched.Load() {
		t.Error("nobody is left, and it is fed")
	}
}

// What has not changed is not sent.
func TestOnlyWhatHasChanged(t *testing.T) {
	var l live
	s, err := l.join(nothing)
	if err != nil {
		t.Fatal(err)
	}
	for _, sections := range []map[string]any{{"a": 1, "b": 1}, {"a": 1, "b": 1}, {"a": 1, "b": 2}} {
		if err := l.send(sections, nil); err != nil {
			t.Fatal(err)
		}
	}
	l.close()
	<-s.frames // the whole state
	var got []string
	for f := range s.frames {
		got = append(got, strings.TrimSpace(string(f)))
	}
	if want := `data: {"a":1,"b":1} data: {"b":2}`; strings.Join(got, " ") != want {
		t.Errorf("%q", got)
	}
}
