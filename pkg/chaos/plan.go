// Package chaos does to a platform what happens to platforms, on purpose and by a plan: faults under load, each healed, and
// then verify. What it does is a pure function of a seed (plan.go); how it is done and undone is in faults.go; what was begun
// and not healed is in a journal, so that whoever comes after a kill heals it (journal.go).
package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"platformctl/pkg/failpoint"
)

// Kind is a kind of fault.
type Kind string

// The kinds.
const (
	Kill        Kind = "kill"        // SIGKILL
	Freeze      Kind = "freeze"      // SIGSTOP, and SIGCONT later
	Unconfirmed Kind = "unconfirmed" // the broker is killed with more than a hundred publishes that it has not confirmed
	Partition   Kind = "partition"   // packets are dropped, those of live connections too
	Reset       Kind = "reset"       // live connections are reset
	Duplicates  Kind = "duplicates"  // stored messages are published again, shuffled
	Poison      Kind = "poison"      // messages that can never be handled
	Alarm       Kind = "alarm"       // the broker takes nothing, for it believes that memory or disk are short
	Lapse       Kind = "lapse"       // holds run out while the payments stand still
	Deploy      Kind = "deploy"      // a service's pods are replaced
	Drain       Kind = "drain"       // a service's pods are evicted, and the node takes no new ones
	Node        Kind = "node"        // the node is killed, and started again
	Gap         Kind = "gap"         // a service ends between two things that cannot happen at once; wants one with failpoints
	Full        Kind = "full"        // PostgreSQL's disk is full; wants one that is a part of the memory
)

// What a fault hits.
const (
	orderAPI   = "order-api"
	payment    = "payment-service"
	broker     = "rabbitmq"
	postmaster = "postgresql"
	backend    = "postgresql-backend" // one that serves order-api
)

// Fault is one of a plan.
type Fault struct {
	N      int           `json:"n"` // from 1
	Kind   Kind          `json:"kind"`
	Target string        `json:"target"`
	At     time.Duration `json:"atNanoseconds"`  // of the load, at the earliest: nothing begins before the fault before has been recovered from
	For    time.Duration `json:"forNanoseconds"` // how long it lasts; 0: it is over when it is done
}

// Plan is what chaos is going to do.
type Plan struct {
	Seed     uint64        `json:"seed"`
	Duration time.Duration `json:"durationNanoseconds"`
	Faults   []Fault       `json:"faults"`
}

// sort is a kind with all that it can hit, and how long it lasts.
type sort struct {
	kind        Kind
	targets     []string
	least, most time.Duration
}

// sorts are all there are.
func sorts() []sort {
	services := []string{orderAPI, payment}
	between := func(ends ...string) (targets []string) {
		for _, far := range []string{"database", "messaging"} {
			for _, way := range ends {
				targets = append(targets, "apps"+way+far)
			}
		}
		return targets
	}
	return []sort{
		{Kill, []string{orderAPI, payment, broker, postmaster, backend}, 0, 0},
		{Freeze, []string{orderAPI, payment, broker, postmaster, backend}, 5 * time.Second, 60 * time.Second},
		{Unconfirmed, []string{broker}, 0, 0},
		{Partition, between("→", "←", "↔"), 5 * time.Second, 20 * time.Second},
		{Reset, between("↔"), time.Second, 2 * time.Second},
		{Duplicates, []string{broker}, 3 * time.Second, 5 * time.Second},
		{Poison, []string{broker}, 0, 0},
		{Alarm, []string{"memory", "disk"}, 10 * time.Second, 15 * time.Second},
		{Lapse, []string{payment}, 3 * time.Second, 5 * time.Second},
		{Deploy, services, 0, 0},
		{Drain, services, 3 * time.Second, 10 * time.Second},
		{Node, []string{"control-plane"}, time.Second, 5 * time.Second},
		{Gap, gaps(services), 0, 0},
		{Full, []string{postmaster}, 5 * time.Second, 15 * time.Second},
	}
}

