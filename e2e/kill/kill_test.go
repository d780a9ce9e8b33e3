//go:build e2e

package kill

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"platformctl/e2e/lab"
	"platformctl/pkg/command"
	"platformctl/pkg/proof"
)

const (
	firstPort = 27450 // of the lab

	rounds   = 5   // kills of each part
	clients  = 64  // that ask at the same time
	rate     = 400 // orders a second that they begin, while they are answered
	progress = 100 // orders that must be accepted after each kill

	bound     = 60 * time.Second // for a part to be back and orders to go their way again
	wholeTest = 8 * time.Minute

	largeShow = 1
)

// blow is one kill, as the seed has it.
type blow struct {
	part     string
	how      string
	n        int
	before   time.Duration // under load, before it
	down     time.Duration // how long the part is away
	again    time.Duration // if not 0, it is killed once more so long after it was started
	capacity int           // of the limited show that is sold meanwhile
}

// What a kill can hit.
const (
	whole      = "all processes"
	postmaster = "the postmaster"
	backend    = "a backend" // which PostgreSQL answers by ending all others, and recovers by itself
)

// schedule draws the kills in a random order.
func schedule(seed uint64) []blow {
	draw := rand.New(rand.NewPCG(seed, 0))
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(draw.Int64N(int64(most-least)))
	}
	var blows []blow
	add := func(part, how string, n int) {
		b := blow{part: part, how: how, n: n, before: between(200*time.Millisecond, 1500*time.Millisecond), down: between(0, time.Second), capacity: 100 + draw.IntN(900)}
		if n == rounds {
			b.again = between(time.Millisecond, time.Second)
		}
		blows = append(blows, b)
	}
	for n := 1; n <= rounds; n++ {
		add(lab.OrderAPI, whole, n)
		add(lab.PaymentService, whole, n)
		add(lab.RabbitMQ, whole, n)
		add(lab.PostgreSQL, map[bool]string{true: postmaster, false: whole}[n == 1], n)
	}
	add(lab.PostgreSQL, backend, rounds+1)
	draw.Shuffle(len(blows), func(i, j int) { blows[i], blows[j] = blows[j], blows[i] })
	return blows
}

// recovery is what came after a kill.
type recovery struct {
	blow
	second          float64 // of the load
	accepted, ended time.Duration
	until           int // orders accepted until the next kill
}

func TestKilledUnderLoad(t *testing.T) {
	seed := uint64(time.Now().UnixNano() % 1_000_000)
	if given := os.Getenv("KILL_SEED"); given != "" {
		n, err := strconv.ParseUint(given, 10, 64)
		if err != nil {
			t.Fatalf("KILL_SEED is a number: %v", err)
		}
		seed = n
	}
	t.Logf("the moments are those of KILL_SEED=%d", seed)
	ctx, cancel := context.WithTimeout(t.Context(), wholeTest)
	defer cancel()
	project, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(ctx, command.Local{}, lab.Settings{Name: "kill", Project: project, Port: firstPort})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	r := &run{t: t, ctx: ctx, lab: l, client: newClient(l.Address(lab.OrderAPI)), limited: map[int64]int64{}}
	for _, part := range []string{lab.PaymentService, lab.OrderAPI} {
		r.start(part)
	}
	blows := schedule(seed)
	r.makeShows(blows)

	r.hot.Store(r.shows[0]) // before anybody orders from it
	stop := r.load()
	for i, b := range blows {
		r.hot.Store(r.shows[i])
		r.kill(b)
	}
	stop()
	for i := range r.kills {
		r.count(i)
	}
	r.rest()
	r.sellOut()
	r.askAgain()
	r.rest()
	r.table()
	if found := r.judged(); len(found) > 0 {
		for _, f := range found {
			t.Error(f)
		}
		t.FailNow()
	}
	r.damage()
}

// run is the test's one run. What it cannot go on without ends the test.
type run struct {
	t      *testing.T
	ctx    context.Context
	lab    *lab.Lab
	client *client

	began   time.Time
	shows   []int64         // the limited ones, one for each kill
	limited map[int64]int64 // and their capacities
	hot     atomic.Int64
	keys    atomic.Int64
	kills   []recovery
	moments []time.Time // of the kills, and of the load's end
}

