package terminal

import (
	"fmt"
	"io"
	"strings"
	"time"

	"platformctl/pkg/plan"
)

// What a terminal is told. Two habits keep the picture whole: the cursor rests at the beginning of the part that is redrawn,
// where a terminal that re-wraps its lines at a change of width carries it along, so no line is ever counted; and a frame is
// one write, between the marks of a synchronized update, so nobody sees half of it.
const (
	hideCursor  = "\x1b[?25l"
	showCursor  = "\x1b[?25h"
	beginFrame  = "\x1b[?2026h\x1b[?7l" // and no automatic wrapping
	endFrame    = "\x1b[?7h\x1b[?2026l"
	eraseRight  = "\x1b[K"
	eraseBelow  = "\x1b[J"
	newLine     = "\r\n"
	checkingAge = 300 * time.Millisecond // a check that is still at it is shown as a running step
)

// live keeps the lines of finished steps and redraws those of running ones below them.
type live struct {
	out    io.Writer
	around Surroundings
	look   look
	progress
	finished []string // lines since the last frame
	drawn    bool     // there is a frame on the screen
	away     bool     // closed or paused: what is said is written at once
	frames   int
}

func newLive(out io.Writer, s Surroundings) *live {
	return &live{out: out, around: s, look: newLook(s)}
}

func (l *live) event(e plan.Event) {
	l.take(e)
	l.away = false
	switch e.Kind {
	case plan.Done:
		l.finish(l.look.good.Render(l.look.done) + l.row("", e.Step, Duration(e.Took), l.look.dim.Render(because(e.Cause))))
	case plan.Failed:
		l.finish(l.look.bad.Render(l.look.failed) + l.row("", e.Step, Duration(e.Took), l.look.bad.Render("failed")))
	case plan.Stopped:
		l.finish(l.look.dim.Render(l.row(l.look.stopped, e.Step, Duration(e.Took), "stopped")))
	}
	if g, ok := l.settled(e.Step); ok {
		l.finish(l.look.dim.Render(l.row(l.look.already, g.String(), Duration(g.took), "already")))
	}
	if text := l.summary(e.Time); text != "" {
		l.finish(l.look.dim.Render("  " + text))
	}
}

// row is the line of a step without its mark.
func (l *live) row(mark, step, took, text string) string {
	return strings.TrimRight(fmt.Sprintf("%s %s %s  %s", mark, pad(clean(step), l.name), padLeft(took, 6), text), " ")
}

func (l *live) finish(line string) { l.finished = append(l.finished, line) }

func (l *live) tick(now time.Time) {
	region := l.region(now)
	if len(l.finished) == 0 && len(region) == 0 && !l.drawn {
		return
	}
	l.frames++
	l.draw(region, len(region) > 0)
}

// region is what is drawn again and again: the running steps and a line that sums up.
func (l *live) region(now time.Time) []string {
	if len(l.known) == 0 {
		return nil
	}
	columns, _ := l.around.size()
	var lines []string
	for _, r := range l.running {
		age := now.Sub(r.since)
		if !r.doing && age < checkingAge {
			continue
		}
		text := clean(r.cause)
		if !r.doing {
			text = "looking"
		}
		spinner := l.look.spinner[l.frames%len(l.look.spinner)]
		lines = append(lines, l.look.busy.Render(spinner)+l.row("", r.step, Age(age), l.look.dim.Render(text)))
		if note := noteText(r.note, age >= waitShown); note != "" {
			lines = append(lines, l.below(note, columns-1)...)
		}
	}
	sum := fmt.Sprintf("  %d of %s, %s", l.already+l.done, steps(l.steps), Age(now.Sub(l.began)))
	return append(lines, l.look.dim.Render(sum))
}

// below is a note under its step: what does not fit goes on in a second line, and a third, so that a message is seen to its
// point also at 80 columns.
func (l *live) below(note string, width int) []string {
	const indent, most = "    ", 3
	lines := wrap(note, width-len(indent))
	if len(lines) > most {
		rest := strings.Join(lines[most-1:], " ")
		lines = append(lines[:most-1], l.look.cut(rest, width-len(indent)))
	}
	for i := range lines {
		lines[i] = indent + lines[i]
	}
	return lines
}

// draw writes the finished lines, which stay, and the region. rest leaves the cursor at its beginning; else it is below.
func (l *live) draw(region []string, rest bool) {
	columns, rows := l.around.size()
	// The last column stays free: a terminal that has written there has not moved on yet, and erasing to the right would take
	// the character away again.
	width := columns - 1
	if most := max(rows-1, 1); len(region) > most {
		more := len(region) - most + 1
		region = append(append([]string{}, region[:most-1]...), l.look.dim.Render(fmt.Sprintf("  and %d lines more", more)))
	}
	var b strings.Builder
	b.WriteString(beginFrame)
	if !l.drawn {
		b.WriteString(hideCursor)
	}
	b.WriteString("\r")
	for _, line := range l.finished {
		b.WriteString(l.look.cut(line, width) + eraseRight + newLine)
	}
	l.finished = nil
	for i, line := range region {
		b.WriteString(l.look.cut(line, width) + eraseRight)
		if i < len(region)-1 || !rest {
			b.WriteString(newLine)
		}
	}
	if rest {
		b.WriteString(eraseBelow + "\r")
		if up := len(region) - 1; up > 0 {
			fmt.Fprintf(&b, "\x1b[%dA", up)
		}
	} else {
		b.WriteString(eraseBelow + showCursor)
	}
	b.WriteString(endFrame)
	l.drawn = rest
	write(l.out, b.String())
}

// say puts the text among the finished lines. What is longer than the screen's width is broken, not cut: it is for reading.
func (l *live) say(text string) {
	if !l.drawn && len(l.finished) == 0 && (l.away || len(l.known) == 0) {
		write(l.out, cleanText(text)+"\n")
		return
	}
	columns, _ := l.around.size()
	l.finished = append(l.finished, wrap(cleanText(text), columns-1)...)
}

func (l *live) fail(err error) {
	l.close(time.Now())
	write(l.out, errorText(err, l.look))
}

// close draws what runs for the last time and leaves the cursor, visible, below it.
func (l *live) close(now time.Time) {
	l.away = true
	if l.drawn || len(l.finished) > 0 {
		l.draw(l.region(now), false)
	}
}
