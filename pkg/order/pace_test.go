package order_test

import (
	"net/http"
	"testing"
	"time"

	"platformctl/pkg/order"
	"platformctl/pkg/postgres/postgrestest"
)

// Orders in a platform of which everything is known: offered and settled at a rate, at an age.
func TestPaceFollowsWhatIsSettled(t *testing.T) {
	t.Parallel()
	const tick = 10 * time.Millisecond
	for name, c := range map[string]struct {
		offered, settled int // a second
		youngest         time.Duration
		least, most      int // admitted in the last of ten seconds
	}{
		"all is well":                          {5000, 5000, 20 * time.Millisecond, 5000, 5000},
		"a backlog of less than two seconds":   {5000, 1000, 1900 * time.Millisecond, 5000, 5000},
		"a backlog of two seconds":             {5000, 1000, 2001 * time.Millisecond, 950, 1001},
		"a longer one shrinks":                 {5000, 1000, 3 * time.Second, 620, 670},
		"but not by more than half":            {5000, 1000, time.Minute, 480, 501},
		"a hundred a second are always let in": {5000, 100, time.Minute, 97, 101},
		"less is offered than is settled":      {500, 1000, 3 * time.Second, 500, 500},
	} {
		t.Run(name, func(t *testing.T) {
			p := &order.Pace{}
			admitted := 0
			start := time.Unix(1_000_000, 0)
			for at := time.Duration(0); at < 10*time.Second; at += tick {
				if at == 9*time.Second {
					admitted = 0
				}
				now := start.Add(at)
				p.Settled(c.settled/100, c.youngest, now)
				for i := range c.offered / 100 {
					if p.Admit(now.Add(time.Duration(i) * tick / time.Duration(c.offered/100))) {
						admitted++
					}
				}
			}
			if admitted < c.least || admitted > c.most {
				t.Errorf("%d were admitted, not %d to %d", admitted, c.least, c.most)
			}
		})
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
		p.Settled(100, time.Millisecond, at)
		p.Settled(1, time.Hour, at.Add(100*time.Millisecond)) // an order that a crash left behind
		at = at.Add(time.Second)
	}
	if !all(p, at) {
		t.Error("one old order is taken for a backlog")
	}
	for range 3 {
		p.Settled(100, time.Minute, at)
		at = at.Add(time.Second)
	}
	if all(p, at) {
		t.Error("a backlog is not seen")
	}
	if all(p, at.Add(5*time.Second)) {
		t.Error("a backlog is forgotten too soon")
	}
	if !all(p, at.Add(20*time.Second)) {
		t.Error("what was measured long ago still counts")
	}
	p.Settled(100, time.Minute, at)
	p.Settled(1, time.Millisecond, at)
	if !all(p, at) {
		t.Error("the end of a backlog is not seen at once")
	}
}

const behind = `503 {"error":"unavailable","message":"too many orders wait to be settled, try again"}`

func TestOrdersAreShedWhileTheirEndsFallBehind(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	for second := range 2 {
		s.pace.Settled(10, time.Minute, time.Now().Add(time.Duration(second-1)*time.Second))
	}
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
