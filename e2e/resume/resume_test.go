//go:build e2e

package resume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	// notice is how long an up may take to see that the node it works on is gone, before it is killed too.
	notice = 15 * time.Second
	// ordering is about how long orders come in before the node of a complete platform is killed.
	ordering = time.Second
)

func TestKilledAnywhereItIsResumed(t *testing.T) {
	seed := uint64(time.Now().UnixNano() % 1_000_000)
	if given := os.Getenv("RESUME_SEED"); given != "" {
		n, err := strconv.ParseUint(given, 10, 64)
		if err != nil {
			t.Fatalf("RESUME_SEED is a number: %v", err)
		}
		seed = n
	}
	t.Logf("the moments are those of RESUME_SEED=%d", seed)
	began := time.Now()
	r := &run{world: begin(t), rand: rand.New(rand.NewPCG(seed, 1)), hit: map[string]int{}}
	r.baseline()
	engine := os.Getenv("RESUME_KILL_ENGINE") != ""
	blows := schedule(seed, len(r.changes()), engine)
	t.Cleanup(r.table)
	for i, b := range blows {
		r.prepare(b)
		r.strike(b)
		if i+1 == len(blows) || blows[i+1].start != halfMade {
			r.resume()
		}
	}
	r.end()
	var never []string
	for _, step := range r.steps {
		if r.hit[step] == 0 {
			never = append(never, step)
		}
	}
	t.Logf("it took %s; steps that no kill hit: %s", time.Since(began).Round(time.Second), strings.Join(never, ", "))
}

// run is the test's one run.
type run struct {
	*world
	rand  *rand.Rand
	first state         // without a kill
	took  time.Duration // the first up
	quick time.Duration // an up that has something to change
	gone  time.Duration // a down
	steps []string      // of an up

	rows   []row
	hit    map[string]int // how many kills found a step at work
	orders []int          // that were accepted since there was nothing
	turn   int
	bare   bool // whether there has been no whole cluster since there was none
}

// row is what came of a blow.
type row struct {
	blow
	what   string        // what was altered
	after  time.Duration // the kill, since the command began
	moment string
	late   bool          // the command had ended before
	next   time.Duration // the up that came after it; 0 is one that was killed too
}

// baseline makes the platform without a disturbance, and notes what is there and how long it took.
func (r *run) baseline() {
	r.t.Helper()
	// Images that are not in the cache yet are made first: that is another matter, of minutes.
	r.finish(time.Hour, "up", "--api-port", apiPort)
	r.gone = r.finish(time.Hour, "down", "-y", "--no-snapshot")
	began := time.Now()
	r.took = r.finish(10*time.Minute, "up", "--api-port", apiPort)
	record, ours := readRecord(r.record(), began)
	if !ours || record.command != "up" || len(record.atWork)+len(record.undone) > 0 {
		r.t.Fatalf("the record of a whole up is %+v", record)
	}
	r.steps = record.steps
	r.first = r.look()
	if amiss := r.first.amiss(); len(amiss) > 0 {
		r.t.Fatalf("the platform is not whole before anything was killed:\n%s", strings.Join(amiss, "\n"))
	}
	r.alter(0)
	r.quick = r.finish(r.bound(), "up")
	r.t.Logf("undisturbed, up takes %s from nothing, and %s after a change; then there are %d objects and images", r.took.Round(again), r.quick.Round(again), len(r.first))
	r.place()
}

// amiss is what no platform should have, whatever came before.
func (s state) amiss() (all []string) {
	for key, what := range s {
		if strings.HasPrefix(what, "left ") || what == "it is being deleted" {
			all = append(all, key+": "+what)
		}
	}
	slices.Sort(all)
	return all
}

// bound is what an up may take that goes on after a kill.
func (r *run) bound() time.Duration { return time.Minute + 4*r.took }

