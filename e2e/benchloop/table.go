package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"platformctl/pkg/command"
)

// The rows, by what they show.
const (
	rowCold    = "`up` from nothing cached to the first CONFIRMED order"
	rowKind    = "`kind create cluster --wait`, kubeadm's defaults, a plain node"
	rowImage   = "the same with our node image as it is"
	rowUp      = "`up`, images cached, no cluster, to the first CONFIRMED order"
	rowMemory  = "memory of platformctl during that `up`"
	rowAgain   = "`up` when all is up"
	rowStop    = "`stop`"
	rowStart   = "`start` after `stop`, to the first CONFIRMED order"
	rowDeploy  = "`deploy order` after a change of one line, new pod ready"
	rowBuild   = "of which build"
	rowLoad    = "of which load"
	rowRoll    = "of which roll"
	rowRestore = "`snapshot restore` with 100,000 orders"
	rowTrace   = "`trace` of an order among a million"
	rowDown    = "`down -y --no-snapshot`"
	rowVersion = "start of the program: `platformctl version`"
)

// goal is what a row is to keep to on two cores without a registry.
type goal struct {
	most  float64 // of the median, in seconds or MiB; 0 is no limit
	base  string  // the row that it is compared with
	ratio float64 // the most that the median of the rounds' ratios may be; 0 is no limit
	mib   bool    // it is memory, in MiB
}

// order and goals are the table as it is printed.
var order = []string{rowCold, rowKind, rowImage, rowUp, rowMemory, rowAgain, rowStop, rowStart, rowDeploy, rowBuild, rowLoad, rowRoll, rowRestore, rowTrace, rowDown, rowVersion}

var goals = map[string]goal{
	rowCold:    {most: 14 * 60},
	rowImage:   {base: rowKind},
	rowUp:      {base: rowKind, ratio: 0.95},
	rowMemory:  {most: 150, mib: true},
	rowAgain:   {most: 1, base: rowUp, ratio: 0.05},
	rowStart:   {base: rowUp, ratio: 0.5},
	rowDeploy:  {most: 5},
	rowRestore: {most: 3},
	rowTrace:   {most: 0.3},
	rowDown:    {most: 4},
	rowVersion: {most: 0.1},
}

// shortNames are those by which a ratio names what it is to.
var shortNames = map[string]string{rowKind: "kind", rowUp: "`up`"}

// sample is one measurement.
type sample struct {
	value   float64 // seconds or MiB
	base    float64 // of the row that it is compared with, in the same round; 0 where that was not measured
	foreign float64 // the share of the machine's CPU that others took meanwhile, 0 to 1
	metered bool    // foreign was measured
}

// table holds what was measured, by row.
type table struct {
	rows  map[string][]sample
	extra []string // rows before all others
}

func (t *table) add(row string, s sample) {
	if t.rows == nil {
		t.rows = map[string][]sample{}
	}
	if base := t.rows[goals[row].base]; len(base) > 0 {
		s.base = base[len(base)-1].value
	}
	t.rows[row] = append(t.rows[row], s)
}

// print writes the table as Markdown.
func (t *table) print(w io.Writer) error {
	if len(t.rows) == 0 {
		return nil
	}
	var text strings.Builder
	text.WriteString("| what | median | least – most | ratio | to reach | | others' CPU |\n|---|---|---|---|---|---|---|\n")
	for _, name := range append(slices.Clone(t.extra), order...) {
		if len(t.rows[name]) > 0 {
			text.WriteString(line(name, t.rows[name]))
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// line is a row of the table.
func line(name string, samples []sample) string {
	g := goals[name]
	var values, ratios, shares []float64
	for _, s := range samples {
		values = append(values, s.value)
		if s.base > 0 {
			ratios = append(ratios, s.value/s.base)
		}
		if s.metered {
			shares = append(shares, s.foreign)
		}
	}
	amount := seconds
	if g.mib {
		amount = func(v float64) string { return fmt.Sprintf("%.0f MiB", v) }
	}
	m := median(values)
	var reach []string
	holds := true
	if g.most > 0 {
		reach = append(reach, "≤ "+amount(g.most))
		holds = m <= g.most
	}
	ratio, share := "", ""
	if g.ratio > 0 {
		reach = append(reach, fmt.Sprintf("≤ %.2f × %s", g.ratio, shortNames[g.base]))
	}
	if len(ratios) > 0 {
		r := median(ratios)
		ratio = fmt.Sprintf("%.2f × %s (%.2f – %.2f)", r, shortNames[g.base], slices.Min(ratios), slices.Max(ratios))
		holds = holds && (g.ratio == 0 || r <= g.ratio)
	}
	verdict := ""
	switch {
	case len(reach) == 0 || g.ratio > 0 && len(ratios) == 0:
	case holds:
		verdict = "reached"
	default:
		verdict = "missed"
	}
	if len(shares) > 0 {
		share = fmt.Sprintf("%.0f %%", 100*median(shares))
	}
	return fmt.Sprintf("| %s | %s | %s – %s | %s | %s | %s | %s |\n",
		name, amount(m), amount(slices.Min(values)), amount(slices.Max(values)), ratio, strings.Join(reach, ", "), verdict, share)
}

// median is the middle of some values, the upper one of two.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// seconds is a time for people.
func seconds(s float64) string {
	switch {
	case s < 1:
		return fmt.Sprintf("%.0f ms", 1000*s)
	case s < 100:
		return fmt.Sprintf("%.2f s", s)
	}
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
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
	took := time.Since(began).Seconds()
	stop()
	<-watched
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
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
	share := foreign.Seconds() / took / float64(runtime.NumCPU())
	b.say("    %s, others took %.0f %% of the CPU", seconds(took), 100*share)
	b.table.add(name, sample{value: took, foreign: share, metered: true})
	return nil
}

// document writes the page.
func (b *bench) document(ctx context.Context, path string) error {
	version, err := b.run.Run(ctx, command.New(b.binary, "version"))
	if err != nil {
		return err
	}
	engine, err := b.run.Run(ctx, command.New("docker", "version", "--format", "{{.Server.Version}}"))
	if err != nil {
		return err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, `# How long the loop takes

Written by `+"`make bench-loop`"+` on %s: %d cores, Linux %s, Docker %s, %s. Medians of %d rounds, of which each
measures every row once, and the program's start %d times; `+"`trace`"+` is measured as often in the last round alone.

A ratio is to another row of the same round, and its own median counts. kind's cluster is made by kind's program from the same node
image, with kubeadm's defaults and without what our image does to start faster: kind's own entrypoint, and a network that is set up
when the node has its range. It ends when the node is ready; `+"`up`"+` when an order is paid. *others' CPU* is the share of the machine
that neither the product nor the engine nor the cluster took: a time counts as far as that is small. Memory is of platformctl's own
process at its largest, the program's file included. The change is in a package that order-api links. Before the rounds it was
made sure that `+"`down --no-snapshot`"+` without a terminal ends with exit code 2 and deletes nothing.

`, time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), bytes.TrimSpace(kernel), bytes.TrimSpace(engine), bytes.TrimSpace(version), b.rounds, starts)
	if err := b.table.print(&page); err != nil {
		return err
	}
	return os.WriteFile(path, page.Bytes(), 0o644)
}
