package plan

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// StreamVersion is that of the stream of JSON. It rises when a field goes away or changes its meaning, not when one comes.
const StreamVersion = 1

// Line is an object of the stream, of which there is one a line. docs/events.md describes it for those who read it.
type Line struct {
	Version int       `json:"v"`
	Time    time.Time `json:"time"`
	Event   string    `json:"event"`             // a Kind, or one of the words below
	Command string    `json:"command,omitempty"` // LineRun: what was run
	Step    string    `json:"step,omitempty"`
	After   []string  `json:"after,omitempty"`
	Cause   string    `json:"cause,omitempty"`
	Note    *Note     `json:"note,omitempty"`
	TookMS  *int64    `json:"tookMs,omitempty"`
	Message string    `json:"message,omitempty"` // LineMessage
	Error   string    `json:"error,omitempty"`   // Failed, Stopped, LineError
	Code    *int      `json:"code,omitempty"`    // LineError: the exit code
	Cure    string    `json:"cure,omitempty"`    // Failed, LineError: what to type
}

// What a line tells that is no event of a step.
const (
	LineRun     = "run"     // a run begins; in what was recorded
	LineMessage = "message" // a sentence for the user
	LineError   = "error"   // the program ends with it
)

// Line is the event as it stands in the stream; what cures an error is for others to add.
func (e Event) Line() Line {
	l := Line{Version: StreamVersion, Time: e.Time, Event: string(e.Kind), Step: e.Step, After: e.After, Cause: e.Cause}
	switch e.Kind {
	case Noted:
		l.Note = &e.Note
	case Already, Done, Failed, Stopped:
		l.TookMS = new(e.Took.Milliseconds())
	}
	if e.Err != nil {
		l.Error = e.Err.Error()
	}
	return l
}

// Write writes the line.
func (l Line) Write(w io.Writer) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// event is what the line told of a step, if it did.
func (l Line) event() (Event, bool) {
	e := Event{Time: l.Time, Step: l.Step, Kind: Kind(l.Event), After: l.After, Cause: l.Cause}
	if l.Note != nil {
		e.Note = *l.Note
	}
	if l.TookMS != nil {
		e.Took = time.Duration(*l.TookMS) * time.Millisecond
	}
	if l.Error != "" {
		e.Err = errors.New(l.Error)
	}
	return e, l.Step != ""
}

// lineLimit is far beyond what a line is: an error may bring a program's output along.
const lineLimit = 1 << 20

// ReadRun reads what was recorded of a run: what was run, and the events of its steps. A last line that a kill has cut short is
// left out; anything else that is no line of this version is an error.
func ReadRun(r io.Reader) (command string, events []Event, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, lineLimit)
	var cut error
	for n := 1; lines.Scan(); n++ {
		if cut != nil {
			return "", nil, cut
		}
		var l Line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			cut = fmt.Errorf("line %d is none of a run: %w", n, err)
			continue
		}
		if l.Version != StreamVersion {
			return "", nil, fmt.Errorf("line %d is of version %d; this program reads version %d", n, l.Version, StreamVersion)
		}
		if l.Event == LineRun {
			command = l.Command
		}
		if e, ok := l.event(); ok {
			events = append(events, e)
		}
	}
	return command, events, lines.Err()
}
