package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"platformctl/pkg/fault"
	"platformctl/pkg/inspect"
	"platformctl/pkg/kube"
	"platformctl/pkg/platform"
	"platformctl/pkg/terminal"
)

const (
	watchPause = time.Second
	// watchPatience is how long a look may take: a pod that is being stopped may not answer.
	watchPatience = 3 * time.Second
	// headerAgain is after how many lines their header is written again, where lines are appended.
	headerAgain = 20
)

// watched is what is seen in one look.
type watched struct {
	inspect.Figures
	Wrong string `json:"wrong,omitempty"` // why something was not seen
}

// display is a way to show looks, one after another.
type display interface {
	show(watched) error
	close()
}

// watch shows what the services' metrics tell, each second, until Ctrl-C.
func (e *env) watch(ctx context.Context, p thePlatform, asJSON bool) error {
	e.rerun.Store("") // Ctrl-C is its usual end
	look, err := e.look(ctx, p)
	if err != nil {
		return err
	}
	var d display = &lineDisplay{out: e.Out}
	around := terminal.On(e.Out, e.Getenv)
	switch {
	case asJSON:
		d = jsonDisplay{e.Out}
	case around.Resolve(e.mode) == terminal.TTY:
		d = panelDisplay{terminal.NewPanel(e.Out, around), e.cluster}
	}
	err = repeat(ctx, look, d)
	if errors.Is(err, errInterrupted) {
		return exit(fault.CodeInterrupted)
	}
	return err
}

