package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/chaos"
	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/platform"
	"platformctl/pkg/proof"
	"platformctl/pkg/terminal"
)

type chaosFlags struct {
	seed            string
	duration, quiet time.Duration
	faults, history string
	rate            float64
	clients         int
	plan            bool
	out             output
}

func newChaos(e *env) *cobra.Command {
	var f chaosFlags
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Hurt the platform by a plan, heal it, and verify",
		Long: `chaos draws a plan of faults from a seed and prints it: the same seed, duration
and kinds are the same plan. Then it places orders, on a show of its own, makes
one fault after another, heals each, and waits until an order goes its way again.
At the end it waits for the last order, and verifies: exit code 5 if an invariant
is broken. What clients were told is kept, as "bench --history" does it.

  kill         SIGKILL to any process of a pod
  freeze       SIGSTOP for 5 seconds and more
  unconfirmed  the broker killed with 100 publishes that it has not confirmed
  partition    packets dropped, one way or both, those of live connections too
  reset        live connections reset
  duplicates   stored messages published again, shuffled
  poison       messages that can never be handled; they stay dead letters
  alarm        the broker short of memory, or of disk, by its own opinion
  lapse        holds that run out while the payments stand still
  deploy       a service's pods replaced
  drain        a service's pods evicted
  node         the node killed and started
  gap          a service that ends between two things that cannot happen at once,
               such as COMMIT and publish; only where "deploy --failpoints" was,
               and where it is asked for: --faults gap, or --faults all
  full         PostgreSQL's disk full; only where that is a part of the memory, and
               where it is asked for: --faults full

Only a cluster that platformctl made is hurt. Ctrl-C heals what was begun; after
a kill the next command does.`,
		Example:     "  platformctl chaos --plan --seed 7\n  platformctl chaos --seed 7 --duration 10m --faults kill,partition",
		Args:        noArgs,
		Annotations: map[string]string{annotationRerun: "verify   # the faults are healed; the show named bench stays, with its orders"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.seed, "seed", "", "`number` that the plan is drawn from (default: a new one)")
	flags.DurationVar(&f.duration, "duration", time.Minute, "how `long`; faults that take longer make it longer")
	flags.StringVar(&f.faults, "faults", "", "`kinds` of faults, with commas between (default: all but gap and full)")
	flags.BoolVar(&f.plan, "plan", false, "print the plan, and do nothing")
	flags.Float64Var(&f.rate, "rate", 100, "orders a `second`")
	flags.IntVar(&f.clients, "clients", 32, "`number` of connections")
	flags.DurationVar(&f.quiet, "quiet-time", time.Minute, "`time` that the orders may take to end")
	flags.StringVar(&f.history, "history", "", "append the clients' history to this `file`; show and orders stay")
	f.out.add(flags)
	return cmd
}

// drawn is the plan that the flags ask for, or the usage error.
func (f chaosFlags) drawn() (chaos.Plan, error) {
	kinds, err := chaos.ParseKinds(f.faults)
	if err != nil {
		var known []string
		for _, k := range chaos.Kinds() {
			known = append(known, string(k))
		}
		return chaos.Plan{}, fault.Usage("--faults "+strings.Join(known, ","), "%w", err)
	}
	if f.duration < chaos.Shortest || f.duration > mostDuration {
		return chaos.Plan{}, fault.Usage("--duration 1m", "--duration is from %s to %s", terminal.Duration(chaos.Shortest), terminal.Duration(mostDuration))
	}
	switch {
	case !(f.rate > 0) || f.rate > 10_000:
		return chaos.Plan{}, fault.Usage("--rate 100", "--rate takes a number of orders a second, not %v", f.rate)
	case f.clients < 1 || f.clients > mostClients:
		return chaos.Plan{}, fault.Usage("--clients 32", "--clients takes a number from 1 to %d, not %d", mostClients, f.clients)
	case f.quiet < 0:
		return chaos.Plan{}, fault.Usage("--quiet-time 1m", "--quiet-time %s is less than nothing", f.quiet)
	}
	seed, err := seedOf(f.seed)
	if err != nil {
		return chaos.Plan{}, err
	}
	return chaos.Draw(seed, f.duration, kinds)
}