// gaps are all of each service, "order-api/committed".
func gaps(services []string) (all []string) {
	for _, service := range services {
		for _, gap := range failpoint.Gaps() {
			all = append(all, service+"/"+string(gap))
		}
	}
	return all
}

// Kinds lists all kinds.
func Kinds() (all []Kind) {
	for _, s := range sorts() {
		all = append(all, s.kind)
	}
	return all
}

// ParseKinds reads names with commas between them; "" is those that every platform can be done, and "all" is them and gap. The
// error names the known ones.
func ParseKinds(names string) ([]Kind, error) {
	switch names {
	case "":
		return slices.DeleteFunc(Kinds(), func(k Kind) bool { return k == Gap || k == Full }), nil
	case "all":
		return slices.DeleteFunc(Kinds(), func(k Kind) bool { return k == Full }), nil
	}
	var kinds []Kind
	for name := range strings.SplitSeq(names, ",") {
		kind := Kind(strings.TrimSpace(name))
		if !slices.Contains(Kinds(), kind) {
			return nil, fmt.Errorf("there is no kind of fault %q", name)
		}
		if !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds, nil
}

const (
	often  = 5 * time.Second  // between the beginnings of two faults, where there is little time
	seldom = 15 * time.Second // and where there is enough
	enough = 12               // faults, before they become seldom
)

// Shortest is the shortest duration that has room for a fault.
const Shortest = often

// Draw is the plan of a seed: the same for the same seed, duration and kinds. Every kind is hit once before any is hit again,
// and every target of a kind likewise.
func Draw(seed uint64, duration time.Duration, kinds []Kind) (Plan, error) {
	if duration < Shortest || len(kinds) == 0 {
		return Plan{}, errors.New("there is no room for a fault")
	}
	draw := rand.New(rand.NewPCG(seed, 0))
	n := max(min(enough, int(duration/often)), int(duration/seldom))
	slot := duration / time.Duration(n)
	var deck []sort
	for _, s := range sorts() {
		if slices.Contains(kinds, s.kind) {
			deck = append(deck, s)
		}
	}
	next := map[Kind][]string{} // what is left of each kind's targets
	plan := Plan{Seed: seed, Duration: duration}
	for i := range n {
		if i%len(deck) == 0 {
			draw.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		s := deck[i%len(deck)]
		if len(next[s.kind]) == 0 {
			next[s.kind] = slices.Clone(s.targets)
			draw.Shuffle(len(s.targets), func(i, j int) {
				next[s.kind][i], next[s.kind][j] = next[s.kind][j], next[s.kind][i]
			})
		}
		f := Fault{N: i + 1, Kind: s.kind, Target: next[s.kind][0]}
		next[s.kind] = next[s.kind][1:]
		// The first fault finds a platform that has been at work for a while.
		f.At = (time.Duration(i)*slot + slot/4 + rounded(draw, slot/4)).Truncate(100 * time.Millisecond)
		f.For = s.least
		if most := min(s.most, max(s.least, 4*slot)); most > s.least {
			f.For += rounded(draw, most-s.least)
		}
		plan.Faults = append(plan.Faults, f)
	}
	return plan, nil
}

// rounded is a duration below most, in tenths of a second.
func rounded(draw *rand.Rand, most time.Duration) time.Duration {
	const unit = 100 * time.Millisecond
	return time.Duration(draw.Int64N(max(1, int64(most/unit)))) * unit
}

// String is what the fault does, for people.
func (f Fault) String() string {
	text := fmt.Sprintf("%s %s", f.Kind, f.Target)
	if f.For > 0 {
		text += " for " + f.For.String()
	}
	return text
}

// String is the whole plan, a line a fault.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %s, %d faults\n", p.Seed, p.Duration, len(p.Faults))
	for _, f := range p.Faults {
		fmt.Fprintf(&b, "%3d  %7.1fs  %s\n", f.N, f.At.Seconds(), f)
	}
	return b.String()
}
