package terminal

import (
	"fmt"
	"io"
	"strings"
	"time"

	"platformctl/pkg/plan"
)

const (
	// startShown is how long a step is at work before plain says that it has begun: what is done sooner needs no two lines.
	startShown = 2 * time.Second
	// waitAgain is after which time plain repeats what a step waits for, so that a log shows that it is alive.
	waitAgain = 15 * time.Second
)

// plain writes lines and never rewrites one.
type plain struct {
	out  io.Writer
	look look
	progress
}

// told is what plain has said of a running step.
type told struct {
	start  bool
	reason string
	at     time.Time
}

func newPlain(out io.Writer, s Surroundings) *plain { return &plain{out: out, look: newLook(s)} }

func (p *plain) event(e plan.Event) {
	p.take(e)
	switch e.Kind {
	case plan.Done:
		p.line(e.Time, p.look.good.Render(pad("done", 8)), e.Step, Duration(e.Took), because(e.Cause))
	case plan.Failed:
		p.line(e.Time, p.look.bad.Render(pad("failed", 8)), e.Step, Duration(e.Took), "")
	case plan.Stopped:
		p.line(e.Time, p.look.bad.Render(pad("stopped", 8)), e.Step, Duration(e.Took), "")
	}
	if g, ok := p.settled(e.Step); ok {
		p.line(e.Time, p.look.dim.Render(pad("already", 8)), g.String(), Duration(g.took), "")
	}
	if text := p.summary(e.Time); text != "" {
		write(p.out, p.stamp(e.Time)+" "+text+"\n")
	}
}

func (p *plain) tick(now time.Time) {
	for _, r := range p.running {
		age := now.Sub(r.since)
		if !r.doing || age < startShown {
			continue
		}
		if !r.told.start {
			r.told.start, r.told.at = true, now
			p.line(now, p.look.busy.Render(pad("working", 8)), r.step, "", clean(r.cause))
		}
		note := noteText(r.note, true)
		changed := age >= waitShown && r.note.Reason != "" && r.note.Reason != r.told.reason
		if note == "" || !changed && now.Sub(r.told.at) < waitAgain {
			continue
		}
		r.told.reason, r.told.at = r.note.Reason, now
		p.line(now, p.look.busy.Render(pad("waiting", 8)), r.step, Age(age), note)
	}
}

func (p *plain) line(now time.Time, word, step, took, text string) {
	line := fmt.Sprintf("%s %s %s %s  %s", p.stamp(now), word, pad(clean(step), p.name), padLeft(took, 6), text)
	write(p.out, strings.TrimRight(line, " ")+"\n")
}

// stamp is the time since the run began.
func (p *plain) stamp(now time.Time) string {
	return p.look.dim.Render("[" + padLeft(Age(now.Sub(p.began)), 6) + "]")
}

func (p *plain) say(text string) { write(p.out, cleanText(text)+"\n") }
func (p *plain) fail(err error)  { write(p.out, errorText(err, p.look)) }
func (p *plain) close(time.Time) {}
