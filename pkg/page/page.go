// Package page is the page at / of order-api: shows, orders, events, queues and figures, as they are and as they move.
//
// The server renders the page as it is (http.go), so that it says everything without JavaScript too. A module then opens one
// stream of server-sent events, whose first frame is the whole state and whose others say what has changed (live.go). State is
// read, never reckoned: what this process does only says that it is time to read again, and so what other replicas did is right
// as well. While nobody looks nothing is read but the counters behind the figures (history.go).
package page

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	listed      = 24 // orders
	beat        = 100 * time.Millisecond
	each        = beat * 3 / 4    // between looks at each beat: a look that begins late leaves the next one in its place
	slowest     = 5 * time.Second // between looks, however long one takes
	quiet       = time.Second     // between looks at the database while nothing happens here: other replicas may do something
	readTimeout = time.Second
	freshEnough = 250 * time.Millisecond // a state of this age is shown to the next who comes
)

// Page is the page; New makes one.
type Page struct {
	source Source
	log    *slog.Logger
	live   live

	reading sync.Mutex // held by who reads the database for the page
	parts   []*section

	state   sync.Mutex
	now     State
	history history

	entry sync.Mutex // held by who has the state read because it comes anew
	read  time.Time  // when that was last
}

// New makes the page of a pod.
func New(pod string, source Source, log *slog.Logger) *Page {
	p := &Page{source: source, log: log, now: State{Pod: pod, Shows: []Show{}, Orders: []Order{}, Broker: Broker{Queues: []Queue{}}, History: []Point{}}}
	p.parts = p.sections()
	return p
}

// Happened tells of n events, after they have taken effect, and gives one when asked, from 0. It does not block, and asks for a
// few at most; while nobody looks, for none.
func (p *Page) Happened(n int, event func(i int) Event) { p.live.note(n, event) }

// Close ends all streams, now and ever after.
func (p *Page) Close() { p.live.close() }

// Run keeps the figures, and the state while somebody looks, until ctx ends.
func (p *Page) Run(ctx context.Context) error {
	var both sync.WaitGroup
	both.Go(func() { p.figures(ctx) })
	both.Go(func() { p.tables(ctx) })
	both.Wait()
	return nil
}

// figures adds a point to the history each step and, while somebody looks, sends the broker's state each beat.
func (p *Page) figures(ctx context.Context) {
	steps, beats := time.NewTicker(step), time.NewTicker(beat)
	defer steps.Stop()
	defer beats.Stop()
	p.step(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-steps.C:
			p.step(ctx)
		case <-beats.C:
			if p.live.watched.Load() {
				p.send(ctx, map[string]any{"broker": p.broker()}, nil)
			}
		}
	}
}

func (p *Page) step(ctx context.Context) {
	f, err := p.source.Figures()
	if err != nil {
		p.log.ErrorContext(ctx, "the figures of the page could not be read", "error", err.Error())
		return
	}
	p.state.Lock()
	point, is := p.history.add(f, time.Now())
	p.state.Unlock()
	if is {
		p.send(ctx, nil, map[string]any{"point": point})
	}
}

// broker takes over what is known of the broker.
func (p *Page) broker() Broker {
	b := p.source.Broker()
	p.state.Lock()
	defer p.state.Unlock()
	p.now.Broker = b
	return b
}

// tables sends the events, and what the database has when something happened here, and now and then, while somebody looks.
func (p *Page) tables(ctx context.Context) {
	beats := time.NewTicker(beat)
	defer beats.Stop()
	for looked := (time.Time{}); ; {
		select {
		case <-ctx.Done():
			return
		case <-beats.C:
		}
		if !p.live.watched.Load() {
			continue
		}
		seen, dirty := p.live.take()
		if len(seen.Shown) > 0 || seen.Missed > 0 {
			p.send(ctx, nil, map[string]any{"events": seen})
		}
		now := time.Now()
		if dirty || now.Sub(looked) >= quiet {
			looked = now
			p.want()
		}
		p.look(ctx)
	}
}

// section is a part of the state that the database has. What reading takes bounds how often it is done: with a million orders
// the split of the seats into held and sold is dear.
type section struct {
	name  string
	least time.Duration // between looks
	share int           // one part in so many of the time may go into reading
	load  func(context.Context) (value any, into func(*State), err error)

	wanted bool
	due    time.Time
}