// seedOf is a seed as the user gave it, or a new one of few digits, so that it is easily typed again.
func seedOf(text string) (uint64, error) {
	if text == "" {
		var raw [8]byte
		if _, err := rand.Read(raw[:]); err != nil {
			return 0, err
		}
		return binary.LittleEndian.Uint64(raw[:]) % 1_000_000, nil
	}
	var seed uint64
	if n, err := fmt.Sscanf(text+"\n", "%d\n", &seed); err != nil || n != 1 {
		return 0, fault.Usage("--seed 7", "--seed takes a number, not %q", text)
	}
	return seed, nil
}

func (f chaosFlags) run(ctx context.Context, e *env) (err error) {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	plan, err := f.drawn()
	if err != nil {
		return err
	}
	if f.plan {
		if asJSON {
			return printJSON(e.Out, plan)
		}
		_, err := io.WriteString(e.Out, plan.String())
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
	release, err := p.Hold(ctx, e.ui().Event)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	client, err := p.Kube(ctx)
	if err != nil {
		return err
	}
	read, database, err := proven(client)
	if err != nil {
		return err
	}
	messages, err := messagesOf(ctx, client)
	if err != nil {
		return err
	}
	journal, _, err := chaos.OpenJournal(p.Faults()) // what a killed one left was healed before this command began
	if err != nil {
		return fault.New(fault.CodeFailed, "wait until it is done", "%w", err)
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	record, told, done, err := f.record()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	world := chaos.World{Hands: hands(p), Database: database, Messages: messages, Record: record}
	if err := world.Can(ctx, plan); err != nil {
		return err
	}
	if world.Show, err = proof.NewShow(ctx, database); err != nil {
		return err
	}
	e.ui().Say(strings.TrimSpace(plan.String()))
	result, err := chaos.Chaos{
		Plan: plan, Journal: journal, Platform: read, Told: told, Quiet: f.quiet, Waiting: e.onTheWay,
		World:  world,
		Load:   proof.Load{Address: strings.TrimPrefix(api, "http://"), Quantity: 1, Clients: f.clients, Rate: f.rate},
		Struck: func(o chaos.Outcome) { e.ui().Say(struck(o)) },
	}.Run(ctx)
	if err != nil {
		return err
	}
	if f.history == "" && result.Report.Holds {
		if err := proof.DropShow(ctx, database, world.Show); err != nil {
			return err
		}
	}
	if asJSON {
		err = printJSON(e.Out, result)
	} else {
		err = printChaos(e.Out, result)
	}
	return errors.Join(err, broken(e, result.Report))
}

// record begins the clients' history, in the user's file or one that goes again.
func (f chaosFlags) record() (r *proof.Recorder, told func() (*proof.History, error), done func() error, err error) {
	var file *os.File
	if f.history == "" {
		if file, err = os.CreateTemp("", "platformctl-chaos-"); err != nil {
			err = fmt.Errorf("write the client history: %w", err)
		}
	} else {
		file, err = appendTo(f.history)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	done = func() error {
		err := file.Close()
		if f.history == "" {
			err = errors.Join(err, os.Remove(file.Name()))
		}
		return err
	}
	return proof.Record(file), func() (*proof.History, error) { return history(file.Name()) }, done, nil
}

// hands reach into the node of a platform.
func hands(p thePlatform) chaos.Hands {
	return chaos.Hands{Shell: p.Shell, Engine: p.Engine, Node: p.Node()}
}

// messagesOf is a client of the platform's broker, through the API server.
func messagesOf(ctx context.Context, client *kube.Client) (chaos.Messages, error) {
	s, err := platform.FindService("rabbitmq")
	if err != nil {
		return chaos.Messages{}, err
	}
	const secret = "rabbitmq-credentials-apps"
	data, err := client.Secret(ctx, platform.NamespaceApps, secret)
	if err != nil {
		return chaos.Messages{}, err
	}
	user, password := string(data["RABBITMQ_USERNAME"]), string(data["RABBITMQ_PASSWORD"])
	if user == "" || password == "" {
		return chaos.Messages{}, fault.New(fault.CodeFailed, "platformctl up", "Secret %s/%s has no user and password of the broker", platform.NamespaceApps, secret)
	}
	at := url.URL{Scheme: "amqp", User: url.UserPassword(user, password), Host: "127.0.0.1", Path: "/"}
	return chaos.Messages{URL: at.String(), Exchange: "events.topic", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return client.Dial(ctx, s.Namespace, s.Workload+"-0", s.Ports[0].Number)
	}}, nil
}

// healLeft heals what a killed chaos left in the cluster. A cluster that cannot be healed now, for it does not run, is left to
// the next command.
func (e *env) healLeft(ctx context.Context) error {
	_, state, err := folders(e.Getenv)
	if err != nil {
		return nil // whoever needs them says so
	}
	if info, err := os.Stat(platform.FaultsFile(state, e.cluster)); err != nil || info.Size() == 0 {
		return nil // nearly always
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	if err := chaos.HealLeft(ctx, p.Faults(), hands(p), func(f chaos.Fault) {
		e.ui().Say("healing what a killed chaos left: " + f.String())
	}); err != nil && ctx.Err() == nil {
		e.ui().Say(err.Error())
	}
	return ctx.Err()
}

// struck is a line on a fault that was recovered from.
func struck(o chaos.Outcome) string {
	seen := o.Seen
	if seen == "" {
		seen = "nothing was seen of it"
	}
	return fmt.Sprintf("%3d  %s: %s; recovered in %s, %d accepted", o.N, o.Fault, seen, terminal.Duration(o.Recovered), o.Accepted)
}

func printChaos(w io.Writer, r chaos.Result) error {
	type sum struct {
		faults, unseen int
		accepted       int64
		slowest        chaos.Outcome
	}
	kinds := map[chaos.Kind]*sum{}
	var slowest chaos.Outcome
	for _, o := range r.Outcomes {
		s := kinds[o.Kind]
		if s == nil {
			s = &sum{}
			kinds[o.Kind] = s
		}
		s.faults++
		s.accepted += o.Accepted
		if o.Seen == "" {
			s.unseen++
		}
		if o.Recovered >= s.slowest.Recovered {
			s.slowest = o
		}
		if o.Recovered >= slowest.Recovered {
			slowest = o
		}
	}
	var rows [][]string
	for _, kind := range chaos.Kinds() {
		if s := kinds[kind]; s != nil {
			rows = append(rows, []string{
				string(kind), fmt.Sprint(s.faults), fmt.Sprint(s.unseen), fmt.Sprint(s.accepted), terminal.Duration(s.slowest.Recovered), fmt.Sprintf("%d, %s", s.slowest.N, s.slowest.Target),
			})
		}
	}
	if err := terminal.Table(w, []string{"FAULT", "MADE", "UNSEEN", "ACCEPTED MEANWHILE", "SLOWEST RECOVERY", "OF"}, rows); err != nil {
		return err
	}
	var ends []string
	for _, status := range slices.Sorted(maps.Keys(r.Ends)) {
		ends = append(ends, fmt.Sprintf("%d %s", r.Ends[status], status))
	}
	_, err := fmt.Fprintf(w, `
Seed:     %d; %s in %s
Orders:   %s; %d never told
POST p99: %s, %s
Slowest:  %s, of fault %d, %s

`, r.Plan.Seed, plural(len(r.Outcomes), "fault"), terminal.Duration(r.Lasted), strings.Join(ends, ", "), r.Doubt,
		calm(r.Calm.BeforeP99, r.Calm.Before, "before the first fault"), calm(r.Calm.BetweenP99, r.Calm.Between, "between faults"),
		terminal.Duration(slowest.Recovered), slowest.N, slowest.Fault)
	if err != nil {
		return err
	}
	return printReport(w, r.Report)
}

// calm tells of a time without faults. Where each fault begins as soon as the one before is over, there is none between them.
func calm(p99 float64, orders int, when string) string {
	if orders == 0 {
		return "no calm time " + when
	}
	return fmt.Sprintf("%.1f ms of %d %s", p99, orders, when)
}
