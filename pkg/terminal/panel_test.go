package terminal

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPanelIsDrawnInPlace(t *testing.T) {
	for _, tt := range []struct {
		name    string
		env     map[string]string
		columns int
		want    string
	}{
		{"in colour", map[string]string{"LANG": "C.UTF-8"}, 40, "before\nplatform at 10:00\n\n{2}QUEUE  MESSAGES{}\nq             7\n"},
		{"without", map[string]string{"LANG": "C.UTF-8", "NO_COLOR": "1"}, 40, "before\nplatform at 10:00\n\nQUEUE  MESSAGES\nq             7\n"},
		{"narrower than the terminal", map[string]string{"LANG": "C.UTF-8", "COLUMNS": "11"}, 40, "before\nplatform …\n\n{2}QUEUE  ME…{}\nq        …\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScreen(t, tt.columns, 12)
			if _, err := s.Write([]byte("before\n")); err != nil {
				t.Fatal(err)
			}
			p := NewPanel(s, Surroundings{Terminal: true, Getenv: func(name string) string { return tt.env[name] }, Size: s.size})
			queue := func(rows ...[]string) Grid { return Grid{[]string{"QUEUE", "MESSAGES"}, rows} }
			for _, draw := range []func() error{
				func() error {
					return p.Draw("platform at 09:59", "the API server\x1b[2J does not answer, and it takes more than a line to say so", queue([]string{"a long name that goes", "1"}, []string{"q", "22"}))
				},
				func() error { return p.Draw("platform at 10:00", "", queue([]string{"q", "7"})) },
			} {
				if err := draw(); err != nil {
					t.Fatal(err)
				}
			}
			if !s.hidden {
				t.Error("the cursor is seen at work")
			}
			p.Close()
			if diff := cmp.Diff(tt.want, s.text(true)); diff != "" {
				t.Error(diff)
			}
			if s.hidden || s.x != 0 || s.y != strings.Count(tt.want, "\n") || s.halfFrames > 0 || s.wrapped > 0 {
				t.Errorf("cursor hidden %v at %d, %d; half frames %d; wrapped %d", s.hidden, s.x, s.y, s.halfFrames, s.wrapped)
			}
		})
	}
}
