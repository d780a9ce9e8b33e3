package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
)

// row is one thing that was measured, once a round.
type row struct {
	name    string
	times   []time.Duration
	foreign []float64 // the share of the machine's CPU that others took meanwhile, 0 to 1; none where it was not measured
}

// timed measures do, and adds it to the row of that name if it came through.
func (b *bench) timed(ctx context.Context, name, cluster string, do func(context.Context) error) error {
	b.say("  %s", name)
	node, err := b.container(ctx, cluster)
	if err != nil {
		return err
	}
	m, err := newMeter(node)
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		m.watch(watching)
	}()
	began := time.Now()
	err = do(ctx)
	took := time.Since(began)
	stop()
	<-watched
	if err != nil {
		return err
	}
	if node == "" { // else it was deleted, or is the same
		if node, err = b.container(ctx, cluster); err != nil {
			return err
		}
	}
	foreign, err := m.foreign(node)
	if err != nil {
		return err
	}
	share := foreign.Seconds() / took.Seconds() / float64(runtime.NumCPU())
	b.say("    %s, others took %.0f %% of the CPU", span(took), 100*share)
	r := b.row(name)
	r.times = append(r.times, took)
	r.foreign = append(r.foreign, share)
	return nil
}

func (b *bench) row(name string) *row {
	for _, r := range b.rows {
		if r.name == name {
			return r
		}
	}
	r := &row{name: name}
	b.rows = append(b.rows, r)
	return r
}

// report writes what was measured, each with its ratio to the yardstick.
func (b *bench) report(out io.Writer) error {
	if len(b.rows) == 0 {
		return nil
	}
	var kind time.Duration
	if times := b.row(rowKind).times; len(times) > 0 {
		kind = median(times)
	}
	const format = "%-52s %9s %9s %9s %7s %11s  %s\n"
	if _, err := fmt.Fprintf(out, format, fmt.Sprintf("median of %d", b.rounds), "time", "least", "most", "x kind", "others' CPU", "to reach"); err != nil {
		return err
	}
	for _, r := range b.rows {
		if len(r.times) == 0 {
			continue
		}
		m := median(r.times)
		ratio, share := "", ""
		if kind > 0 {
			ratio = fmt.Sprintf("%.2f", m.Seconds()/kind.Seconds())
		}
		if len(r.foreign) > 0 {
			share = fmt.Sprintf("%.0f %%", 100*median(r.foreign))
		}
		what, holds := limit(r.name, m, kind)
		if !holds {
			what += ": MISSED"
		}
		if _, err := fmt.Fprintf(out, format, r.name, span(m), span(slices.Min(r.times)), span(slices.Max(r.times)), ratio, share, what); err != nil {
			return err
		}
	}
	return nil
}

// median is the middle of some values, the upper one of two.
func median[T float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// span is a duration for people.
func span(d time.Duration) string {
	if d < 100*time.Second {
		return fmt.Sprintf("%.2fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}
