package proof

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// History is what clients remember of a platform: what they asked for and what they were told, what was published past
// everybody, and when the broker was away. docs/history.md describes the file.
type History struct {
	Runs      []string // each key begins with one of these and a "-"
	Asked     []*Asked // in the order of their beginnings
	Published []Published
	Outages   []Outage // of the broker
}

// Asked is an order that somebody wants, and how all tries ended, in their order. Its key is its user, too, so that the orders'
// own rows tell whose they are.
type Asked struct {
	Key            string
	Show, Quantity int64
	Began          time.Time
	Answers        []Answer
}

// Answer is how one try ended.
type Answer struct {
	At        time.Time
	Status    int    // 0 is none: whether the order was taken is not known
	Order     int64  // of a 202
	Available int64  // of a 409; -1 where it does not say
	Said      string // in words, for people
}

// Final tells whether nobody needs to ask again.
func (a Answer) Final() bool { return a.Status != 0 && a.Status < 500 }

// Accepted is the first 202; its order is 0 where there is none.
func (a *Asked) Accepted() Answer {
	for _, got := range a.Answers {
		if got.Status == 202 {
			return got
		}
	}
	return Answer{}
}

// Published is a message that was brought to a queue by somebody who is no service.
type Published struct {
	At      time.Time
	Message string // its id
	As      string // AsPoison or AsAgain
}

// What a message was published as.
const (
	AsPoison = "poison" // it can never be handled, and belongs into the dead letters
	AsAgain  = "again"  // it had been published before, and must have no effect
)

// Outage is a time in which the broker was away. One that has not ended has a zero Up.
type Outage struct{ Down, Up time.Time }

// What a line of the file tells.
const (
	didBegin   = "began"
	didAsk     = "asked"
	didAnswer  = "answered"
	didPublish = "published"
	didLose    = "broker down"
	didRegain  = "broker up"
)

type line struct {
	At        time.Time `json:"at"`
	Did       string    `json:"did"`
	Run       string    `json:"run,omitempty"`
	Key       string    `json:"key,omitempty"`
	Show      int64     `json:"show,omitempty"`
	Quantity  int64     `json:"quantity,omitempty"`
	Status    int       `json:"status,omitempty"`
	Order     int64     `json:"order,omitempty"`
	Available *int64    `json:"available,omitempty"`
	Said      string    `json:"said,omitempty"`
	Message   string    `json:"message,omitempty"`
	As        string    `json:"as,omitempty"`
}

// Recorder writes a history as it happens: a line is with the system before what it tells of can have had an effect, so that
// a client that is killed has written down all that it asked for. It may be used by several goroutines at once.
type Recorder struct {
	Run string

	mu   sync.Mutex
	out  io.Writer
	keys int64
	took int64 // 202s
	err  error
}

// Resume makes ready for a Recorder what earlier ones wrote: what a killed one left of a last line is cut off. A file that is no history
// stays as it is, and is an error.
func Resume(file *os.File) error {
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return err
	}
	end := make([]byte, min(size, longestLine))
	if _, err := file.ReadAt(end, size-int64(len(end))); err != nil {
		return err
	}
	left := end[bytes.LastIndexByte(end, '\n')+1:]
	whole := size - int64(len(left))
	if whole > 0 {
		if _, err := ReadHistory(io.NewSectionReader(file, 0, whole)); err != nil {
			return err
		}
	}
	if len(left) == 0 {
		return nil
	}
	if n := min(len(left), len(lineBegins)); string(left[:n]) != lineBegins[:n] {
		return errors.New("its last line is none of a client history, and has no end")
	}
	return file.Truncate(whole)
}

// lineBegins is how each line that a Recorder writes begins.
const lineBegins = `{"at":"`

// Record begins a history of a run of its own in out, which may hold those of earlier runs.
func Record(out io.Writer) *Recorder {
	r := &Recorder{Run: strings.ToLower(rand.Text()[:10]), out: out}
	r.write(line{Did: didBegin, Run: r.Run})
	return r
}

// Ask writes that an order is about to be asked for, and returns its key.
func (r *Recorder) Ask(show, quantity int64) (key string) {
	r.mu.Lock()
	r.keys++
	key = r.Run + "-" + strconv.FormatInt(r.keys, 10)
	r.mu.Unlock()
	r.write(line{Did: didAsk, Key: key, Show: show, Quantity: quantity})
	return key
}

