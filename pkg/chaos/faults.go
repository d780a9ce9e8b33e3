package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"platformctl/pkg/failpoint"
	"platformctl/pkg/fault"
	"platformctl/pkg/proof"
)

// Hands reach into a cluster's one node.
type Hands struct {
	// Shell runs a script in the node, by sh, and returns what it printed.
	Shell func(ctx context.Context, script string) ([]byte, error)
	// Engine runs docker; the node's container is called Node.
	Engine func(ctx context.Context, argv ...string) error
	Node   string
}

// World is what faults are made in.
type World struct {
	Hands
	Database proof.Owner
	Messages Messages
	Record   *proof.Recorder
	Show     int64 // whose holds may be made to lapse
}

// processes is how the node finds a target's processes.
func processes(target string) string {
	switch target {
	case broker:
		return "pgrep -x beam.smp"
	case postmaster:
		return "pgrep -o -x postgres" // the oldest
	case backend:
		return "pgrep -f '^postgres: order_api ' | head -n 1"
	}
	return "pgrep -x " + target
}

// signal sends a signal to a target's processes; that there are none is an error.
func (h Hands) signal(ctx context.Context, name, target string) error {
	_, err := h.Shell(ctx, fmt.Sprintf(`pids=$(%s) && [ -n "$pids" ] && kill -%s $pids`, processes(target), name))
	if err != nil {
		return fmt.Errorf("send SIG%s to %s: %w", name, target, err)
	}
	return nil
}

const (
	kubectl   = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
	rabbit    = kubectl + " exec -n messaging rabbitmq-0 -- rabbitmqctl --silent "
	table     = "platformctl_chaos" // of nft, in the node
	crowd     = 101                 // unconfirmed publishes, at least
	patience  = 20 * time.Second    // for what a fault waits for before it strikes
	lookAgain = 200 * time.Millisecond
)

// outage tells whether a fault keeps the broker away from the services.
func (f Fault) outage() bool {
	switch f.Kind {
	case Unconfirmed, Alarm:
		return true
	case Kill, Freeze:
		return f.Target == broker
	case Partition:
		return strings.HasSuffix(f.Target, "messaging")
	}
	return false
}

// strike makes a fault and returns when it has lasted as long as it should; it is not healed then. seen is what shows that it
// took effect: "" where nothing does.
func (w World) strike(ctx context.Context, f Fault, draw *rand.Rand) (seen string, err error) {
	switch f.Kind {
	case Kill:
		return "gone", w.signal(ctx, "KILL", f.Target)
	case Freeze:
		return w.frozen(ctx, f)
	case Unconfirmed:
		return w.unconfirmed(ctx, f)
	case Partition:
		return w.packets(ctx, f, "drop")
	case Reset:
		return w.packets(ctx, f, "reject with tcp reset")
	case Duplicates:
		return w.again(ctx, f, draw)
	case Poison:
		n, err := w.Messages.Poison(ctx, func(id string) { w.Record.Published(id, proof.AsPoison) })
		return fmt.Sprintf("%d messages", n), err
	case Alarm:
		return w.alarm(ctx, f)
	case Lapse:
		return w.lapse(ctx, f)
	case Deploy:
		name, _ := deployment(f.Target)
		_, err := w.Shell(ctx, kubectl+" rollout restart -n apps "+name+" && "+kubectl+" rollout status -n apps --timeout 120s "+name)
		return "replaced", err
	case Drain:
		return w.drain(ctx, f)
	case Gap:
		return w.gap(ctx, f)
	case Full:
		return w.full(ctx, f)
	case Node:
		if err := w.Engine(ctx, "kill", w.Node); err != nil {
			return "", err
		}
		return "killed", wait(ctx, f.For)
	}
	return "", fmt.Errorf("nothing is known of the fault %q", f.Kind)
}

