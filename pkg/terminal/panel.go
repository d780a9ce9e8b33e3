package terminal

import (
	"io"
	"strings"
)

// Panel is a result that lives: it is drawn anew in place, as running steps are. One goroutine uses it, and closes it.
type Panel struct {
	live  *live
	lines []string
}

// Grid is a table of a panel; its header and rows are those of Table.
type Grid struct {
	Header []string
	Rows   [][]string
}

// NewPanel draws on out, which must be a terminal.
func NewPanel(out io.Writer, s Surroundings) *Panel { return &Panel{live: newLive(out, s)} }

// Draw shows a title, what is wrong, which is "" most of the time, and tables, in place of what was drawn before. What does not fit
// the screen is cut.
func (p *Panel) Draw(title, wrong string, grids ...Grid) error {
	p.lines = []string{clean(title)}
	if wrong != "" {
		columns, _ := p.live.around.size()
		for _, line := range wrap(clean(wrong), columns-1) {
			p.lines = append(p.lines, p.live.look.bad.Render(line))
		}
	}
	for _, g := range grids {
		if len(g.Rows) == 0 {
			continue // nobody told what would be in it
		}
		var text strings.Builder
		if err := Table(&text, g.Header, g.Rows); err != nil {
			return err
		}
		header, rows, _ := strings.Cut(strings.TrimSuffix(text.String(), "\n"), "\n")
		p.lines = append(p.lines, "", p.live.look.dim.Render(header))
		p.lines = append(p.lines, strings.Split(rows, "\n")...)
	}
	p.live.draw(p.lines, true)
	return nil
}

// Close leaves what was drawn last, and the cursor, visible, below it.
func (p *Panel) Close() {
	if p.live.drawn {
		p.live.draw(p.lines, false)
	}
}
