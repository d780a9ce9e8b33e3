package terminal

import (
	"io"
	"sync"
	"time"

	"platformctl/pkg/fault"
	"platformctl/pkg/plan"
)

// Renderer shows the events of one plan after the other, lines between them, and the error at the end. Its methods may be
// called by several goroutines. A program has one, and closes it.
type Renderer struct {
	mu     sync.Mutex
	form   form
	every  time.Duration
	closed bool
	stop   chan struct{} // closed by Close; nil until the first event
	done   chan struct{} // closed when the ticking goroutine has ended
}

// form is one way to show things. Its calls come one at a time. What it writes to a closed pipe is lost: progress is no
// reason to fail a run.
type form interface {
	event(plan.Event)
	say(text string)
	fail(error)
	tick(now time.Time) // called at the form's own pace, from the first event on
	close(now time.Time)
}

// New makes a Renderer that writes to out, which the surroundings describe.
func New(out io.Writer, mode Mode, s Surroundings) *Renderer {
	r := &Renderer{}
	switch s.Resolve(mode) {
	case TTY:
		r.form, r.every = newLive(out, s), 100*time.Millisecond
	case JSON:
		r.form = &jsonLines{out: out}
	case Quiet:
		r.form = &quiet{out: out, look: newLook(s)}
	default:
		r.form, r.every = newPlain(out, s), time.Second
	}
	return r
}

// Event shows one event of a plan; it is what plan.Run is given.
func (r *Renderer) Event(e plan.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if r.stop == nil && r.every > 0 {
		r.stop, r.done = make(chan struct{}), make(chan struct{})
		go r.run(r.stop, r.done)
	}
	r.form.event(e)
}

// Say shows a line that belongs to no step.
func (r *Renderer) Say(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.form.say(text)
}

// Error shows the error that ends the program. It is the one place where an error is printed: its message, what the failed
// program said, and the cure.
func (r *Renderer) Error(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.form.fail(err)
}

// Pause draws what is there, stops redrawing and gives the screen to what comes next: a question, a shell. Events after it
// begin anew. It returns when nothing more is written.
func (r *Renderer) Pause() {
	r.mu.Lock()
	stop, done := r.stop, r.done
	r.stop = nil
	r.mu.Unlock()
	if stop != nil {
		close(stop)
		<-done
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.form.close(time.Now())
}

// Close is Pause for good: the cursor is back and later events are dropped. A second call does nothing. Say and Error still
// work.
func (r *Renderer) Close() {
	r.mu.Lock()
	closed := r.closed
	r.closed = true
	r.mu.Unlock()
	if !closed {
		r.Pause()
	}
}

func (r *Renderer) run(stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	ticker := time.NewTicker(r.every)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case now := <-ticker.C:
			r.mu.Lock()
			r.form.tick(now)
			r.mu.Unlock()
		}
	}
}

// quiet shows errors only.
type quiet struct {
	out  io.Writer
	look look
}

func (*quiet) event(plan.Event)   {}
func (*quiet) say(string)         {}
func (*quiet) tick(time.Time)     {}
func (*quiet) close(time.Time)    {}
func (q *quiet) fail(err error)   { write(q.out, errorText(err, q.look)) }
func write(w io.Writer, s string) { _, _ = io.WriteString(w, s) } // a form has nobody to tell

// cure is the cure of an error, cleaned.
func cure(err error) string { return cleanText(fault.CureOf(err)) }