func (r *run) record() []byte {
	r.t.Helper()
	raw, err := os.ReadFile(filepath.Join(r.state, "clusters", clusterName+".run.jsonl"))
	r.must(err)
	return raw
}

// change is a way to have something to do for an up of a complete platform.
type change struct {
	what string
	make func()
}

func (r *run) changes() []change {
	edit := func(path, from, to string) func() {
		return func() {
			r.turn++
			path := filepath.Join(r.checkout, path)
			raw, err := os.ReadFile(path)
			r.must(err)
			now := regexp.MustCompile(from).ReplaceAll(raw, fmt.Appendf(nil, to, 100+r.turn))
			if bytes.Equal(raw, now) {
				r.t.Fatalf("there is no %s in %s", from, path)
			}
			r.must(os.WriteFile(path, now, 0o644))
		}
	}
	gone := func(args ...string) func() {
		return func() { r.kubectl(append([]string{"delete", "--wait=false", "--ignore-not-found"}, args...)...) }
	}
	return []change{
		{"another ConfigMap in the checkout", edit("configmaps/rabbitmq-config-apps.yaml", `PREFETCH: "\d+"`, `PREFETCH: "%d"`)},
		{"other values of order-api", edit("values/dev/order-api.yaml", `cpu: \d+m`, `cpu: %dm`)},
		{"other values of payment-service", edit("values/dev/payment-service.yaml", `cpu: \d+m`, `cpu: %dm`)},
		{"order-api's Deployment", gone("-n", "apps", "deployment/order-api-order-api-chart")},
		{"RabbitMQ's StatefulSet", gone("-n", "messaging", "statefulset/rabbitmq")},
		{"PostgreSQL's Service", gone("-n", "database", "service/postgresql")},
		{"a ConfigMap", gone("-n", "apps", "configmap/payment-service-config")},
		{"a Secret", gone("-n", "apps", "secret/rabbitmq-credentials-apps")},
		{"Helm's record of payment-service", gone("-n", "apps", "secret", "-l", "owner=helm,name=payment-service")},
		{"namespace apps", gone("namespace", "apps")},
		{"payment-service's image in the node", func() {
			for _, ref := range strings.Fields(r.does("docker", "exec", node, "ctr", "-n", "k8s.io", "images", "ls", "-q")) {
				if strings.Contains(ref, "/payment-service:") {
					r.does("docker", "exec", node, "ctr", "-n", "k8s.io", "images", "rm", ref)
				}
			}
			gone("-n", "apps", "deployment/payment-service-payment-service-chart")()
		}},
		{"the context in the kubeconfig", func() { r.must(os.WriteFile(r.kubeconfig, []byte(theirs), 0o600)) }},
		{"a generated file of secrets", func() {
			r.must(os.Remove(filepath.Join(r.checkout, "secrets", "rabbitmq-credentials-apps.yaml")))
		}},
	}
}

func (r *run) alter(n int) string {
	r.t.Helper()
	c := r.changes()[n]
	c.make()
	return c.what
}

// prepare brings about what the blow's command begins with.
func (r *run) prepare(b blow) {
	r.t.Helper()
	if b.start == nothing {
		r.finish(r.bound(), "down", "-y", "--no-snapshot")
		r.orders, r.bare = nil, true
	}
}

