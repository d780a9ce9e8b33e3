package terminal

import (
	"io"
	"strings"

	"github.com/charmbracelet/lipgloss"
)

// Table writes rows under a header, each column as wide as its widest cell and two blanks between them. A column whose cells
// are all numbers is set to the right. A row may be shorter than the header.
func Table(w io.Writer, header []string, rows [][]string) error {
	lines := make([][]string, 0, 1+len(rows))
	for _, row := range append([][]string{header}, rows...) {
		line := make([]string, len(header))
		for i := range min(len(row), len(line)) {
			line[i] = clean(row[i])
		}
		lines = append(lines, line)
	}
	widths := make([]int, len(header))
	right := make([]bool, len(header))
	for i := range header {
		right[i] = len(rows) > 0
		for n, line := range lines {
			widths[i] = max(widths[i], lipgloss.Width(line[i]))
			right[i] = right[i] && (n == 0 || numeric(line[i]))
		}
	}
	var b strings.Builder
	for _, line := range lines {
		var out strings.Builder
		for i, cell := range line {
			fill := strings.Repeat(" ", widths[i]-lipgloss.Width(cell))
			if right[i] {
				out.WriteString(fill + cell + "  ")
			} else {
				out.WriteString(cell + fill + "  ")
			}
		}
		b.WriteString(strings.TrimRight(out.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func numeric(s string) bool {
	return s != "" && strings.Trim(s, "0123456789.,-") == "" || s == "-"
}

// Facts writes a line for each name and value, the values under one another.
func Facts(w io.Writer, facts [][2]string) error {
	width := 0
	for _, f := range facts {
		width = max(width, lipgloss.Width(f[0]))
	}
	var b strings.Builder
	for _, f := range facts {
		b.WriteString(pad(f[0]+":", width+1) + "  " + clean(f[1]) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Text writes lines that came from outside, without what could move the cursor.
func Text(w io.Writer, text string) error {
	_, err := io.WriteString(w, cleanText(text)+"\n")
	return err
}
