package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/platform"
	"platformctl/pkg/proof"
	"platformctl/pkg/terminal"
)

type benchFlags struct {
	clients          int
	rate             float64
	duration, settle time.Duration
	orders           int64
	show, qty        string
	keep             bool
	history          string
	out              output
}

func newBench(e *env) *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Put load on the platform, measure it, and verify afterwards",
		Long: `bench places orders at the platform's API, on this machine's loopback alone, and
measures. Each client orders again when it has its answer; with --rate orders
are due at fixed times, and a latency counts from then on, however late the
order was sent. Afterwards it waits for the last order to end and verifies: exit
code 5 if an invariant is broken, and 1 if no order was accepted.

It makes a show of its own, and deletes that with its orders when all is done;
after an interrupt, or where something is broken, they stay. With --show the
orders go there, take its seats, and stay.

With --history each order has an idempotency key, and the file gets a line for
each question and each answer (docs/history.md); the show and the orders stay,
so that "verify --history" can hold them against it later, too.`,
		Example:     "  platformctl bench --duration 10s\n  platformctl bench --rate 500 --duration 30s -o json",
		Args:        noArgs,
		Annotations: map[string]string{annotationRerun: "what was placed goes on without you and stays, and so does the show that was made for it"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVar(&f.clients, "clients", 64, "`number` of connections")
	flags.Float64Var(&f.rate, "rate", 0, "orders a `second`; 0 as many as the clients can")
	flags.DurationVar(&f.duration, "duration", 10*time.Second, "how `long` orders are placed")
	flags.Int64Var(&f.orders, "orders", 0, "at most so `many`; 0 is no bound")
	flags.StringVar(&f.show, "show", "", "`number` of a show to take, instead of its own")
	flags.StringVar(&f.qty, "qty", "1", "`number` of seats of each order")
	flags.DurationVar(&f.settle, "quiet-time", time.Minute, "`time` that the orders may take to end")
	flags.StringVar(&f.history, "history", "", "append what is asked and answered to this `file`")
	flags.BoolVar(&f.keep, "keep", false, "the show and its orders stay")
	f.out.add(flags)
	return cmd
}

// Bounds of a bench: it shares the machine with what it measures.
const (
	mostClients  = 10_000 // order-api has 12,000 connections
	mostDuration = time.Hour
)

// load is what the flags ask for, or the usage error.
func (f benchFlags) load(line func(string) string) (l proof.Load, err error) {
	l = proof.Load{Clients: f.clients, Rate: f.rate, Duration: f.duration, Orders: f.orders}
	if f.show != "" {
		if l.Show, err = count("--show", f.show, line("shows")+"   # lists them"); err != nil {
			return l, err
		}
	}
	if l.Quantity, err = count("--qty", f.qty, line("bench --qty 1")); err != nil {
		return l, err
	}
	switch {
	case f.clients < 1 || f.clients > mostClients:
		return l, fault.Usage("--clients 64", "--clients takes a number from 1 to %d, not %d", mostClients, f.clients)
	case !(f.rate >= 0) || math.IsInf(f.rate, 0):
		return l, fault.Usage("--rate 500", "--rate takes a number of orders a second, not %v", f.rate)
	case f.duration <= 0 || f.duration > mostDuration:
		return l, fault.Usage("--duration 10s", "--duration is more than nothing and at most %s", terminal.Duration(mostDuration))
	case f.orders < 0:
		return l, fault.Usage("--orders 1000", "--orders %d is less than nothing", f.orders)
	case f.settle < 0:
		return l, fault.Usage("--quiet-time 1m", "--quiet-time %s is less than nothing", f.settle)
	}
	return l, nil
}

func (f benchFlags) run(ctx context.Context, e *env) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	load, err := f.load(e.line)
	if err != nil {
		return err
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	api, err := p.API(ctx)
	if err != nil {
		return err
	}
	client, err := p.Kube(ctx)
	if err != nil {
		return err
	}
	load.Address = strings.TrimPrefix(api, "http://")
	shares, err := shares(ctx, client, load.Address)
	if err != nil {
		return err
	}
	read, database, err := proven(client)
	if err != nil {
		return err
	}
	bench := proof.Bench{
		Platform: read, Database: database, Load: load, Settle: f.settle, Keep: f.keep, Say: e.ui().Say,
		Meter: proof.Meter{Shares: shares, Proc: "/proc"},
	}
	if f.history != "" {
		file, err := appendTo(f.history)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // each line is with the system; what the disk does not take is an error of writing it
		bench.Load.History = proof.Record(file)
		bench.Told = func() (*proof.History, error) { return history(f.history) }
	}
	result, err := bench.Run(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(e.Out, result)
	} else {
		err = printBench(e.Out, result)
	}
	if err = errors.Join(err, result.Stays, broken(e, result.Report)); err == nil && result.Answers.Accepted.Count == 0 {
		err = fault.New(fault.CodeFailed, e.line("status")+"\n"+e.line("shows"), "no order was accepted")
	}
	return err
}