// strike kills.
func (r *run) strike(b blow) {
	r.t.Helper()
	if b.command == "" {
		r.killAtWork(b)
		return
	}
	args := []string{b.command}
	span := r.quick
	switch {
	case b.command != "up":
		span = r.gone // stop and cleanup take longer
		if b.command != "stop" {
			args, r.orders = append(args, "-y", "--no-snapshot"), nil
			r.bare = b.command == "down"
		}
	case b.start == nothing || b.start == halfMade:
		args = append(args, "--api-port", apiPort)
		if r.bare {
			span = r.took
		}
	}
	if b.victim == theEngine {
		args = append(args, "--fix")
	}
	got := row{blow: b}
	for try := 0; ; try++ {
		if b.start == altered || try > 0 {
			got.what = r.alter((b.change + try) % len(r.changes()))
		}
		p := r.starts(args...)
		if !r.awaits(p, time.Duration(b.share*float64(span))) {
			r.hitNow(p, b, &got)
			break
		}
		if p.err != nil {
			r.t.Fatalf("%s %s: %v\n%s", b.command, r.describe(got), p.err, p.output())
		}
		if got.late = try == 2; got.late {
			got.moment, got.next = "too late: it had come through", 0
			break
		}
		// It has come through before its time: another change is made, for which about the same time is taken.
		if b.command != "up" {
			r.finish(r.bound(), "up", "--api-port", apiPort)
		}
		b.start, b.command, b.share, args, span = altered, "up", r.rand.Float64(), []string{"up"}, p.took
		if b.victim == theEngine {
			args = append(args, "--fix")
		}
		if p.took > r.quick {
			span = r.quick
		}
		got.blow = b
	}
	for _, step := range strings.Split(got.moment, ", ") {
		r.hit[step]++
	}
	r.rows = append(r.rows, got)
	r.t.Logf("kill %d: %s", len(r.rows), r.describe(got))
}

func (r *run) describe(g row) string {
	start := g.start
	if g.what != "" {
		start = altered + " " + g.what
	}
	return fmt.Sprintf("%s (%s), %s after %s: %s", g.command, start, g.victim, g.after.Round(again/10), g.moment)
}

// hitNow kills what the blow is for and finds out what was at work.
func (r *run) hitNow(p *platformctl, b blow, got *row) {
	r.t.Helper()
	got.after = time.Since(p.began)
	switch b.victim {
	case theNode, nodeAndIt:
		_, err := r.tries("docker", "kill", node)
		if err != nil && len(r.containers()) > 0 {
			r.t.Logf("the node did not run: %v", err)
		}
	case theEngine:
		r.must(r.killEngine())
	}
	noted := r.record()
	if b.victim == theNode {
		if r.awaits(p, notice) {
			got.what += fmt.Sprintf("; up ended %s later by itself: %v", (p.took - got.after).Round(again), p.err)
		}
	}
	r.must(p.kill(b.victim))
	if b.victim != theNode {
		noted = r.record()
	}
	record, ours := readRecord(noted, p.began)
	if got.moment = record.moment(); !ours {
		got.moment = beforeAll
	}
}

// killAtWork kills the node of a platform that takes orders.
func (r *run) killAtWork(b blow) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	before := len(r.orders)
	for range 4 {
		all.Go(func() {
			for ctx.Err() == nil {
				id, err := r.order(ctx)
				if err != nil {
					return // the node was killed
				}
				mu.Lock()
				r.orders = append(r.orders, id)
				mu.Unlock()
			}
		})
	}
	at := time.Duration((0.1 + b.share) * float64(ordering))
	time.Sleep(at)
	r.does("docker", "kill", node)
	cancel()
	all.Wait()
	if len(r.orders) == before {
		r.t.Error("no order came in before the node was killed")
	}
	r.rows = append(r.rows, row{blow: b, after: at, moment: fmt.Sprintf("%d orders had come in", len(r.orders)-before)})
}

// resume runs up to its end and looks whether all orders are there.
func (r *run) resume() {
	r.t.Helper()
	args := []string{"up", "--api-port", apiPort}
	last := &r.rows[len(r.rows)-1]
	if last.victim == theEngine {
		args = append(args, "--fix")
	}
	last.next = r.finish(r.bound(), args...)
	r.bare = false
	for _, id := range r.orders {
		if _, err := r.ended(id); err != nil {
			r.t.Fatalf("after kill %d: %v", len(r.rows), err)
		}
	}
	if last.victim == theNode || last.victim == nodeAndIt {
		r.does(r.binary, "verify")
	}
	r.place()
}

