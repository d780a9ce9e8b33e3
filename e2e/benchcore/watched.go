package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"platformctl/e2e/lab"
	"platformctl/pkg/inspect"
	"platformctl/pkg/proof"
)

// The rows' names.
const (
	alone1000   = "1,000 orders a second, nobody looks"
	watched1000 = "the same, the page is open and a tap shows each event"
	aloneFull   = "orders to their ends, 64 clients, nobody looks"
	watchedFull = "the same with 64 clients, the page is open and a tap shows each event"
)

// watched measures pairs, of which one half has the page open and a tap, in alternating order: what disturbs the machine for longer than
// a pair disturbs both halves.
func (b *bench) watched(ctx context.Context, t *table) (err error) {
	if err := b.empty(ctx); err != nil {
		return err
	}
	for _, part := range []string{lab.PaymentService, lab.OrderAPI} {
		if err := b.up(ctx, part, "PAYMENT_FAILURE_RATE=0"); err != nil { // seats only become fewer, so that they count the orders
			return err
		}
		defer func() { err = errors.Join(err, b.lab.Stop(part)) }()
	}
	for round := range b.rounds {
		for _, pair := range []struct {
			alone, watched, reach string
			load                  proof.Load
		}{
			{alone1000, watched1000, "≥ 0.95; on the page p99 ≤ 200 ms", proof.Load{Clients: 64, Rate: 1000}},
			{aloneFull, watchedFull, "≥ 0.95", proof.Load{Clients: 64}},
		} {
			pair.load.Duration = time.Duration(b.seconds) * time.Second
			var halves [2]measured // alone, watched
			for _, half := range [2]int{round % 2, 1 - round%2} {
				if halves[half], err = b.half(ctx, pair.load, half == 1); err != nil {
					return err
				}
			}
			t.add(pair.alone, "", halves[0])
			t.add(pair.watched, pair.reach, halves[1].against(halves[0]))
		}
	}
	return nil
}

// half is one load, with somebody who looks or without, on services that run.
func (b *bench) half(ctx context.Context, load proof.Load, watched bool) (m measured, err error) {
	load.Address, load.Show, load.Quantity = b.lab.Address(lab.OrderAPI), 1, 1
	var v *view
	if watched {
		if v, err = b.view(ctx); err != nil {
			return m, err
		}
		defer func() { err = errors.Join(err, v.leave()) }()
		var seen func() int64
		var leave func() error
		if seen, leave, err = b.tap(ctx); err != nil {
			return m, err
		}
		defer func() {
			err = errors.Join(err, leave())
			m.note += fmt.Sprintf("; the tap saw %d events of %d orders", seen(), m.answers.Accepted.Count)
		}()
	}
	began := time.Now()
	r, err := proof.Bench{
		Platform: b.lab.Platform(), Database: b.lab.Database(), Load: load, Meter: b.meter, Settle: 2 * time.Minute,
		Say: func(line string) { fmt.Fprintln(os.Stderr, line) },
	}.Run(ctx)
	if err != nil {
		return m, err
	}
	if m, err = fromBench(r); err != nil || !watched {
		return m, err
	}
	accepted, err := b.accepted(ctx, began)
	if err != nil {
		return m, err
	}
	if err := v.await(ctx, int64(len(accepted))); err != nil {
		return m, err
	}
	m.note = v.reached(accepted)
	fmt.Fprintln(os.Stderr, m.note)
	return m, nil
}

// accepted are the times at which the orders since then were, by the database's clock, which is the machine's.
func (b *bench) accepted(ctx context.Context, since time.Time) (at []time.Time, err error) {
	raw, err := b.lab.Database().JSON(ctx, fmt.Sprintf("SELECT coalesce(json_agg(created_at ORDER BY created_at), '[]') FROM orders WHERE created_at >= '%s'", since.UTC().Format(time.RFC3339Nano)))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &at); err != nil {
		return nil, fmt.Errorf("read when orders were accepted: %w", err)
	}
	return at, nil
}