func (r *run) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *run) start(part string) {
	r.t.Helper()
	r.must(r.lab.Start(r.ctx, part))
	r.must(r.lab.Await(r.ctx, part))
}

func (r *run) makeShows(blows []blow) {
	const makeShow = `INSERT INTO shows (name, venue, starts_at, capacity) VALUES ('limited', 'here', now() + interval '1 year', %d) RETURNING id`
	_, err := r.lab.Database().Do(r.ctx, fmt.Sprintf(`UPDATE shows SET capacity = 2000000000 WHERE id = %d`, largeShow))
	r.must(err)
	for _, b := range blows {
		out, err := r.lab.Database().Do(r.ctx, fmt.Sprintf(makeShow, b.capacity))
		r.must(err)
		show, err := strconv.ParseInt(string(out), 10, 64)
		r.must(err)
		r.shows, r.limited[show] = append(r.shows, show), int64(b.capacity)
	}
}

// load has clients order steadily, half of them from the show that is being sold out, until stop is called; then it waits until
// all have their answers.
func (r *run) load() (stop func()) {
	r.began = time.Now()
	turns, over := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		defer close(turns)
		ticker := time.NewTicker(time.Second / rate)
		defer ticker.Stop()
		for {
			select {
			case <-over:
				return
			case <-r.ctx.Done():
				return
			case <-ticker.C:
			}
			select {
			case turns <- struct{}{}:
			case <-over:
				return
			case <-r.ctx.Done():
				return
			}
		}
	})
	for range clients {
		all.Go(func() {
			for range turns {
				n := r.keys.Add(1)
				show := int64(largeShow)
				if n%2 == 0 {
					show = r.hot.Load()
				}
				a := r.client.order(r.ctx, request{key(n), show, 1 + n/2%4})
				if n%20 == 0 {
					r.client.again(r.ctx, a)
				}
			}
		})
	}
	return func() {
		close(over)
		all.Wait()
		r.moments = append(r.moments, time.Now())
	}
}

// key is that of the n-th request.
func key(n int64) string { return fmt.Sprintf("kill-%d", n) }

// kill does one blow and waits until orders are accepted and end again.
func (r *run) kill(b blow) {
	r.t.Helper()
	if !pause(r.ctx, b.before) {
		r.t.Fatal(context.Cause(r.ctx))
	}
	r.hit(b)
	killed := time.Now()
	r.moments = append(r.moments, killed)
	k := recovery{blow: b, second: killed.Sub(r.began).Seconds()}
	if b.how != backend {
		pause(r.ctx, b.down)
		r.must(r.lab.Start(r.ctx, b.part))
		if b.again > 0 {
			pause(r.ctx, b.again)
			r.must(r.lab.Kill(r.ctx, b.part))
			r.must(r.lab.Start(r.ctx, b.part))
		}
	}
	ctx, cancel := context.WithTimeout(r.ctx, bound)
	defer cancel()
	for {
		n, order, at := r.client.since(killed)
		if order != 0 && k.accepted == 0 {
			k.accepted = at.Sub(killed)
			r.must(r.client.ended(ctx, order))
			k.ended = time.Since(killed)
		}
		if n >= progress {
			break
		}
		if !pause(ctx, 10*time.Millisecond) {
			r.t.Fatalf("%d orders were accepted in %s since %s of %s was killed (kill %d)", n, bound, b.how, b.part, b.n)
		}
	}
	r.must(r.lab.Await(ctx, b.part))
	r.kills = append(r.kills, k)
	r.t.Logf("second %.0f: %s of %s killed; the next order was accepted after %s, and ended after %s", k.second, k.how, k.part, k.accepted.Round(time.Millisecond), k.ended.Round(time.Millisecond))
	// While orders flow all holds but that they, and their events, have come to rest.
	facts, err := proof.Platform{Database: r.lab.Database(), Broker: unasked{}}.Look(r.ctx, time.Time{})
	r.must(err)
	for _, f := range proof.Judge(facts).Invariants {
		if f.ID != "I3" && f.ID != "I5" && !f.Holds {
			r.t.Errorf("after kill %d of %s: %s: %v", b.n, b.part, f.Claim, f.Rows)
		}
	}
}

