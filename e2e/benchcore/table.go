package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"platformctl/e2e/lab"
	"platformctl/pkg/proof"
)

// measured is one measurement.
type measured struct {
	perSecond float64 // accepted, or ended where ends is there
	base      float64 // what it is compared with; 0 is nothing
	answers   proof.Answers
	ends      *proof.Ends
	cpu       proof.CPU
	note      string
}

func (m measured) against(base measured) measured {
	m.base = base.perSecond
	return m
}

// row is what was measured of one thing, round by round.
type row struct {
	what, reach string
	rounds      []measured
}

// middle is the round of the median throughput.
func (r row) middle() measured {
	if len(r.rounds) == 0 {
		return measured{}
	}
	sorted := slices.SortedFunc(slices.Values(r.rounds), func(a, b measured) int { return cmp.Compare(a.perSecond, b.perSecond) })
	return sorted[len(sorted)/2]
}

func (r row) median() float64 { return r.middle().perSecond }

// ratio is the median of the rounds' ratios.
func (r row) ratio() float64 {
	var all []float64
	for _, m := range r.rounds {
		if m.base > 0 {
			all = append(all, m.perSecond/m.base)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// cost is the CPU of one order, client, services and servers together, in microseconds: the median of the rounds.
func (r row) cost() float64 {
	var all []float64
	for _, m := range r.rounds {
		var cores float64
		for _, s := range m.cpu.Shares {
			cores += s.Cores
		}
		if m.perSecond > 0 {
			all = append(all, 1e6*cores/m.perSecond)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

type table struct{ rows []row }

func (t *table) add(what, reach string, m measured) {
	fmt.Fprintf(os.Stderr, "%s: %.0f/s, foreign CPU %.2f\n", what, m.perSecond, m.cpu.Foreign)
	for i := range t.rows {
		if t.rows[i].what == what {
			t.rows[i].rounds = append(t.rows[i].rounds, m)
			return
		}
	}
	t.rows = append(t.rows, row{what, reach, []measured{m}})
}

func (t *table) find(what string) row {
	for _, r := range t.rows {
		if r.what == what {
			return r
		}
	}
	return row{}
}

// print writes the table as Markdown.
func (t *table) print(w io.Writer) {
	fmt.Fprintln(w, "| what | to reach | a second | ratio | answered p50 / p99 ms | end p50 / p99 ms | besides | CPU each, µs | cores | foreign |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|---|")
	for _, r := range t.rows {
		m := r.middle()
		ratio, answered, end := "", "", ""
		if r.ratio() > 0 {
			ratio = fmt.Sprintf("%.2f", r.ratio())
		}
		if l := m.answers.Accepted; l.Count > 0 {
			answered = fmt.Sprintf("%.1f / %.1f", l.P50, l.P99)
		}
		var besides []string
		if m.ends != nil {
			end = fmt.Sprintf("%.1f / %.1f", m.ends.P50, m.ends.P99)
			besides = append(besides, fmt.Sprintf("unsettled when the load was over: %d", m.ends.Unsettled))
			if m.answers.Took > 0 && r.what == burst {
				besides = append(besides, fmt.Sprintf("%d accepted in %.1f s", m.answers.Accepted.Count, m.answers.Took.Seconds()))
			}
		}
		for _, status := range slices.Sorted(maps.Keys(m.answers.Statuses)) {
			if status != 202 {
				besides = append(besides, fmt.Sprintf("%d × %d", m.answers.Statuses[status], status))
			}
		}
		if m.answers.Unsent > 0 {
			besides = append(besides, fmt.Sprintf("%d unsent", m.answers.Unsent))
		}
		if m.note != "" {
			besides = append(besides, m.note)
		}
		for _, why := range slices.Sorted(maps.Keys(m.answers.Failures)) {
			besides = append(besides, fmt.Sprintf("%d × %s", m.answers.Failures[why], why))
		}
		var cores []string
		for _, s := range m.cpu.Shares {
			if s.Cores < 0.005 {
				continue
			}
			text := fmt.Sprintf("%s %.2f", s.Name, s.Cores)
			if s.Name == "order-api" || s.Name == "payment-service" {
				text += fmt.Sprintf(" (%d MiB)", s.Memory>>20)
			}
			cores = append(cores, text)
		}
		perSecond, cost, foreign := "", "", ""
		if m.perSecond > 0 {
			perSecond = fmt.Sprintf("%.0f", m.perSecond)
		}
		if len(cores) > 0 {
			cost, foreign = fmt.Sprintf("%.0f", r.cost()), fmt.Sprintf("%.2f", m.cpu.Foreign)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n",
			r.what, r.reach, perSecond, ratio, answered, end, strings.Join(besides, "; "), cost, strings.Join(cores, ", "), foreign)
	}
}

// document writes the page.
func (t *table) document(ctx context.Context, l *lab.Lab, path string) error {
	version, err := l.Database().Do(ctx, "SHOW server_version")
	if err != nil {
		return err
	}
	broker, err := l.Exec(lab.RabbitMQ)(ctx, "rabbitmqctl", "--silent", "version")
	if err != nil {
		return err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, `# How fast the ordering core is

Written by `+"`make bench-core`"+` on %s: %s, %d cores that clients, servers and services share; Linux %s,
PostgreSQL %s, RabbitMQ %s, %s. fsync and synchronous_commit are on, queues are quorum queues, the history is written.

The ratio is to pgbench on the same server by the same route in the same run, but where the row names another. Where there are
several rounds the ratio and the CPU are their medians, and all else is of the round of the median throughput. *cores* is CPU by process, with a service's largest memory; *foreign* is what else the machine did: a figure counts
as far as that is small. A latency counts from when the order was due where a rate is offered. *end* is from the order's row to
its end, by the database's clock. After each measurement of the pipeline every invariant was verified.

`, time.Now().UTC().Format(time.DateOnly), processor(), runtime.NumCPU(), bytes.TrimSpace(kernel), version, bytes.TrimSpace(broker), runtime.Version())
	t.print(&page)
	return os.WriteFile(path, page.Bytes(), 0o644)
}

func processor() string {
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "an unknown processor"
	}
	for line := range strings.Lines(string(raw)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "an unknown processor"
}
