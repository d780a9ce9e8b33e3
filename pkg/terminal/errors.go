package terminal

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// errorText is an error as it is printed: the message, what a failed program said indented below it, then the cure.
func errorText(err error, l look) string {
	message := strings.Split(cleanText(err.Error()), "\n")
	var b strings.Builder
	b.WriteString(l.bad.Render("Error:") + " " + message[0] + "\n")
	for _, line := range message[1:] {
		b.WriteString("    " + line + "\n")
	}
	for i, line := range strings.Split(cure(err), "\n") {
		switch {
		case line == "":
		case i == 0:
			b.WriteString(l.strong.Render("Try:") + "   " + line + "\n")
		default:
			b.WriteString("       " + line + "\n")
		}
	}
	return b.String()
}

// wrap breaks text at blanks into lines of a width.
func wrap(text string, width int) []string {
	return strings.Split(ansi.Wrap(text, max(width, 1), ""), "\n")
}