// heal undoes a fault, whatever of it was done; where nothing was, or it is healed already, it does nothing.
func (h Hands) heal(ctx context.Context, f Fault) error {
	script := ""
	switch f.Kind {
	case Kill, Unconfirmed, Deploy, Duplicates, Poison, Gap:
		if f.Kind == Unconfirmed { // it is frozen before it is killed
			script = "pkill -CONT -x beam.smp || true"
		}
	case Freeze, Lapse:
		script = "for name in order-api payment-service beam.smp postgres; do pkill -CONT -x $name; done; true"
	case Partition, Reset:
		script = "nft add table ip " + table + " && nft delete table ip " + table
	case Alarm:
		if script = rabbit + "set_vm_memory_high_watermark 0.6"; f.Target == "disk" {
			script = rabbit + "set_disk_free_limit 512MB"
		}
	case Drain:
		script = kubectl + " uncordon " + h.Node
	case Full:
		script = "rm -f " + volumes("*") + "/" + filling
	case Node:
		if err := h.Engine(ctx, "start", h.Node); err != nil {
			return err
		}
	}
	if script == "" {
		return nil
	}
	if _, err := h.Shell(ctx, script); err != nil {
		return fmt.Errorf("heal %s: %w", f, err)
	}
	return nil
}

func (w World) frozen(ctx context.Context, f Fault) (string, error) {
	if err := w.signal(ctx, "STOP", f.Target); err != nil {
		return "", err
	}
	return "stopped", wait(ctx, f.For)
}

// unconfirmed freezes the broker, so that it confirms nothing, and kills it when enough waits for that.
func (w World) unconfirmed(ctx context.Context, f Fault) (string, error) {
	if err := w.signal(ctx, "STOP", f.Target); err != nil {
		return "", err
	}
	n, err := w.atLeast(ctx, crowd, "SELECT count(*) FROM outbox")
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("%d unconfirmed", n)
	if n < crowd {
		seen = ""
	}
	return seen, w.signal(ctx, "KILL", f.Target)
}

// atLeast asks until a statement's number is large enough, or its time is over, and returns the last.
func (w World) atLeast(ctx context.Context, least int, statement string) (n int, err error) {
	over := time.Now().Add(patience)
	for {
		raw, err := w.Database.JSON(ctx, statement)
		if err != nil {
			return n, err
		}
		if n, err = strconv.Atoi(string(raw)); err != nil {
			return n, err
		}
		if n >= least || time.Now().After(over) {
			return n, nil
		}
		if err := wait(ctx, lookAgain); err != nil {
			return n, err
		}
	}
}

