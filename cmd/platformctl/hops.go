package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"platformctl/pkg/fault"
	"platformctl/pkg/inspect"
	"platformctl/pkg/terminal"
)

// Between two looks at an order: short while something happens, for its hops are milliseconds apart, and longer while nothing does.
const (
	shortLook, longLook = 10 * time.Millisecond, 200 * time.Millisecond
	// sentLate is how long after an order's end its last event may still wait for its confirm, which is a hop too.
	sentLate = time.Second
)

// hops follows an order, which it places where it has no id yet, and prints each hop as it happens. The way to the tables is open
// before the order is placed, so that nothing of it has to be told afterwards.
func (f orderFlags) hops(ctx context.Context, e *env, p thePlatform, s *shop, id int64, request wish, asJSON bool) error {
	bounded, cancel := context.WithTimeout(ctx, max(f.wait, time.Second))
	defer cancel()
	r := &reader{open: func(ctx context.Context) (theTables, error) { return e.tables(ctx, p) }, say: e.ui().Say}
	defer r.close()
	if err := r.ready(bounded); err != nil {
		return err
	}
	if id == 0 {
		var err error
		if id, err = s.place(bounded, rand.Text(), request); err != nil {
			return err
		}
	}
	tell := func(step inspect.Step, since time.Time) error { return terminal.Text(e.Out, step.Line(since)) }
	if asJSON {
		tell = func(inspect.Step, time.Time) error { return nil } // the whole comes in the end
	} else {
		e.ui().Say(fmt.Sprintf("following order %d", id))
	}
	life, err := followed(bounded, r, id, tell)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	late := errors.Is(err, context.DeadlineExceeded)
	switch {
	case errors.Is(err, errNoOrder):
		return e.noOrder(id)
	case life.Order == 0 || err != nil && !late:
		return fault.New(fault.CodeOf(err), e.line("status")+"\n"+e.line(fmt.Sprintf("order %d", id)), "order %d: %w", id, err)
	}
	traces, err := e.tell(ctx, p, []inspect.Life{life})
	if err != nil {
		return err
	}
	t := traces[0]
	switch {
	case asJSON:
		err = printJSON(e.Out, t)
	case t.Waits != "":
		err = terminal.Text(e.Out, stateOf(t)+"\n"+folded("it waits "+t.Waits, columns))
	default:
		err = terminal.Text(e.Out, stateOf(t))
	}
	if err == nil && late {
		err = f.outOfTime(e, id, t.Status)
	}
	return err
}

var errNoOrder = errors.New("there is no such order")

// followed tells each step of an order's life once, as soon as it is known, and returns the life as it was read last: when the order
// has ended, and its events with it, or with ctx's error.
func followed(ctx context.Context, db inspect.Database, id int64, tell func(step inspect.Step, since time.Time) error) (last inspect.Life, err error) {
	told := map[string]bool{}
	for wait := shortLook; ; wait = min(2*wait, longLook) {
		life, ok, err := inspect.LifeOf(ctx, db, id)
		switch {
		case err != nil:
			return last, err
		case !ok:
			return last, errNoOrder
		}
		last = life
		steps := inspect.Tell(life, nil, nil).Steps
		for _, step := range steps {
			name := fmt.Sprint(step.At.UnixNano(), step.What)
			if told[name] {
				continue
			}
			told[name], wait = true, shortLook
			if err := tell(step, steps[0].At); err != nil {
				return last, err
			}
		}
		if life.Ended != nil && (len(life.Outbox) == 0 || life.At.Sub(*life.Ended) > sentLate) {
			return last, nil
		}
		if pause(ctx, wait) != nil {
			return last, ctx.Err()
		}
	}
}

// reader reads the tables for as long as it takes, over one connection after another.
type reader struct {
	open func(context.Context) (theTables, error)
	say  func(string)
	db   theTables // nil while there is none
}

// ready opens the first connection; that there is none is an error.
func (r *reader) ready(ctx context.Context) (err error) {
	r.db, err = r.open(ctx)
	return err
}

// JSON implements inspect.Database. While the database is away it waits until ctx ends.
func (r *reader) JSON(ctx context.Context, statement string) ([]byte, error) {
	for said := false; ; {
		var err error
		if r.db == nil {
			r.db, err = r.open(ctx)
		}
		if err == nil {
			var document []byte
			if document, err = r.db.JSON(ctx, statement); err == nil {
				return document, nil
			}
			r.close()
		}
		if ctx.Err() == nil && !said {
			said = true
			r.say("the database does not answer, asking again: " + err.Error())
		}
		if pause(ctx, longPause) != nil {
			return nil, ctx.Err()
		}
	}
}

func (r *reader) close() {
	if r.db != nil {
		_ = r.db.Close() // it only read
	}
	r.db = nil
}
