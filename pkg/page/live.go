package page

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	mostStreams = 16 // at once; a browser's tab has one
	backlog     = 64 // frames that a stream may be behind, some seconds; then it is ended, and its client begins anew

	// Of what happens in a beat the events of the first messages are shown, and of one batch only a few, so that all kinds are
	// seen. The figures count all.
	mostEvents, mostOfBatch = 24, 12
)

// Errors of join.
var (
	errFull   = fmt.Errorf("there are %d streams already", mostStreams)
	errClosed = errors.New("the service is stopping")
)

// live is the state as it was sent, and those who look at it. All get the same frames; a frame says only what has changed.
type live struct {
	watched atomic.Bool // whether anybody looks

	mu       sync.Mutex
	sections map[string]json.RawMessage // of the state, as they were sent last
	streams  map[*stream]struct{}
	closed   bool

	feed   sync.Mutex
	events []Event // since the last beat
	missed int     // events that are not among them
	dirty  bool    // something happened
}

// stream is one who looks. Its channel is closed when it is ended from here.
type stream struct{ frames chan []byte }

// join adds a stream whose first frame is the whole state. It is taken while nothing can be sent, so that what the stream gets
// next is newer.
func (l *live) join(state func() State) (*stream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errClosed
	}
	if len(l.streams) >= mostStreams {
		return nil, errFull
	}
	raw, err := json.Marshal(state())
	if err != nil {
		return nil, fmt.Errorf("write the state as JSON: %w", err)
	}
	s := &stream{frames: make(chan []byte, backlog)}
	s.frames <- frame(raw)
	if l.streams == nil {
		l.streams = map[*stream]struct{}{}
	}
	l.streams[s] = struct{}{}
	l.watched.Store(true)
	return s, nil
}

// leave ends a stream; a second call does nothing.
func (l *live) leave(s *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(s)
}

func (l *live) end(s *stream) {
	if _, in := l.streams[s]; !in {
		return
	}
	delete(l.streams, s)
	close(s.frames)
	if len(l.streams) == 0 {
		l.watched.Store(false)
		l.take()
	}
}

// close ends all streams and lets no more in.
func (l *live) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for s := range l.streams {
		l.end(s)
	}
}

// send gives all who look those of the sections that are not as they were sent last, and once, which are no part of the state.
// Who does not keep up is ended: memory is bounded, and a client that comes back begins with the whole state.
func (l *live) send(sections, once map[string]any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sections == nil {
		l.sections = map[string]json.RawMessage{}
	}
	changed := map[string]json.RawMessage{}
	for name, value := range sections {
		raw, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("write the %s as JSON: %w", name, err)
		}
		if !bytes.Equal(raw, l.sections[name]) {
			l.sections[name], changed[name] = raw, raw
		}
	}
	for name, value := range once {
		raw, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("write the %s as JSON: %w", name, err)
		}
		changed[name] = raw
	}
	if len(changed) == 0 || len(l.streams) == 0 {
		return nil
	}
	raw, err := json.Marshal(changed)
	if err != nil {
		return fmt.Errorf("write what has changed as JSON: %w", err)
	}
	all := frame(raw)
	for s := range l.streams {
		select {
		case s.frames <- all:
		default:
			l.end(s)
		}
	}
	return nil
}

// frame is a message of a stream.
func frame(raw []byte) []byte {
	return append(append([]byte("data: "), raw...), "\n\n"...)
}

// note is told of n events, and asks for a few of them. While nobody looks it costs a look at a flag.
func (l *live) note(n int, event func(i int) Event) {
	if n == 0 || !l.watched.Load() {
		return
	}
	l.feed.Lock()
	defer l.feed.Unlock()
	shown := min(n, mostOfBatch, mostEvents-len(l.events))
	for i := range shown {
		l.events = append(l.events, event(i))
	}
	l.missed += n - shown
	l.dirty = true
}

// happened takes the events of a beat.
type happened struct {
	Shown  []Event `json:"shown"`
	Missed int     `json:"missed"`
}

func (l *live) take() (h happened, dirty bool) {
	l.feed.Lock()
	defer l.feed.Unlock()
	h, dirty = happened{l.events, l.missed}, l.dirty
	l.events, l.missed, l.dirty = nil, 0, false
	return h, dirty
}