// Answer writes how a try ended.
func (r *Recorder) Answer(key string, a Answer) {
	if a.Status == 202 {
		r.mu.Lock()
		r.took++
		r.mu.Unlock()
	}
	l := line{Did: didAnswer, Key: key, Status: a.Status, Order: a.Order, Said: a.Said}
	if a.Status == 409 && a.Available >= 0 {
		l.Available = &a.Available
	}
	r.write(l)
}

// Published writes that a message is about to be published.
func (r *Recorder) Published(message, as string) {
	r.write(line{Did: didPublish, Message: message, As: as})
}

// Broker writes that the broker is away from now on, or there again.
func (r *Recorder) Broker(up bool) {
	r.write(line{Did: map[bool]string{false: didLose, true: didRegain}[up]})
}

// Accepted counts the answers so far that were 202.
func (r *Recorder) Accepted() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.took
}

// Err is the first error of writing; nothing was written after it.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *Recorder) write(l line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return
	}
	l.At = time.Now().UTC()
	raw, err := json.Marshal(l)
	if err == nil {
		_, err = r.out.Write(append(raw, '\n'))
	}
	if err != nil {
		r.err = fmt.Errorf("write the client history: %w", err)
	}
}

// longestLine is that of a file that may be a history.
const longestLine = 1 << 20

// ReadHistory reads what Recorders wrote. What a killed one left of a last line is passed over. The error of a file that is no
// history names the line.
func ReadHistory(in io.Reader) (*History, error) {
	h := &History{}
	asked := map[string]*Asked{}
	lines := bufio.NewReaderSize(in, 64<<10)
	for n := 1; ; n++ {
		raw, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = h.take(raw, asked)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d of the client history: %w", n, err)
		}
	}
	if len(h.Runs) == 0 {
		return nil, errors.New("the client history is empty")
	}
	return h, nil
}

// readLine is the next whole line.
func readLine(in *bufio.Reader) ([]byte, error) {
	var whole []byte
	for {
		part, err := in.ReadSlice('\n')
		whole = append(whole, part...)
		switch {
		case err == nil:
			return whole, nil
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(whole) > longestLine:
			return nil, errors.New("it is longer than any of a history")
		}
	}
}

// take adds a line; asked has what was asked for, by key.
func (h *History) take(raw []byte, asked map[string]*Asked) error {
	var l line
	if err := json.Unmarshal(raw, &l); err != nil {
		return err
	}
	if l.At.IsZero() {
		return errors.New("it has no time")
	}
	switch l.Did {
	case didBegin:
		if !plainRun(l.Run) {
			return fmt.Errorf("%.40q is no name of a run", l.Run)
		}
		h.Runs = append(h.Runs, l.Run)
	case didAsk:
		if !h.knows(l.Key) || asked[l.Key] != nil || l.Show < 1 || l.Quantity < 1 {
			return fmt.Errorf("%.40q is no new key of a run, or its show or quantity is below 1", l.Key)
		}
		a := &Asked{Key: l.Key, Show: l.Show, Quantity: l.Quantity, Began: l.At}
		asked[l.Key], h.Asked = a, append(h.Asked, a)
	case didAnswer:
		a := asked[l.Key]
		if a == nil {
			return fmt.Errorf("nobody asked with the key %.40q", l.Key)
		}
		got := Answer{At: l.At, Status: l.Status, Order: l.Order, Available: -1, Said: l.Said}
		if l.Available != nil {
			got.Available = *l.Available
		}
		a.Answers = append(a.Answers, got)
	case didPublish:
		if l.Message == "" || l.As != AsPoison && l.As != AsAgain {
			return fmt.Errorf("a message %.40q published as %.40q", l.Message, l.As)
		}
		h.Published = append(h.Published, Published{At: l.At, Message: l.Message, As: l.As})
	case didLose:
		if n := len(h.Outages); n == 0 || !h.Outages[n-1].Up.IsZero() {
			h.Outages = append(h.Outages, Outage{Down: l.At})
		}
	case didRegain:
		if n := len(h.Outages); n > 0 && h.Outages[n-1].Up.IsZero() {
			h.Outages[n-1].Up = l.At
		}
	default:
		return fmt.Errorf("nothing is known of %.40q", l.Did)
	}
	return nil
}

// knows tells whether a key is one of the history's runs.
func (h *History) knows(key string) bool {
	run, _, ok := strings.Cut(key, "-")
	for _, known := range h.Runs {
		if ok && run == known {
			return true
		}
	}
	return false
}

// plainRun tells whether a run's name can stand in a statement as it is.
func plainRun(name string) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && len(name) <= 40
}