func (r *run) hit(b blow) {
	r.t.Helper()
	var script string
	switch b.how {
	case whole:
		r.must(r.lab.Kill(r.ctx, b.part))
		return
	case postmaster:
		script = `kill -9 $(head -n 1 /var/lib/postgresql/data/pgdata/postmaster.pid)`
	case backend:
		script = `kill -9 $(psql -X -A -t -U postgres -d postgresdb -c "SELECT pid FROM pg_stat_activity WHERE usename = 'order_api' ORDER BY query_start DESC LIMIT 1")`
	}
	_, err := r.lab.Exec(b.part)(r.ctx, "sh", "-c", script)
	if b.how == postmaster && command.ExitCode(err) == 137 {
		err = nil // the container took it along
	}
	r.must(err)
	if b.how == postmaster {
		r.must(r.lab.Gone(r.ctx, b.part))
	}
}

// unasked is a broker that nobody asks.
type unasked struct{}

func (unasked) Queues(context.Context) ([]proof.Queue, error)   { return nil, nil }
func (unasked) Letters(context.Context) ([]proof.Letter, error) { return nil, nil }

// count counts what was accepted between a kill and the next.
func (r *run) count(i int) {
	from, _, _ := r.client.since(r.moments[i])
	to, _, _ := r.client.since(r.moments[i+1])
	if r.kills[i].until = from - to; r.kills[i].until < progress {
		r.t.Errorf("%d orders were accepted after kill %d of %s", r.kills[i].until, r.kills[i].n, r.kills[i].part)
	}
}

// platform is what is read of the lab, and what the clients know.
func (r *run) platform() proof.Platform {
	p := r.lab.Platform()
	p.History = &proof.History{Runs: []string{"kill"}, Asked: r.client.all}
	return p
}

// rest waits until nothing is on its way any more, and verifies.
func (r *run) rest() {
	r.t.Helper()
	report, err := proof.Verify(r.ctx, r.platform(), bound, func(int64, int64, int64) {})
	r.must(err)
	if !report.Holds || report.DeadLetters > 0 {
		for _, f := range report.Invariants {
			r.t.Logf("%s: %v, %s; %s", f.Claim, f.Holds, f.Counted, strings.Join(f.Rows, "; "))
		}
		r.t.Fatalf("after %s broken are %v, and there are %d dead letters", report.Waited, report.Broken(), report.DeadLetters)
	}
}

// sellOut orders what is left of the limited shows, seat by seat, until it is known that all of it was sold: an order in ten
// is cancelled, and its seats come back.
func (r *run) sellOut() {
	for again := true; again; {
		again = false
		var shows []struct{ ShowID, Free int64 }
		r.must(r.client.get(r.ctx, "/shows", &shows))
		var all sync.WaitGroup
		slots := make(chan struct{}, clients)
		for _, s := range shows {
			if _, ok := r.limited[s.ShowID]; !ok {
				continue
			}
			for range s.Free {
				again = true
				all.Go(func() {
					slots <- struct{}{}
					defer func() { <-slots }()
					a := r.client.order(r.ctx, request{key(r.keys.Add(1)), s.ShowID, 1})
					if order := a.Accepted().Order; order != 0 {
						if err := r.client.ended(r.ctx, order); err != nil {
							r.t.Error(err)
						}
					}
				})
			}
		}
		all.Wait()
	}
}

// askAgain asks once more with each key that was in doubt at some time, and some of the others: the answer must be the same.
func (r *run) askAgain() {
	var all sync.WaitGroup
	slots := make(chan struct{}, clients)
	for i, a := range r.client.all {
		if a.Accepted().Order == 0 || len(a.Answers) == 1 && i%50 != 0 {
			continue
		}
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			r.client.again(r.ctx, a)
		})
	}
	all.Wait()
}

