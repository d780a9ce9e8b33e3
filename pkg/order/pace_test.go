package order_test

import (
	"net/http"
	"testing"
	"time"

	"platformctl/pkg/order"
	"platformctl/pkg/postgres/postgrestest"
)

// pipeline is a platform that settles orders in the order in which they came, so many a second.
type pipeline struct {
	pace     order.Pace
	accepted []time.Time // those that wait
	settled  int
	most     int // that ever waited
}

// second offers orders for a second, evenly, and settles some each few milliseconds. It returns how many were let in.
func (p *pipeline) second(at time.Time, offered, settled int) (admitted int) {
	const ticks = 100
	for i := range ticks {
		now := at.Add(time.Duration(i) * time.Second / ticks)
		for range offered*(i+1)/ticks - offered*i/ticks {
			if p.pace.Admit(now) {
				admitted++
				p.accepted = append(p.accepted, now)
				p.pace.Accepted(1, now)
			}
		}
		if n := min(settled*(i+1)/ticks-settled*i/ticks, len(p.accepted)); n > 0 {
			p.pace.Settled(n, now.Sub(p.accepted[n-1]), now)
			p.accepted = p.accepted[n:]
			p.settled += n
		}
		p.most = max(p.most, len(p.accepted))
	}
	return admitted
}

func TestPaceFollowsWhatIsSettled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before           int // that wait in the beginning
		offered, settled int // a second
		least, most      int // let in within the last of ten seconds
		waiting          int // at most, ever
	}{
		"all is well":                          {0, 5000, 5500, 5000, 5000, 100},
		"twice as many are offered":            {0, 5000, 2500, 2375, 2625, 2500},
		"ten times as many":                    {0, 20_000, 2000, 1900, 2100, 2500},
		"a backlog shrinks":                    {30_000, 5000, 2000, 950, 1050, 31_000},
		"a hundred a second are always let in": {5000, 5000, 50, 97, 101, 7000},
		"less is offered than is settled":      {3000, 500, 1000, 500, 500, 3500},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Unix(1_000_000, 0)
			p := &pipeline{}
			p.pace.Accepted(c.before, start)
			for range c.before {
				p.accepted = append(p.accepted, start)
			}
			admitted := 0
			for i := range 10 {
				admitted = p.second(start.Add(time.Duration(i)*time.Second), c.offered, c.settled)
			}
			if admitted < c.least || admitted > c.most {
				t.Errorf("%d were let in, not %d to %d", admitted, c.least, c.most)
			}
			if p.most > c.waiting {
				t.Errorf("%d waited, more than %d", p.most, c.waiting)
			}
			if settled := min(c.settled, c.offered) * 9; p.settled < settled {
				t.Errorf("%d were settled, fewer than %d: who settles had nothing to do", p.settled, settled)
			}
		})
	}
}

// While nothing is settled, as without a broker, nothing is refused, and what has gathered is worked off.
func TestPaceRefusesNothingWhileNothingIsSettled(t *testing.T) {
	t.Parallel()
	const offered, settled = 3000, 4000
	start, p := time.Unix(1_000_000, 0), &pipeline{}
	for i := range 40 {
		at, capacity := start.Add(time.Duration(i)*time.Second), settled
		if away := i >= 5 && i < 15; away {
			capacity = 0
		}
		admitted := p.second(at, offered, capacity)
		if again := i >= 15 && i < 38; admitted != offered && !again {
			t.Errorf("second %d: %d of %d were let in", i, admitted, offered)
		}
	}
}

func TestPaceTellsABacklogFromAStragglerAndFromSilence(t *testing.T) {
	t.Parallel()
	all := func(p *order.Pace, at time.Time) bool {
		for range 1000 {
			if !p.Admit(at) {
				return false
			}
		}
		return true
	}
	at := time.Unix(1_000_000, 0)
	p := &order.Pace{}
	if !all(p, at) {
		t.Error("orders are refused before anything is known")
	}
	for range 3 {
		p.Accepted(100, at)
		p.Settled(100, 0, at)
		p.Settled(1, time.Hour, at.Add(100*time.Millisecond)) // an order that a crash left behind
		at = at.Add(time.Second)
	}
	if !all(p, at) {
		t.Error("one old order is taken for a backlog")
	}
	at = at.Add(time.Minute)
	p.Settled(1, time.Hour, at)
	if !all(p, at) || !all(p, at.Add(time.Second)) {
		t.Error("one old order after a quiet minute is taken for a backlog")
	}
	p.Accepted(5000, at)
	at = at.Add(time.Minute)
	p.Settled(100, time.Minute+time.Second, at)
	if all(p, at) {
		t.Error("a backlog is not seen")
	}
	if all(p, at.Add(5*time.Second)) {
		t.Error("a backlog is forgotten too soon")
	}
	if !all(p, at.Add(20*time.Second)) {
		t.Error("what was measured long ago still counts")
	}
	p.Settled(1, time.Millisecond, at)
	if !all(p, at) {
		t.Error("the end of a backlog is not seen at once")
	}
}

const behind = `503 {"error":"unavailable","message":"too many orders wait to be settled, try again"}`

func TestOrdersAreShedWhileTheirEndsFallBehind(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.pace.Accepted(100_000, time.Now())
	s.pace.Settled(10, time.Minute, time.Now())
	codes := map[int]int{}
	for codes[http.StatusServiceUnavailable] == 0 && codes[http.StatusAccepted] < 5000 {
		a := s.post(t, like)
		if codes[a.code]++; a.code == http.StatusServiceUnavailable && (a.String() != behind || a.header.Get("Retry-After") != "1") {
			t.Errorf("%s %v", a, a.header)
		}
	}
	if codes[http.StatusServiceUnavailable] != 1 || codes[http.StatusAccepted] == 0 {
		t.Errorf("%v", codes)
	}
	until(t, "the next to be let in", func() bool { return s.post(t, like).code == http.StatusAccepted })
}

// Without a broker nothing is settled and nothing refused, until too many events wait, here or at the broker.
func TestTooManyEventsWait(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	const wait = `INSERT INTO outbox (message_id, correlation_id, routing_key, payload, lease_until) SELECT i::text, i::text, 'x', '', now() + interval '1 hour' FROM generate_series(1, $1::int) i`
	if _, err := s.db.Pool.Exec(t.Context(), wait, 150_000); err != nil {
		t.Fatal(err)
	}
	if n, err := s.store.Unsent(t.Context(), 100_000); n != 100_000 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	s.pace.Queued(49_000)
	s.post(t, like).accepted(t)
	s.pace.Queued(50_000)
	until(t, "orders to be refused", func() bool { return s.post(t, like).String() == behind })
	s.pace.Queued(0)
	s.post(t, like).accepted(t)
	if _, err := s.db.Pool.Exec(t.Context(), wait, 60_000); err != nil {
		t.Fatal(err)
	}
	until(t, "orders to be refused", func() bool { return s.post(t, like).String() == behind })
	if _, err := s.db.Pool.Exec(t.Context(), `DELETE FROM outbox WHERE routing_key = 'x'`); err != nil {
		t.Fatal(err)
	}
	until(t, "orders to be taken again", func() bool { return s.post(t, like).code == http.StatusAccepted })
	counted(t, s.db)
}
