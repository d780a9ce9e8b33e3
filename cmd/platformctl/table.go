package main

import (
	"io"
	"strings"

	"platformctl/pkg/terminal"
)

const (
	// columns is how wide prose is, at most.
	columns = 80
	// leastFolded is how many columns a text wants beside others. With less it stands below them.
	leastFolded = 30
	below       = "    "
)

// width is how many columns a result has: those of its terminal; 0 is any number, for who reads a file or a pipe.
func (e *env) width() int { return terminal.On(e.Out, e.Getenv).Columns() }

// foldedTable is a table whose last column has text. Nothing of it is cut: it goes on in more lines, below the row where there is little
// room beside it, and where the other columns have no room either, a row becomes a paragraph. Without a width a row is a line.
func foldedTable(w io.Writer, width int, header []string, rows [][]string) error {
	last := len(header) - 1
	beside := 0 // columns before the text
	for i := range last {
		widest := len(header[i])
		for _, row := range rows {
			widest = max(widest, len([]rune(row[i])))
		}
		beside += widest + 2
	}
	switch {
	case width <= 0:
		return terminal.Table(w, header, rows)
	case beside-2 > width:
		return paragraphs(w, width, header, rows)
	case width-beside < leastFolded:
		return tableAndTexts(w, header[:last], rows, below, func(row []string) (string, []string) {
			return "", foldedLines(row[last], width-len(below))
		})
	}
	return tableAndTexts(w, header, rows, strings.Repeat(" ", beside), func(row []string) (string, []string) {
		all := foldedLines(row[last], width-beside)
		return all[0], all[1:]
	})
}

// tableAndTexts writes a table, and after each row what of its text does not stand in it.
func tableAndTexts(w io.Writer, header []string, rows [][]string, indent string, split func(row []string) (in string, after []string)) error {
	cells := make([][]string, 0, len(rows))
	after := make([][]string, 0, len(rows))
	for _, row := range rows {
		in, rest := split(row)
		cells, after = append(cells, append(append([]string{}, row[:len(row)-1]...), in)), append(after, rest)
	}
	var table, all strings.Builder
	if err := terminal.Table(&table, header, cells); err != nil {
		return err
	}
	head, body, _ := strings.Cut(table.String(), "\n")
	all.WriteString(head + "\n")
	for i, line := range strings.Split(strings.TrimSuffix(body, "\n"), "\n")[:len(rows)] {
		all.WriteString(line + "\n")
		for _, more := range after[i] {
			all.WriteString(indent + more + "\n")
		}
	}
	return terminal.Text(w, all.String())
}

// paragraphs are rows without a table.
func paragraphs(w io.Writer, width int, header []string, rows [][]string) error {
	last := len(header) - 1
	var all strings.Builder
	for _, row := range rows {
		named := []string{row[0]}
		for i := 1; i < last; i++ {
			named = append(named, strings.ToLower(header[i])+" "+row[i])
		}
		all.WriteString(folded(strings.Join(named, ", "), width) + "\n")
		for _, line := range foldedLines(row[last], width-len(below)) {
			all.WriteString(below + line + "\n")
		}
	}
	return terminal.Text(w, all.String())
}

func foldedLines(text string, width int) []string { return strings.Split(folded(text, width), "\n") }

// folded breaks a text into lines of at most so many columns, at its blanks, and within a word that is longer than a line.
func folded(text string, width int) string {
	width = max(width, 1)
	var b strings.Builder
	at := 0
	for _, word := range strings.Fields(text) {
		runes := []rune(word)
		switch {
		case at > 0 && at+1+len(runes) > width:
			b.WriteString("\n")
			at = 0
		case at > 0:
			b.WriteString(" ")
			at++
		}
		for len(runes) > width {
			b.WriteString(string(runes[:width]) + "\n")
			runes = runes[width:]
		}
		b.WriteString(string(runes))
		at += len(runes)
	}
	return b.String()
}

// shortened is the beginning of a text that is longer than its room.
func shortened(s string, room int) string {
	if runes := []rune(s); len(runes) > room {
		return string(runes[:room-1]) + "…"
	}
	return s
}
