package terminal

import (
	"io"
	"time"

	"platformctl/pkg/fault"
	"platformctl/pkg/plan"
)

// jsonLines writes an object a line, as things happen.
type jsonLines struct{ out io.Writer }

func (j *jsonLines) event(e plan.Event) {
	l := e.Line()
	l.Cure = fault.CureOf(e.Err)
	j.put(l)
}

func (j *jsonLines) say(text string) {
	j.put(plan.Line{Event: plan.LineMessage, Message: text})
}

func (j *jsonLines) fail(err error) {
	j.put(plan.Line{Event: plan.LineError, Error: err.Error(), Code: new(fault.CodeOf(err)), Cure: fault.CureOf(err)})
}

func (j *jsonLines) put(l plan.Line) {
	l.Version = plan.StreamVersion
	if l.Time.IsZero() {
		l.Time = time.Now()
	}
	_ = l.Write(j.out) // a form has nobody to tell
}

func (*jsonLines) tick(time.Time)  {}
func (*jsonLines) close(time.Time) {}
