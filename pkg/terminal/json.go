package terminal

import (
	"encoding/json"
	"io"
	"time"

	"platformctl/pkg/fault"
	"platformctl/pkg/plan"
)

// version is that of the JSON stream. It rises when a field goes away or changes its meaning, not when one comes.
const version = 1

// line is an object of the stream. Event is one of plan's kinds, or "message" or "error".
type line struct {
	Version int        `json:"v"`
	Time    time.Time  `json:"time"`
	Event   string     `json:"event"`
	Step    string     `json:"step,omitempty"`
	After   []string   `json:"after,omitempty"`
	Cause   string     `json:"cause,omitempty"`
	Note    *plan.Note `json:"note,omitempty"`
	TookMS  *int64     `json:"tookMs,omitempty"`
	Message string     `json:"message,omitempty"`
	Error   string     `json:"error,omitempty"`
	Code    *int       `json:"code,omitempty"`
	Cure    string     `json:"cure,omitempty"`
}

// jsonLines writes an object a line, as things happen.
type jsonLines struct{ out io.Writer }

func (j *jsonLines) event(e plan.Event) {
	l := line{Time: e.Time, Event: string(e.Kind), Step: e.Step, After: e.After, Cause: e.Cause}
	switch e.Kind {
	case plan.Noted:
		l.Note = &e.Note
	case plan.Already, plan.Done, plan.Failed, plan.Stopped:
		ms := e.Took.Milliseconds()
		l.TookMS = &ms
	}
	if e.Err != nil {
		l.Error, l.Cure = e.Err.Error(), fault.CureOf(e.Err)
	}
	j.put(l)
}

func (j *jsonLines) say(text string) { j.put(line{Time: time.Now(), Event: "message", Message: text}) }

func (j *jsonLines) fail(err error) {
	code := fault.CodeOf(err)
	j.put(line{Time: time.Now(), Event: "error", Error: err.Error(), Code: &code, Cure: fault.CureOf(err)})
}

func (j *jsonLines) put(l line) {
	l.Version = version
	text, err := json.Marshal(l)
	if err != nil {
		panic("terminal: a line of plain fields does not become JSON: " + err.Error())
	}
	write(j.out, string(text)+"\n")
}

func (*jsonLines) tick(time.Time)  {}
func (*jsonLines) close(time.Time) {}