func repeat(ctx context.Context, look func(context.Context) watched, d display) error {
	defer d.close()
	again := time.NewTicker(watchPause)
	defer again.Stop()
	for {
		seen := look(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := d.show(seen); err != nil {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// lookOf is a look at the running platform, which remembers the looks before.
func (e *env) lookOf(ctx context.Context, p thePlatform) (func(context.Context) watched, error) {
	client, err := p.Kube(ctx)
	if err != nil {
		return nil, err
	}
	services, err := platform.FindOurs()
	if err != nil {
		return nil, err
	}
	var window inspect.Window
	return func(ctx context.Context) watched {
		ctx, cancel := context.WithTimeout(ctx, watchPatience)
		defer cancel()
		pods, err := scrapes(ctx, client, services)
		w := watched{Figures: window.Add(time.Now(), pods)}
		if err != nil {
			w.Wrong = err.Error()
		}
		return w
	}, nil
}

// scrapes are the metrics of all pods that run, and why some are not among them.
func scrapes(ctx context.Context, client *kube.Client, services []platform.Service) (all []inspect.Scrape, err error) {
	var errs []error
	for _, s := range services {
		names, err := client.Running(ctx, kube.Workload{Kind: s.Kind, Namespace: s.Namespace, Name: s.Workload})
		if err == nil && len(names) == 0 {
			err = fmt.Errorf("no pod of %s runs", s.Release)
		}
		errs = append(errs, err)
		for _, name := range names {
			text, err := client.Ask(ctx, s.Namespace, name, s.Ports[0].Number, "metrics")
			if err == nil {
				var scrape inspect.Scrape
				if scrape, err = inspect.ReadScrape(name, time.Now(), text); err == nil {
					all = append(all, scrape)
				}
			}
			errs = append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

// jsonDisplay writes an object a line.
type jsonDisplay struct{ out io.Writer }

func (d jsonDisplay) show(w watched) error { return json.NewEncoder(d.out).Encode(w) }
func (jsonDisplay) close()                 {}

// lineDisplay writes a line a look, and never rewrites one.
type lineDisplay struct {
	out   io.Writer
	lines int
}

const watchLine = "%-8s %7s %7s %8s %8s %7s %7s %6s %6s %5s\n"

func (d *lineDisplay) show(w watched) error {
	if d.lines%headerAgain == 0 {
		if _, err := fmt.Fprintf(d.out, watchLine, "TIME", "IN/S", "OUT/S", "ANSWER", "END", "OUTBOX", "OLDEST", "TO PAY", "TO END", "DEAD"); err != nil {
			return err
		}
	}
	d.lines++
	outbox, oldest := "-", "-"
	if w.Outbox != nil {
		outbox, oldest = strconv.FormatInt(w.Outbox.Events, 10), age(w.Outbox.OldestSeconds)
	}
	queues := []any{"-", "-", "-"}
	for i, q := range w.Queues[:min(len(w.Queues), len(queues))] {
		queues[i] = strconv.FormatInt(q.Messages, 10)
	}
	if w.Wrong != "" {
		if err := terminal.Text(d.out, w.Wrong); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(d.out, watchLine, append([]any{
		w.At.UTC().Format(time.TimeOnly), perSecond(w.Figures, w.In), perSecond(w.Figures, w.Out), short(w.In.P99MS), short(w.Out.P99MS), outbox, oldest,
	}, queues...)...)
	return err
}

func (*lineDisplay) close() {}

// panelDisplay draws each look in place of the one before.
type panelDisplay struct {
	*terminal.Panel
	cluster string
}

func (d panelDisplay) close() { d.Close() }

func (d panelDisplay) show(w watched) error {
	orders := terminal.Grid{Header: []string{"ORDERS", "A SECOND", "P99"}}
	for _, row := range []struct {
		name string
		rate inspect.Rate
	}{{"accepted", w.In}, {"refused", w.Refused}, {"paid", w.Paid}, {"ended", w.Out}, {"delivered again", w.Again}} {
		orders.Rows = append(orders.Rows, []string{row.name, perSecond(w.Figures, row.rate), short(row.rate.P99MS)})
	}
	waiting := terminal.Grid{Header: []string{"WAITING", "MESSAGES", "OLDEST"}, Rows: [][]string{{"outbox", "-", "-"}}}
	if w.Outbox != nil {
		waiting.Rows[0] = []string{"outbox", strconv.FormatInt(w.Outbox.Events, 10), age(w.Outbox.OldestSeconds)}
	}
	for i, q := range w.Queues {
		name := q.Name
		if i == len(w.Queues)-1 {
			name += ", dead letters"
		}
		waiting.Rows = append(waiting.Rows, []string{name, strconv.FormatInt(q.Messages, 10), ""})
	}
	shows := terminal.Grid{Header: []string{"SHOW", "FREE", "HELD", "SOLD"}}
	for _, s := range w.Shows {
		shows.Rows = append(shows.Rows, []string{strconv.FormatInt(s.Show, 10), strconv.FormatInt(s.Free, 10), strconv.FormatInt(s.Held, 10), strconv.FormatInt(s.Sold, 10)})
	}
	pods := terminal.Grid{Header: []string{"POD", "CORES", "MEMORY", "CONNECTIONS"}}
	for _, p := range w.Pods {
		pods.Rows = append(pods.Rows, []string{inspect.ShortPod(p.Pod), fmt.Sprintf("%.2f", p.Cores), terminal.Bytes(p.Memory), fmt.Sprintf("%d of %d", p.Pool, p.Of)})
	}
	title := fmt.Sprintf("%s at %s; rates and p99 of the last %s", d.cluster, w.At.UTC().Format("15:04:05 UTC"), terminal.Age(time.Duration(w.Over*float64(time.Second)+0.5e9)))
	return d.Draw(title, w.Wrong, orders, waiting, pods, shows) // of shows there may be many
}

// perSecond is a rate for people; the first look knows none.
func perSecond(f inspect.Figures, r inspect.Rate) string {
	switch {
	case f.Over == 0:
		return "-"
	case r.PerSecond > 0 && r.PerSecond < 10:
		return fmt.Sprintf("%.1f", r.PerSecond)
	}
	return fmt.Sprintf("%.0f", r.PerSecond)
}

func short(ms *float64) string {
	switch {
	case ms == nil:
		return "-"
	case *ms < 100:
		return fmt.Sprintf("%.1fms", *ms)
	}
	return terminal.Duration(time.Duration(*ms * float64(time.Millisecond)))
}

func age(seconds float64) string {
	return terminal.Duration(time.Duration(seconds * float64(time.Second)))
}
