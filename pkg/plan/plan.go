// Package plan runs steps that wait for one another: it observes, acts, and observes again.
//
// A step that finds its state already there does nothing, so a second run is cheap, and a run that was killed anywhere is
// resumed by running again: there is no recovery code, only honest Checks.
package plan

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Step brings one thing about. It is a description: what happens to it in a run lives in Run, so the same steps can be run
// again. Steps are declared in order, and After holds pointers to earlier ones, so they cannot form a cycle.
type Step struct {
	Name  string  // stable, for people and for machines: "release/postgresql"
	After []*Step // what must be done before this step is looked at

	// Check is one cheap look: "" when the state holds, else the cause why it does not, in words for the user. It may keep
	// what it read for the steps after this one.
	Check func(context.Context) (why string, err error)
	// Do brings the state about. It goes on with what an earlier run left half done, and has stopped when it returns.
	Do func(context.Context, func(Note)) error
	// Timeout bounds Do; 0 is no bound. Past it the run's error is a context.DeadlineExceeded.
	Timeout time.Duration
}

// Note is what a step at work says of itself: progress, or what it waits for.
type Note struct {
	Text    string `json:"text,omitempty"`    // "compiling the node", "waiting for"
	Object  string `json:"object,omitempty"`  // what is waited for: "pod apps/order-api-…"
	Reason  string `json:"reason,omitempty"`  // one word of the API server's: "ImagePullBackOff"
	Message string `json:"message,omitempty"` // its sentence
	Current int64  `json:"current,omitempty"` // how much of Total is done, in bytes or in pieces
	Total   int64  `json:"total,omitempty"`
}

// Kind is what happened to a step.
type Kind string

// A step is announced by Planned before anything runs. Then it is Checking, and Already or Doing; while it is Doing it may
// be Noted any number of times, and it ends Done or Failed. When another step failed, or the user interrupted the run, a step
// that was at work is Stopped, and one that had not begun is Skipped.
const (
	Planned  Kind = "planned"
	Checking Kind = "checking"
	Already  Kind = "already"
	Doing    Kind = "doing"
	Noted    Kind = "noted"
	Done     Kind = "done"
	Failed   Kind = "failed"
	Stopped  Kind = "stopped"
	Skipped  Kind = "skipped"
)

// Event is one thing that happened to one step.
type Event struct {
	Time  time.Time
	Step  string
	Kind  Kind
	After []string      // Planned: the names of the steps that it waits for
	Cause string        // Doing, Done: why there was something to do
	Note  Note          // Noted
	Took  time.Duration // Already, Done, Failed, Stopped: since Checking
	Err   error         // Failed, Stopped
}

// StepError is the failure of one step.
type StepError struct {
	Step string
	Err  error
}

func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }

// Unwrap returns what the step said.
func (e *StepError) Unwrap() error { return e.Err }

// Run brings about the goals and all that they wait for, side by side where nothing orders them. It calls on for every
// event, one at a time. The first failure cancels the rest; Run returns it, as a *StepError, when all steps have stopped.
// When ctx ends first, Run's error is ctx's.
func Run(ctx context.Context, on func(Event), goals ...*Step) error {
	steps, err := order(goals)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	r := &run{on: on, done: make(map[*Step]chan struct{}, len(steps))}
	for _, s := range steps {
		r.done[s] = make(chan struct{})
		r.emit(Event{Step: s.Name, Kind: Planned, After: names(s.After)})
	}
	var all sync.WaitGroup
	for _, s := range steps {
		all.Go(func() {
			if err := r.step(ctx, s); err != nil {
				// The cause is stored before this step's done channel could ever be closed: it stays open for good.
				cancel(&StepError{Step: s.Name, Err: err})
				return
			}
			close(r.done[s])
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

type run struct {
	mu   sync.Mutex
	on   func(Event)
	done map[*Step]chan struct{} // closed when the step's state holds
}

func (r *run) emit(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Time = time.Now()
	r.on(e)
}

// errSkipped ends a step that was never looked at; the failure that caused it is known already.
var errSkipped = errors.New("skipped")

func (r *run) step(ctx context.Context, s *Step) error {
	for _, before := range s.After {
		select {
		case <-r.done[before]:
		case <-ctx.Done():
			r.emit(Event{Step: s.Name, Kind: Skipped})
			return errSkipped
		}
	}
	if ctx.Err() != nil {
		r.emit(Event{Step: s.Name, Kind: Skipped})
		return errSkipped
	}
	began := time.Now()
	r.emit(Event{Step: s.Name, Kind: Checking})
	already, cause, err := r.bringAbout(ctx, s)
	took := time.Since(began)
	switch {
	case err != nil && ctx.Err() != nil:
		r.emit(Event{Step: s.Name, Kind: Stopped, Cause: cause, Took: took, Err: err})
	case err != nil:
		r.emit(Event{Step: s.Name, Kind: Failed, Cause: cause, Took: took, Err: err})
	case already:
		r.emit(Event{Step: s.Name, Kind: Already, Took: took})
	default:
		r.emit(Event{Step: s.Name, Kind: Done, Cause: cause, Took: took})
	}
	return err
}

func (r *run) bringAbout(ctx context.Context, s *Step) (already bool, cause string, err error) {
	// A step's mistake must not end the program here: the others are to stop in good order, and the terminal is to be restored.
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	cause, err = s.Check(ctx)
	if err != nil || cause == "" {
		return err == nil, "", err
	}
	r.emit(Event{Step: s.Name, Kind: Doing, Cause: cause})
	if err := r.do(ctx, s); err != nil {
		return false, cause, err
	}
	still, err := s.Check(ctx)
	if err == nil && still != "" {
		err = fmt.Errorf("done, and still not as it should be: %s", still)
	}
	return false, cause, err
}

func (r *run) do(ctx context.Context, s *Step) error {
	bounded := ctx
	if s.Timeout > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, s.Timeout)
		defer cancel()
	}
	err := s.Do(bounded, func(n Note) { r.emit(Event{Step: s.Name, Kind: Noted, Note: n}) })
	if err != nil && bounded.Err() != nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w (%w after %s)", err, context.DeadlineExceeded, s.Timeout)
	}
	return err
}

// order lists the goals and all that they wait for, each after what it waits for.
func order(goals []*Step) ([]*Step, error) {
	var steps []*Step
	seen, named := map[*Step]bool{}, map[string]bool{}
	var visit func(*Step) error
	visit = func(s *Step) error {
		if seen[s] {
			return nil
		}
		seen[s] = true
		if named[s.Name] {
			return fmt.Errorf("two steps are called %q", s.Name)
		}
		named[s.Name] = true
		for _, before := range s.After {
			if err := visit(before); err != nil {
				return err
			}
		}
		steps = append(steps, s)
		return nil
	}
	for _, s := range goals {
		if err := visit(s); err != nil {
			return nil, err
		}
	}
	return steps, nil
}

func names(steps []*Step) []string {
	list := make([]string, len(steps))
	for i, s := range steps {
		list[i] = s.Name
	}
	return list
}