// place places an order and keeps it in mind.
func (r *run) place() {
	r.t.Helper()
	id, err := r.order(r.ctx)
	r.must(err)
	r.orders = append(r.orders, id)
}

// end looks whether all is as if nothing had been killed, and takes it away.
func (r *run) end() {
	r.t.Helper()
	project, err := filepath.Abs("../..")
	r.must(err)
	for _, dir := range []string{"values", "configmaps"} {
		r.must(os.RemoveAll(filepath.Join(r.checkout, dir)))
		r.must(copyCheckout(filepath.Join(project, dir), filepath.Join(r.checkout, dir)))
	}
	took := r.finish(r.bound(), "up")
	r.t.Logf("the last up, with the checkout as it was, took %s", took.Round(again))
	r.finish(r.bound()/2, "status", "--wait")
	// Pods that were replaced take their time to go.
	var left []string
	for until := time.Now().Add(time.Minute); ; {
		now := r.look()
		if left = append(differences(r.first, now), now.amiss()...); len(left) == 0 || time.Now().After(until) {
			break
		}
		time.Sleep(5 * again)
	}
	for _, d := range left {
		r.t.Error(d)
	}
	confirmed := false
	for range 20 { // the gateway refuses one of ten
		r.place()
		status, err := r.ended(r.orders[len(r.orders)-1])
		r.must(err)
		if confirmed = status == "CONFIRMED"; confirmed {
			break
		}
	}
	if !confirmed {
		r.t.Error("no order is confirmed")
	}
	r.does(r.binary, "verify")
	if took := r.finish(r.bound(), "up"); took > r.quick+r.took/4 {
		r.t.Errorf("an up that has nothing to do took %s", took)
	}
	if there := r.containers(); !slices.Equal(there, []string{node}) {
		r.t.Errorf("kind counts to the cluster %v", there)
	}
	r.nothingLeft(regexp.MustCompile(`(^|/)\.|\.lock$`), regexp.MustCompile(`^clusters/`+clusterName+`\.lock$`))
	r.finish(r.bound(), "down", "-y", "--no-snapshot")
	r.nothingLeft(regexp.MustCompile(`(^|/)\.|\.lock$|^clusters/`+clusterName+`/.*\.json$|/kubeconfig$`), regexp.MustCompile(`^clusters/`+clusterName+`\.lock$`))
	raw, err := os.ReadFile(r.kubeconfig)
	r.must(err)
	if !strings.HasPrefix(string(raw), "# mine") || strings.Contains(string(raw), clusterName) || !strings.Contains(string(raw), "current-context: production") {
		r.t.Errorf("the user's kubeconfig is now\n%s", raw)
	}
	if there := r.containers(); len(there) > 0 {
		r.t.Errorf("after down there are %v", there)
	}
}

// nothingLeft looks for files that only a run at work may have, and for processes of runs that are no more.
func (r *run) nothingLeft(odd, fine *regexp.Regexp) {
	r.t.Helper()
	for _, dir := range []string{filepath.Join(r.state, "clusters"), filepath.Join(r.state, "snapshots"), filepath.Join(r.checkout, "secrets"), filepath.Dir(r.kubeconfig), r.temp} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			name, err := filepath.Rel(filepath.Dir(dir), path)
			if err != nil {
				return err
			}
			ofOthers := dir != r.temp && strings.HasPrefix(path, r.state) && !strings.Contains(path, clusterName)
			if filepath.Base(path) == ".gitignore" || path == dir || path == r.kubeconfig || ofOthers {
				return nil
			}
			if dir == r.temp || odd.MatchString(name) && !fine.MatchString(name) {
				r.t.Errorf("left behind: %s", path)
			}
			return nil
		})
		r.must(err)
	}
	all, err := processes()
	r.must(err)
	for pid, p := range all {
		if pid != os.Getpid() && strings.HasPrefix(p.line, "docker ") && strings.Contains(p.line, node) {
			r.t.Errorf("left at work: process %d, %s", pid, p.line)
		}
	}
}