// tap has all events shown, as "platformctl events -f" does, until leave is called. seen counts them.
func (b *bench) tap(ctx context.Context) (seen func() int64, leave func() error, err error) {
	ctx, end := context.WithCancel(ctx)
	begun, over := make(chan struct{}), make(chan error, 1)
	var mu sync.Mutex
	var n int64
	go func() {
		over <- inspect.Broker{URL: b.lab.Broker()}.Tap(ctx, "#", sync.OnceFunc(func() { close(begun) }), func(error) {}, func(e inspect.Event) error {
			mu.Lock()
			n++
			mu.Unlock()
			_, err := fmt.Fprintln(io.Discard, e.Line())
			return err
		})
	}()
	select {
	case <-begun:
	case err := <-over:
		end()
		return nil, nil, fmt.Errorf("tap the events: %w", err)
	}
	seen = func() int64 {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
	return seen, func() error {
		end()
		if err := <-over; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}, nil
}

// view is somebody who has the page's stream open, and notes when what came.
type view struct {
	end    context.CancelFunc
	answer *http.Response
	began  time.Time
	over   chan struct{} // closed when all was read

	mu      sync.Mutex
	frames  int
	held    []held          // seats of show 1
	hops    []time.Duration // from each hop of a listed order to the frame that first has it
	known   map[string]bool // hops that were seen
	problem error
}

// held is how many seats a frame said were held or sold, and when it came.
type held struct {
	at    time.Time
	seats int64
}

// frame is what of the stream is looked at.
type frame struct {
	Shows []struct{ ID, Held, Sold int64 }
	// The hops' names are the page's, and so are those that are not hops.
	Orders []map[string]any
}

func (b *bench) view(ctx context.Context) (*view, error) {
	ctx, end := context.WithCancel(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.lab.Address(lab.OrderAPI)+"/page/stream", http.NoBody)
	if err != nil {
		end()
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		end()
		return nil, fmt.Errorf("open the page's stream: %w", err)
	}
	v := &view{end: end, answer: answer, began: time.Now(), over: make(chan struct{}), known: map[string]bool{}}
	go func() {
		defer close(v.over)
		lines := bufio.NewScanner(answer.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() { // until the stream is left
			if text, is := strings.CutPrefix(lines.Text(), "data: {"); is {
				v.take("{"+text, time.Now())
			}
		}
	}()
	return v, nil
}

func (v *view) take(text string, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.frames++
	var f frame
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		v.problem = errors.Join(v.problem, fmt.Errorf("a frame of the page's stream: %w", err))
		return
	}
	for _, s := range f.Shows {
		if s.ID == 1 {
			v.held = append(v.held, held{at, s.Held + s.Sold})
		}
	}
	for _, o := range f.Orders {
		for _, hop := range []string{"accepted", "sent", "taken", "paid", "told", "back", "ended"} {
			text, is := o[hop].(string)
			name := fmt.Sprint(o["id"], hop)
			if !is || v.known[name] {
				continue
			}
			v.known[name] = true
			happened, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				v.problem = errors.Join(v.problem, err)
			} else if v.frames > 1 && happened.After(v.began) { // the first frame is what was before
				v.hops = append(v.hops, at.Sub(happened))
			}
		}
	}
}

// leave closes the stream, and tells when it had less than a frame a second.
func (v *view) leave() error {
	v.end()
	<-v.over
	err := errors.Join(v.problem, v.answer.Body.Close())
	if seconds := time.Since(v.began).Seconds(); float64(v.frames) < seconds {
		err = errors.Join(err, fmt.Errorf("the page's stream had %d frames in %.0f s: %s", v.frames, seconds, v.answer.Status))
	}
	return err
}

// await waits until the page has shown the seats of so many orders, and something of one in its list.
func (v *view) await(ctx context.Context, orders int64) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		v.mu.Lock()
		there := len(v.hops) > 0 && len(v.held) > 0 && v.held[len(v.held)-1].seats-v.held[0].seats >= orders
		v.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("the page does not show the seats of %d orders", orders)
		}
	}
}

// reached tells how long after it happened a change was on the page: of each order, its seat in the figures of its show, and of those that
// were listed, each hop.
func (v *view) reached(accepted []time.Time) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var seats []time.Duration
	base := v.held[0].seats
	frame := 0
	for i, at := range accepted {
		for v.held[frame].seats-base <= int64(i) {
			frame++
		}
		seats = append(seats, v.held[frame].at.Sub(at))
	}
	say := func(all []time.Duration) string {
		slices.Sort(all)
		return fmt.Sprintf("%d / %d ms", all[len(all)/2].Milliseconds(), all[len(all)*99/100].Milliseconds())
	}
	return fmt.Sprintf("on the page after, p50 / p99: the seats of all orders %s, the hops of the orders listed %s", say(seats), say(v.hops))
}