// The shows are read in two ways: their free seats, which are few rows and read often, and all that is known of them.
func (p *Page) sections() []*section {
	return []*section{
		{name: "shows", least: each, share: 5, load: func(ctx context.Context) (any, func(*State), error) {
			free, err := p.source.Free(ctx)
			if err != nil {
				return nil, nil, err
			}
			shows := p.withFree(free)
			return shows, func(s *State) { s.Shows = shows }, nil
		}},
		{name: "orders", least: each, share: 5, load: func(ctx context.Context) (any, func(*State), error) {
			orders, err := p.source.Orders(ctx, listed)
			return orders, func(s *State) { s.Orders = orders }, err
		}},
		{name: "shows", least: each, share: 50, load: func(ctx context.Context) (any, func(*State), error) {
			shows, err := p.source.Shows(ctx)
			return shows, func(s *State) { s.Shows = shows }, err
		}},
		{name: "outbox", least: 5 * beat, share: 20, load: func(ctx context.Context) (any, func(*State), error) {
			outbox, err := p.source.Outbox(ctx)
			return outbox, func(s *State) { s.Outbox = outbox }, err
		}},
	}
}

// withFree is the shows as they were read last, with the seats that are free now. How those that are not divide into held and sold is
// dear to know: what changed meanwhile counts as held, as it was at first, until that is read again. A show that is new waits for it.
func (p *Page) withFree(free []Show) []Show {
	p.state.Lock()
	shows := slices.Clone(p.now.Shows)
	p.state.Unlock()
	for i := range shows {
		s := &shows[i]
		at := slices.IndexFunc(free, func(f Show) bool { return f.ID == s.ID })
		if at < 0 {
			continue
		}
		s.Capacity, s.Free = free[at].Capacity, free[at].Free
		s.Sold = min(s.Sold, s.Capacity-s.Free)
		s.Held = s.Capacity - s.Free - s.Sold
	}
	return shows
}

// want has everything read as soon as its turn comes.
func (p *Page) want() {
	p.reading.Lock()
	defer p.reading.Unlock()
	for _, s := range p.parts {
		s.wanted = true
	}
}

// look reads what is wanted and whose turn it is, and sends each as it comes. Where the database fails the rest is left wanted.
func (p *Page) look(ctx context.Context) {
	p.reading.Lock()
	defer p.reading.Unlock()
	for _, s := range p.parts {
		began := time.Now()
		if !s.wanted || began.Before(s.due) {
			continue
		}
		reading, cancel := context.WithTimeout(ctx, readTimeout)
		value, into, err := s.load(reading)
		cancel()
		if ctx.Err() != nil {
			return // who asked has gone, or the service stops
		}
		took := time.Since(began)
		s.due = began.Add(min(max(s.least, time.Duration(s.share)*took), slowest))
		sent := map[string]any{}
		trouble := ""
		if err != nil {
			trouble = "The database does not answer."
			s.due = began.Add(quiet)
		}
		p.state.Lock()
		if trouble != p.now.Database {
			sent["database"] = trouble
			if err != nil {
				p.log.WarnContext(ctx, "the page waits for the database", "error", err.Error())
			}
			p.now.Database = trouble
		}
		if err == nil {
			s.wanted = false
			into(&p.now)
			sent[s.name] = value
		}
		p.state.Unlock()
		p.send(ctx, sent, nil)
		if err != nil {
			return
		}
	}
}

// current is the state, read anew unless it is fresh. Where the database is away it is the state of before, and says so.
func (p *Page) current(ctx context.Context) State {
	p.refresh(ctx)
	return p.known()
}

// refresh reads the state for one who comes anew, unless it was read for another just now.
func (p *Page) refresh(ctx context.Context) {
	p.entry.Lock()
	defer p.entry.Unlock()
	if time.Since(p.read) > freshEnough {
		p.want()
		p.look(ctx)
		p.read = time.Now()
	}
	p.send(ctx, map[string]any{"broker": p.broker()}, nil)
}

// known is the state as it was read last.
func (p *Page) known() State {
	p.state.Lock()
	defer p.state.Unlock()
	s := p.now
	s.History = append([]Point{}, p.history.points...)
	return s
}

// send sends sections of the state, which are kept, and what is told once. That a value of ours cannot be written is a mistake of
// ours, and a line in the log.
func (p *Page) send(ctx context.Context, sections, once map[string]any) {
	if err := p.live.send(sections, once); err != nil {
		p.log.ErrorContext(ctx, "the page's state could not be sent", "error", err.Error())
	}
}
