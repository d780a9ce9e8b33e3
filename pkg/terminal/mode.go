// Package terminal is all that a user sees of a run: the progress of a plan, live, plain or as JSON; tables; the one place
// where an error is printed; a question. It writes where it is told to and decides nothing else.
package terminal

import (
	"os"
	"strconv"
	"strings"

	"github.com/mattn/go-isatty"
	"golang.org/x/term"

	"platformctl/pkg/fault"
)

// Mode is how progress is shown.
type Mode string

// The modes, as --progress takes them.
const (
	Auto  Mode = "auto"  // TTY on a terminal, else Plain
	TTY   Mode = "tty"   // running steps are redrawn in place
	Plain Mode = "plain" // lines only, nothing is rewritten
	JSON  Mode = "json"  // an object a line; json.go has its fields
	Quiet Mode = "quiet" // errors only
)

// ParseMode reads the value of --progress; its error is a usage fault.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Auto, TTY, Plain, JSON, Quiet:
		return m, nil
	}
	return "", fault.Usage("--progress auto|tty|plain|json|quiet", "--progress %q is none of auto, tty, plain, json, quiet", s)
}

// Surroundings are what the look depends on. The zero value is a pipe in an empty environment.
type Surroundings struct {
	Terminal bool                       // progress goes to a terminal
	Getenv   func(string) string        // nil is an empty environment
	Size     func() (columns, rows int) // the terminal's, asked before each drawing; nil or 0 is unknown
}

// On describes a stream and the environment of this process.
func On(stream any, getenv func(string) string) Surroundings {
	f, ok := stream.(*os.File)
	if !ok {
		return Surroundings{Getenv: getenv}
	}
	return Surroundings{
		Terminal: IsTerminal(stream),
		Getenv:   getenv,
		Size: func() (int, int) {
			columns, rows, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 0, 0 // unknown; the drawing has a default
			}
			return columns, rows
		},
	}
}

// IsTerminal tells whether a stream is a file that is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && (isatty.IsTerminal(f.Fd()) || isatty.IsCygwinTerminal(f.Fd()))
}

// Columns is how wide what is written may be: as wide as the terminal, and no wider than COLUMNS. 0 is any width: there is no terminal,
// and nobody has named one.
func (s Surroundings) Columns() int {
	if !s.Terminal && s.env("COLUMNS") == "" {
		return 0
	}
	columns, _ := s.size()
	return columns
}

func (s Surroundings) env(name string) string {
	if s.Getenv == nil {
		return ""
	}
	return s.Getenv(name)
}

// Resolve turns Auto into what suits: live where a person looks at a terminal that can do it, else plain lines.
func (s Surroundings) Resolve(m Mode) Mode {
	if m != Auto && m != "" {
		return m
	}
	if s.Terminal && s.env("TERM") != "dumb" && (s.env("CI") == "" || s.env("CI") == "false") {
		return TTY
	}
	return Plain
}

// colour tells whether to use it: on a terminal that has it, unless NO_COLOR is set to anything (no-color.org).
func (s Surroundings) colour() bool {
	return s.Terminal && s.env("NO_COLOR") == "" && s.env("TERM") != "dumb"
}

// unicode tells whether the locale can show more than ASCII, as the C library decides it.
func (s Surroundings) unicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := s.env(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}

// size is how much may be drawn. COLUMNS makes it narrower than the terminal, never wider: what is longer than the terminal's
// line would wrap, and what has wrapped cannot be redrawn.
func (s Surroundings) size() (columns, rows int) {
	if s.Size != nil {
		columns, rows = s.Size()
	}
	if n, err := strconv.Atoi(s.env("COLUMNS")); err == nil && n > 0 && (columns <= 0 || n < columns) {
		columns = n
	}
	if columns <= 0 {
		columns = 80
	}
	if rows <= 0 {
		rows = 24
	}
	return columns, rows
}