// rules are those by which the node does verdict to packets between the apps and another namespace, as the target's arrow points.
// Of live connections they are counted.
func rules(target, verdict string) string {
	far := strings.TrimLeft(strings.TrimPrefix(target, "apps"), "→←↔")
	there, back := "ip saddr { $apps } ip daddr { $far }", "ip saddr { $far } ip daddr { $apps }"
	ways := []string{there, back}
	switch {
	case strings.Contains(target, "→"):
		ways = ways[:1]
	case strings.Contains(target, "←"):
		ways = ways[1:]
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ips() { %s get pods -n $1 -o jsonpath='{range .items[*]}{.status.podIP}{\",\"}{end}' | sed 's/,,*/,/g; s/^,//; s/,$//'; }\n", kubectl)
	fmt.Fprintf(&b, "apps=$(ips apps) && far=$(ips %s) && nft -f - <<END\n", far)
	fmt.Fprintf(&b, "table ip %s {\n\tchain forward {\n\t\ttype filter hook forward priority -200; policy accept;\n", table)
	for _, way := range ways {
		tcp := ""
		if strings.HasPrefix(verdict, "reject") {
			tcp = " meta l4proto tcp"
		}
		fmt.Fprintf(&b, "\t\t%s%s ct state established counter %s\n", way, tcp, verdict)
		if tcp == "" {
			fmt.Fprintf(&b, "\t\t%s %s\n", way, verdict)
		}
	}
	b.WriteString("\t}\n}\nEND\n")
	return b.String()
}

// packets has packets dropped or answered with a reset. It counts only when one of a live connection was hit.
func (w World) packets(ctx context.Context, f Fault, verdict string) (string, error) {
	if _, err := w.Shell(ctx, rules(f.Target, verdict)); err != nil {
		return "", err
	}
	if err := wait(ctx, f.For); err != nil {
		return "", err
	}
	out, err := w.Shell(ctx, "nft list table ip "+table)
	if err != nil {
		return "", err
	}
	if n := counted(string(out)); n > 0 {
		return fmt.Sprintf("%d packets of live connections", n), nil
	}
	return "", nil
}

// counted is the sum of the counters in what nft lists.
func counted(listed string) (n int) {
	words := strings.Fields(listed)
	for i, word := range words[:max(0, len(words)-2)] {
		if word == "counter" && words[i+1] == "packets" {
			if packets, err := strconv.Atoi(words[i+2]); err == nil {
				n += packets
			}
		}
	}
	return n
}

func (w World) again(ctx context.Context, f Fault, draw *rand.Rand) (string, error) {
	listening, cancel := context.WithTimeout(ctx, f.For)
	defer cancel()
	n, err := w.Messages.Again(listening, 500, draw, func(id string) { w.Record.Published(id, proof.AsAgain) })
	if n == 0 {
		return "", err
	}
	return fmt.Sprintf("%d messages", n), err
}

func (w World) alarm(ctx context.Context, f Fault) (string, error) {
	limit := "set_vm_memory_high_watermark 0.00001"
	if f.Target == "disk" {
		limit = "set_disk_free_limit 1000000GB"
	}
	if _, err := w.Shell(ctx, rabbit+limit); err != nil {
		return "", err
	}
	if err := wait(ctx, f.For); err != nil {
		return "", err
	}
	out, err := w.Shell(ctx, rabbit+"eval 'rabbit_alarm:get_alarms().'")
	if err != nil || !strings.Contains(string(out), f.Target) {
		return "", err
	}
	return "the broker says so", nil
}

const lapseHolds = `
WITH lapsed AS (
	UPDATE inventory_reservations r SET expires_at = now() - interval '1 s' FROM orders o
	WHERE o.id = r.order_id AND r.show_id = %d AND r.status = 'RESERVED' AND o.status = 'PENDING' RETURNING 1)
SELECT count(*) FROM lapsed`

// lapse ends the holds of orders whose payments stand still. It is the hold that is moved, never a clock.
func (w World) lapse(ctx context.Context, f Fault) (string, error) {
	if err := w.signal(ctx, "STOP", f.Target); err != nil {
		return "", err
	}
	if _, err := w.atLeast(ctx, 20, fmt.Sprintf("SELECT count(*) FROM orders WHERE show_id = %d AND status = 'PENDING'", w.Show)); err != nil {
		return "", err
	}
	out, err := w.Database.Do(ctx, fmt.Sprintf(lapseHolds, w.Show))
	if err != nil {
		return "", err
	}
	seen := ""
	if string(out) != "0" {
		seen = string(out) + " holds"
	}
	return seen, wait(ctx, f.For)
}

// gap has a process of a service end where it is in a gap the next time, as by SIGKILL. It is told until it has ended: it listens
// only from the first time on that it comes to a gap.
func (w World) gap(ctx context.Context, f Fault) (string, error) {
	service, gap, _ := strings.Cut(f.Target, "/")
	out, err := w.Shell(ctx, fmt.Sprintf(`pid=$(pgrep -n -x %s) || exit 1 # the newest: one that was replaced may not have finished yet
for try in $(seq %d); do
	kill -%d $pid 2>/dev/null || { echo ended; break; }
	sleep 0.1
done`, service, int(patience/(100*time.Millisecond)), failpoint.Gap(gap).Signal()))
	if err != nil {
		return "", fmt.Errorf("have %s end: %w", f.Target, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// filling is what a disk is filled with.
const filling = "platformctl-full"

// volumes is where the kubelet keeps PostgreSQL's data for a pod that was given no other place.
func volumes(pod string) string {
	return "/var/lib/kubelet/pods/" + pod + "/volumes/kubernetes.io~empty-dir/data"
}

// inMemory is how the node finds PostgreSQL's data; it ends with 1 where they are not in the memory.
func inMemory() string {
	return "data=" + volumes("$("+kubectl+" get pod -n database postgresql-0 -o jsonpath='{.metadata.uid}')") + `
[ "$(stat -f -c %T "$data" 2>/dev/null)" = tmpfs ] || exit 1
`
}

// full fills the disk to its last byte. It counts when PostgreSQL was refused something for it, which is in its log.
func (w World) full(ctx context.Context, f Fault) (string, error) {
	const refusals = "cat /var/log/pods/database_postgresql-0_*/postgresql/*.log | grep -c 'No space left on device' || true\n"
	before, err := w.Shell(ctx, inMemory()+refusals+`dd if=/dev/zero of="$data/`+filling+`" bs=4k 2>/dev/null || true`)
	if err != nil {
		return "", fmt.Errorf("fill PostgreSQL's disk: %w", err)
	}
	if err := wait(ctx, f.For); err != nil {
		return "", err
	}
	after, err := w.Shell(ctx, refusals)
	if err != nil || string(after) == string(before) {
		return "", err
	}
	return "no space left", nil
}

// Can returns an error where the plan wants of this platform what it has not: failpoints in both services, or a disk that may be
// filled. It needs the World's hands alone.
func (w World) Can(ctx context.Context, p Plan) error {
	wants := func(k Kind) bool { return slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Kind == k }) }
	if wants(Full) {
		if _, err := w.Shell(ctx, inMemory()); err != nil {
			return fault.New(fault.CodeFailed, "on a new platform, in values/dev/postgresql.yaml:\nprimary.persistence: {enabled: false, emptyDir: {medium: Memory, sizeLimit: 512Mi}}",
				"PostgreSQL's data are on this machine's disk, and that is not filled")
		}
	}
	if wants(Gap) {
		return w.canGap(ctx)
	}
	return nil
}

// canGap looks for failpoints in the services. Pods that were replaced a moment ago may finish first.
func (w World) canGap(ctx context.Context) error {
	for _, service := range []string{orderAPI, payment} {
		for over := time.Now().Add(patience); ; {
			out, err := w.Shell(ctx, fmt.Sprintf("for pid in $(pgrep -x %s); do grep -qF %s /proc/$pid/exe && echo with || echo without; done", service, failpoint.Mark))
			if err != nil {
				return fmt.Errorf("look at the program of %s: %w", service, err)
			}
			if !strings.Contains(string(out), "without") {
				break
			}
			if !strings.Contains(string(out), "with\n") || time.Now().After(over) {
				return fault.New(fault.CodeFailed, "platformctl deploy --failpoints", "%s was compiled without failpoints, so it cannot be ended in its gaps", service)
			}
			if err := wait(ctx, lookAgain); err != nil {
				return err
			}
		}
	}
	return nil
}

// deployment is a service's workload, and the label of its pods.
func deployment(service string) (name, label string) {
	return "deployment/" + service + "-" + service + "-chart", "app.kubernetes.io/instance=" + service
}

func (w World) drain(ctx context.Context, f Fault) (string, error) {
	_, label := deployment(f.Target)
	if _, err := w.Shell(ctx, kubectl+" drain "+w.Node+" --pod-selector="+label+" --ignore-daemonsets --delete-emptydir-data --timeout 60s"); err != nil {
		return "", err
	}
	return "evicted", wait(ctx, f.For)
}

// wait returns ctx's cause when it ends before d is over.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