// shares tells the platform's processes by the uids of their pods, which stand in the names of their cgroups. What else runs
// in the same node is Kubernetes' own; the published port is a process of the engine's.
func shares(ctx context.Context, client *kube.Client, address string) ([]proof.Share, error) {
	var all []proof.Share
	var uids []string
	for _, s := range platform.Services() {
		pods, err := client.Pods(ctx, s.Namespace, "app.kubernetes.io/instance="+s.Release)
		if err != nil {
			return nil, err
		}
		var own []string
		for _, pod := range pods {
			own = append(own, pod.UID, strings.ReplaceAll(pod.UID, "-", "_")) // by cgroupfs, and by systemd
		}
		uids = append(uids, own...)
		all = append(all, proof.Share{Name: s.Name, Has: func(p proof.Process) bool { return containsAny(p.Cgroup, own) }})
	}
	node := ""
	port := address[strings.LastIndex(address, ":")+1:]
	return append(all,
		proof.Share{Name: "client", Has: func(p proof.Process) bool { return p.PID == os.Getpid() }},
		proof.Share{Name: "port", Has: func(p proof.Process) bool {
			return p.Name == "docker-proxy" && strings.Contains(p.Args+" ", "-host-port "+port+" ")
		}},
		proof.Share{Name: "kubernetes", Has: func(p proof.Process) bool {
			if node == "" {
				node = nodeOf(uids)
			}
			return node != "" && strings.Contains(p.Cgroup, node)
		}}), nil
}

// nodeOf is the part of a cgroup's name by which the node's container is known, that of a process of one of the pods; "" where
// none is seen.
func nodeOf(uids []string) string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return ""
	}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		raw, err := os.ReadFile("/proc/" + entry.Name() + "/cgroup")
		if err != nil || !containsAny(string(raw), uids) {
			continue
		}
		before, _, _ := strings.Cut(string(raw), "/kubelet")
		if _, path, ok := strings.Cut(before, ":/"); ok && path != "" {
			return "/" + path + "/"
		}
	}
	return ""
}

func containsAny(text string, parts []string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
}

func printBench(w io.Writer, r proof.BenchResult) error {
	a := r.Answers
	how := fmt.Sprintf("%s, each orders again when answered", plural(r.Clients, "client"))
	if r.Rate > 0 {
		how = fmt.Sprintf("%v orders a second due, %s", r.Rate, plural(r.Clients, "client"))
	}
	lines := [][2]string{
		{"Load", fmt.Sprintf("%s, for %s", how, terminal.Duration(r.Duration))},
		{"Accepted", fmt.Sprintf("%d, %.0f/s", a.Accepted.Count, a.PerSecond())},
	}
	if a.Accepted.Count > 0 {
		lines = append(lines, [2]string{"Answered", milliseconds(a.Accepted)})
	}
	if a.Others.Count > 0 {
		var others []string
		for _, status := range slices.Sorted(maps.Keys(a.Statuses)) {
			others = append(others, fmt.Sprintf("%d × %d", a.Statuses[status], status))
		}
		lines = append(lines, [2]string{"Answers", strings.Join(others, ", ")}, [2]string{"Refused", milliseconds(a.Others)})
	}
	if a.Unsent > 0 {
		lines = append(lines, [2]string{"Unsent", fmt.Sprintf("%d were due, and had no client yet some time after the end", a.Unsent)})
	}
	for _, why := range slices.Sorted(maps.Keys(a.Failures)) {
		lines = append(lines, [2]string{"Failed", fmt.Sprintf("%d × %s", a.Failures[why], why)})
	}
	lines = append(lines, [2]string{"Ended", fmt.Sprintf("%d of %d, %.0f/s, %d after the load; taken → ended p50 %.1f ms, p99 %.1f ms",
		r.Ends.Ended, r.Ends.Orders, r.Ends.PerSecond, r.Ends.Unsettled, r.Ends.P50, r.Ends.P99)})
	if r.CPU == nil {
		lines = append(lines, [2]string{"CPU", "not known on this machine"})
	} else {
		var parts []string
		for _, s := range r.CPU.Shares {
			parts = append(parts, fmt.Sprintf("%s %.2f", s.Name, s.Cores))
		}
		lines = append(lines, [2]string{"CPU", fmt.Sprintf("%s; foreign %.2f; of %s", strings.Join(parts, ", "), r.CPU.Foreign, plural(r.CPU.Cores, "core"))})
	}
	for _, l := range lines {
		if _, err := fmt.Fprintf(w, "%-10s%s\n", l[0]+":", l[1]); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	return printReport(w, r.Report)
}

func milliseconds(l proof.Latency) string {
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, p99.9 %.1f ms, slowest %.1f ms", l.P50, l.P99, l.P999, l.Max)
}
