package terminal

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// screen is as much of a terminal as live uses; anything else that is written to it fails the test. It keeps what scrolled
// away, and re-wraps its lines when it becomes narrower, as today's terminals do.
type screen struct {
	t          *testing.T
	mu         sync.Mutex
	columns    int
	rows       int
	lines      [][]cell // with all that scrolled away; the last `rows` are on show
	x, y       int      // y counts from the first line
	style      string
	wraps      bool
	hidden     bool
	frame      bool // between the marks of a synchronized update
	writes     int
	wrapped    int // characters that found no room while wrapping was off
	halfFrames int // writes that ended inside a frame
}

type cell struct {
	r     rune
	style string
}

func newScreen(t *testing.T, columns, rows int) *screen {
	return &screen{t: t, columns: columns, rows: rows, lines: [][]cell{nil}, wraps: true}
}

func (s *screen) size() (int, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.columns, s.rows
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	text := string(p)
	for text != "" {
		if rest, ok := strings.CutPrefix(text, "\x1b["); ok {
			end := strings.IndexFunc(rest, func(r rune) bool { return r >= '@' && r <= '~' })
			if end < 0 {
				s.t.Errorf("a control sequence without an end: %q", text)
				break
			}
			s.control(rest[:end], rest[end])
			text = rest[end+1:]
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		s.put(r)
	}
	if s.frame {
		s.halfFrames++
	}
	return len(p), nil
}

func (s *screen) control(args string, final byte) {
	switch {
	case final == 'm':
		s.style = args
		if args == "0" {
			s.style = ""
		}
	case final == 'K' && args == "":
		if s.x < len(s.lines[s.y]) {
			s.lines[s.y] = s.lines[s.y][:s.x]
		}
	case final == 'J' && args == "":
		if s.x < len(s.lines[s.y]) {
			s.lines[s.y] = s.lines[s.y][:s.x]
		}
		s.lines = s.lines[:s.y+1]
	case final == 'A':
		n, err := strconv.Atoi(args)
		if err != nil {
			s.t.Errorf("up by %q", args)
		}
		s.y = max(s.y-n, len(s.lines)-s.rows, 0)
	case args == "?7":
		s.wraps = final == 'h'
	case args == "?25":
		s.hidden = final == 'l'
	case args == "?2026":
		s.frame = final == 'h'
	default:
		s.t.Errorf("the screen knows no CSI %s%c", args, final)
	}
}

func (s *screen) put(r rune) {
	switch {
	case r == '\r':
		s.x = 0
		return
	case r == '\n':
		s.down()
		s.x = 0 // the line discipline adds the return
		return
	case r == '\t':
		s.x += 8 - s.x%8
		return
	case r < ' ':
		s.t.Errorf("a control character %q", r)
	case s.x >= s.columns && !s.wraps:
		s.wrapped++
		s.x = s.columns - 1
	case s.x >= s.columns:
		s.down()
		s.x = 0
	}
	line := s.lines[s.y]
	for len(line) <= s.x {
		line = append(line, cell{r: ' '})
	}
	line[s.x] = cell{r, s.style}
	s.lines[s.y] = line
	s.x++
}

func (s *screen) down() {
	s.y++
	if s.y == len(s.lines) {
		s.lines = append(s.lines, nil)
	}
}

// resize sets the width; what is too long then takes several lines, and the cursor stays with its character.
func (s *screen) resize(columns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines [][]cell
	y := s.y
	for i, line := range s.lines {
		if i == s.y {
			y = len(lines)
		}
		for len(line) > columns {
			lines = append(lines, line[:columns:columns])
			line = line[columns:]
		}
		lines = append(lines, line)
	}
	s.lines, s.columns, s.y, s.x = lines, columns, y, min(s.x, columns-1)
}

// text is all lines, those that scrolled away included. With styles each change of style is shown as {codes}.
func (s *screen) text(styles bool) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, line := range s.lines {
		style, out := "", strings.Builder{}
		for _, c := range line {
			if styles && c.style != style {
				fmt.Fprintf(&out, "{%s}", c.style)
			}
			style = c.style
			out.WriteRune(c.r)
		}
		if styles && style != "" {
			out.WriteString("{}")
		}
		b.WriteString(strings.TrimRight(out.String(), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
