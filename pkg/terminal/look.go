package terminal

import (
	"fmt"
	"io"
	"strings"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/x/ansi"
	"github.com/muesli/termenv"

	"platformctl/pkg/plan"
)

// look is the vocabulary of marks and colours, ASCII and colourless where the surroundings want it.
type look struct {
	good, bad, busy, dim, strong lipgloss.Style

	done, already, failed, stopped, ellipsis string
	spinner                                  []string
}

func newLook(s Surroundings) look {
	profile := termenv.Ascii
	if s.colour() {
		profile = termenv.ANSI
	}
	// The profile is set, so lipgloss never asks the terminal.
	renderer := lipgloss.NewRenderer(io.Discard)
	renderer.SetColorProfile(profile)
	coloured := func(n string) lipgloss.Style { return renderer.NewStyle().Foreground(lipgloss.Color(n)) }
	l := look{
		good: coloured("2"), bad: coloured("1"), busy: coloured("6"),
		dim: renderer.NewStyle().Faint(true), strong: renderer.NewStyle().Bold(true),
		done: "✓", already: "✓", failed: "✗", stopped: "■", ellipsis: "…",
		spinner: strings.Split("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", ""),
	}
	if !s.unicode() {
		l.done, l.already, l.failed, l.stopped, l.ellipsis = "+", "=", "x", "#", "..."
		l.spinner = strings.Split(`-\|/`, "")
	}
	return l
}

// cut shortens a line, colours and all, to a width.
func (l look) cut(line string, width int) string {
	return ansi.Truncate(line, max(width, 1), l.ellipsis)
}

// pad fills a word with blanks to a width.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-lipgloss.Width(s)))
}

// padLeft sets a word to the right in a width.
func padLeft(s string, width int) string {
	return strings.Repeat(" ", max(0, width-lipgloss.Width(s))) + s
}

// noteText is a note in one line. Without its wait only what the step says of its own work is told: the text of a wait is but
// the beginning of a sentence.
func noteText(n plan.Note, wait bool) string {
	var parts []string
	object, reason, message := clean(n.Object), clean(n.Reason), clean(n.Message)
	waits := object != "" || reason != "" || message != ""
	if waits && !wait {
		return ""
	}
	if n.Text != "" {
		parts = append(parts, clean(n.Text))
	}
	if waits {
		what := strings.TrimSpace(object + " " + reason)
		if message != "" {
			what = strings.TrimPrefix(what+": "+message, ": ")
		}
		parts = append(parts, what)
	}
	if n.Total > 0 {
		parts = append(parts, share(n.Current, n.Total))
	}
	return strings.Join(parts, " ")
}

// because is a cause as it is told of what is done.
func because(cause string) string {
	if cause = clean(cause); cause == "" {
		return ""
	}
	return "cause: " + cause
}

// share is how far something is: pieces are counted, and what is too many to be pieces is bytes.
func share(current, total int64) string {
	if total < 1<<16 {
		return fmt.Sprintf("%d/%d", current, total)
	}
	return fmt.Sprintf("%d%% of %s", min(100, current*100/total), Bytes(total))
}