// look notes what is there.
func (r *run) look() state {
	r.t.Helper()
	const kinds = "configmaps,secrets,serviceaccounts,services,deployments,statefulsets,persistentvolumeclaims,networkpolicies,poddisruptionbudgets,roles,rolebindings,jobs"
	s := state{}
	add := func(more state, err error) {
		r.must(err)
		for key, what := range more {
			s[key] = what
		}
	}
	for _, namespace := range []string{"apps", "database", "messaging"} {
		add(shapes([]byte(r.kubectl("get", "-n", namespace, kinds, "-o", "json"))))
		pods := r.kubectl("get", "pods", "-n", namespace, "--sort-by", "{.metadata.labels.app\\.kubernetes\\.io/instance}", "-o",
			`jsonpath={range .items[*]}{.metadata.labels.app\.kubernetes\.io/instance} {.metadata.deletionTimestamp} {.status.phase} ready={.status.containerStatuses[*].ready} {.spec.containers[*].image}{"\n"}{end}`)
		s["pods of "+namespace] = pods
	}
	add(shapes([]byte(r.kubectl("get", "namespaces", "apps", "database", "messaging", "-o", "json"))))
	for _, ref := range strings.Fields(r.does("docker", "exec", node, "ctr", "-n", "k8s.io", "images", "ls", "-q")) {
		if !strings.HasPrefix(ref, "sha256:") {
			s["image "+ref] = "in the node"
		}
	}
	s["the schema"] = r.does(r.binary, "psql", "-c", `SELECT max(version_id) FROM goose_db_version`)
	s["the shows"] = r.does(r.binary, "psql", "-c", `SELECT id, name, capacity FROM shows ORDER BY id`)
	health, err := r.tries("curl", "--silent", "--fail", "--max-time", "10", api+"/health")
	r.must(err)
	s["the API"] = health
	s["the user's kubeconfig"] = r.contexts()
	s["the checkout's secrets"] = r.secretFiles()
	return s
}

// contexts is the user's kubeconfig without what is new in each life of a cluster.
func (r *run) contexts() string {
	r.t.Helper()
	raw, err := os.ReadFile(r.kubeconfig)
	r.must(err)
	var file struct {
		Current  string `yaml:"current-context"`
		Clusters []struct{ Name string }
		Users    []struct{ Name string }
		Contexts []struct {
			Name    string
			Context struct{ Cluster, User string }
		}
	}
	r.must(yaml.Unmarshal(raw, &file))
	head, _, _ := strings.Cut(string(raw), "\n")
	return fmt.Sprintf("%s\n%+v", head, file)
}

func (r *run) secretFiles() string {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.checkout, "secrets", "*.yaml"))
	r.must(err)
	var all strings.Builder
	for _, path := range files {
		raw, err := os.ReadFile(path)
		r.must(err)
		info, err := os.Stat(path)
		r.must(err)
		fmt.Fprintf(&all, "%s %s\n%s", filepath.Base(path), info.Mode(), raw)
	}
	return all.String()
}

// table tells what was seen.
func (r *run) table() {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	lines := []string{"kill\tof\tthat began with\tkilled\tafter s\tat work\tthe next up took s"}
	for i, k := range r.rows {
		start, next, command := k.start, "killed too", k.command
		if k.what != "" {
			start = k.start + " " + k.what
		}
		if k.next > 0 {
			next = fmt.Sprintf("%.1f", k.next.Seconds())
		}
		if command == "" {
			command = "nothing"
		}
		lines = append(lines, fmt.Sprintf("%d\t%s\t%s\t%s\t%.1f\t%s\t%s", i+1, command, start, k.victim, k.after.Seconds(), k.moment, next))
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	if err := errors.Join(err, w.Flush()); err != nil {
		r.t.Error(err)
	}
	r.t.Logf("\n%s", out.String())
}
