package kube

import (
	"bufio"
	"container/heap"
	"errors"
	"io"
	"strings"
	"time"
)

// line is one line of a log.
type line struct {
	at   time.Time
	key  logKey // whose it is
	text string // without its timestamp, and without the line's end
}

// parseLine takes apart what the API server sends with timestamps on. A line without one gets the time of the line before;
// it is no line of the log where there was none, but what the node says instead of it.
func parseLine(raw string, key logKey, before time.Time) (l line, ok bool) {
	stamp, text, _ := strings.Cut(raw, " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		return line{at: before, key: key, text: raw}, !before.IsZero()
	}
	return line{at: at, key: key, text: text}, true
}

// write prints a line with the label of its source, "" for none.
func (l line) write(out io.Writer, label string, timestamps bool) error {
	var b strings.Builder
	if label != "" {
		b.WriteString(label + "| ")
	}
	if timestamps {
		b.WriteString(l.at.UTC().Format("2006-01-02T15:04:05.000000Z") + " ")
	}
	b.WriteString(l.text + "\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// stream is a log that is being read, with its next line at hand.
type stream struct {
	key     logKey
	body    io.ReadCloser
	read    *bufio.Reader
	next    line
	held    bool     // next was fetched and not taken yet
	remarks []string // what the node said in place of a log: that it has removed it
}

func newStream(body io.ReadCloser, key logKey) *stream {
	return &stream{key: key, body: body, read: bufio.NewReader(body)}
}

// fetch has the next line at hand; io.EOF is the end.
func (s *stream) fetch() error {
	for !s.held {
		raw, err := s.read.ReadString('\n')
		if raw == "" && err != nil {
			return err
		}
		raw = strings.TrimRight(raw, "\r\n")
		if l, ok := parseLine(raw, s.key, s.next.at); ok {
			s.next, s.held = l, true
		} else {
			s.remarks = append(s.remarks, raw)
		}
	}
	return nil
}

// byTime is a heap of streams, the one with the oldest next line on top.
type byTime []*stream

func (h byTime) Len() int           { return len(h) }
func (h byTime) Less(i, j int) bool { return h[i].next.at.Before(h[j].next.at) }
func (h byTime) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *byTime) Push(x any) { *h = append(*h, x.(*stream)) }

// Pop implements heap.Interface.
func (h *byTime) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// mergeByTime hands the lines of all streams to put, in the order of their times, without reading more of a stream than it
// must. The streams are not closed.
func mergeByTime(streams []*stream, put func(line) error) error {
	var h byTime
	for _, s := range streams {
		if err := s.fetch(); errors.Is(err, io.EOF) {
			continue
		} else if err != nil {
			return err
		}
		h = append(h, s)
	}
	heap.Init(&h)
	for h.Len() > 0 {
		s := h[0]
		if err := put(s.next); err != nil {
			return err
		}
		s.held = false
		switch err := s.fetch(); {
		case errors.Is(err, io.EOF):
			heap.Pop(&h)
		case err != nil:
			return err
		default:
			heap.Fix(&h, 0)
		}
	}
	return nil
}