func (r *run) judged() []finding {
	r.t.Helper()
	return judge(r.client.all, r.rows(), r.limited)
}

func (r *run) rows() []proof.Row {
	r.t.Helper()
	facts, err := r.platform().Look(r.ctx, time.Time{})
	r.must(err)
	return facts.Rows
}

// damage proves that what was just judged to be whole would not have been, had it been otherwise.
func (r *run) damage() {
	for _, d := range []struct{ statement, broken string }{
		{`INSERT INTO orders (user_id, show_id, quantity, status) SELECT user_id, show_id, quantity, status FROM orders WHERE id = (SELECT max(id) FROM orders)`, "keys"},
		{`UPDATE orders SET status = 'PENDING' WHERE id = (SELECT min(id) FROM orders)`, "ends"},
		{`DELETE FROM orders WHERE id = (SELECT min(id) FROM orders WHERE status = 'CONFIRMED' AND show_id <> ` + strconv.Itoa(largeShow) + `)`, "accepted"},
	} {
		_, err := r.lab.Database().Do(r.ctx, d.statement)
		r.must(err)
		report, err := proof.Verify(r.ctx, r.platform(), 0, func(int64, int64, int64) {})
		r.must(err)
		if !slices.Contains(report.Broken(), d.broken) {
			r.t.Errorf("%s: broken are only %v", d.statement, report.Broken())
		}
	}
	_, err := r.lab.Database().Do(r.ctx, `DELETE FROM payments WHERE id = (SELECT max(id) FROM payments)`)
	r.must(err)
	if found := fmt.Sprint(r.judged()); !strings.Contains(found, unpaid) || !strings.Contains(found, notSoldOut) {
		r.t.Errorf("it finds only %s", found)
	}
}

// ended waits until an order has ended.
func (c *client) ended(ctx context.Context, order int64) error {
	for {
		var told struct{ Status string }
		err := c.get(ctx, fmt.Sprintf("/orders/%d?wait=5s", order), &told)
		if err == nil && told.Status != "PENDING" {
			return nil
		}
		if !pause(ctx, 10*time.Millisecond) {
			return fmt.Errorf("order %d has not ended: %q, %w", order, told.Status, context.Cause(ctx))
		}
	}
}

func (c *client) get(ctx context.Context, path string, into any) error {
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.address+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := c.http.Do(get)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(into)
}

// table tells what was seen.
func (r *run) table() {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	lines := []string{"killed\tn\tat s\thit\taway ms\tnext accepted ms\tit ended ms\taccepted until the next"}
	for _, k := range r.kills {
		away := fmt.Sprint(k.down.Milliseconds())
		switch {
		case k.how == backend:
			away = ""
		case k.again > 0:
			away += fmt.Sprintf(", and again %d later", k.again.Milliseconds())
		}
		lines = append(lines, fmt.Sprintf("%s\t%d\t%.1f\t%s\t%s\t%d\t%d\t%d", k.part, k.n, k.second, k.how, away, k.accepted.Milliseconds(), k.ended.Milliseconds(), k.until))
	}
	if _, err := fmt.Fprintln(w, strings.Join(lines, "\n")); err != nil {
		r.t.Error(err)
	}
	if err := w.Flush(); err != nil {
		r.t.Error(err)
	}
	tries, unknown, accepted := 0, 0, 0
	for _, a := range r.client.all {
		tries += len(a.Answers)
		for _, got := range a.Answers {
			if !got.Final() {
				unknown++
			}
		}
		if a.Accepted().Order != 0 {
			accepted++
		}
	}
	rows := r.rows()
	slowest := 0.0
	for _, o := range rows {
		slowest = max(slowest, o.Took)
	}
	r.t.Logf("\n%s\n%d keys, %d tries of which %d got no answer or 503; %d orders accepted, %d more that nobody could be told of; the slowest took %.1f s to its end",
		out.String(), len(r.client.all), tries, unknown, accepted, len(rows)-accepted, slowest)
}
