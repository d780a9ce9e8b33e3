package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
	"platformctl/pkg/platform"
)

func TestWrongCalls(t *testing.T) {
	t.Chdir(t.TempDir()) // no checkout here
	for _, c := range []struct{ args, says, cure string }{
		{"stauts", `there is no command "stauts"`, "platformctl status"},
		{"ordr --show 1", `there is no command "ordr"`, "platformctl order"},
		{"--cluster x nonsense", `there is no command "nonsense"`, "platformctl help"},
		{"--clust x up", "has no flag --clust", "--cluster"},
		{"help nosuch", `there is no command "nosuch"`, "platformctl help"},
		{"completion", "completion wants one of bash, zsh, fish", "platformctl completion bash"},
		{"-- up", `there is no command "--"`, ""},
		{"up now", `takes no arguments, and got "now"`, "platformctl up --help"},
		{"up --fx", "platformctl up has no flag --fx", "platformctl up --fix"},
		{"up -x", "platformctl up has no flag -x", "platformctl up --help"},
		{"up --api-port http", `--api-port takes a whole number, not "http"`, "up --help"},
		{"up --api-port 70000", "no port", "--api-port 8081"},
		{"up --api-port", "--api-port wants a whole number", "up --help"},
		{"up --images docker", `"docker" is none of auto, registry, packages`, "--images auto"},
		{"up --kubeconfig a --no-kubeconfig", "exclude each other", "--kubeconfig FILE"},
		{"up", "is not inside a checkout", "--project"},
		{"up --project /nosuch", "/nosuch is not inside a checkout", "--project"},
		{"status --project /nosuch", "/nosuch is not inside a checkout", "--project"},
		{"up -o json", "-o json is for --dry-run", "up --progress json"},
		{"up --dry-run -o yaml", `"yaml" is neither table nor json`, "-o table|json"},
		{"stop now", `takes no arguments, and got "now"`, "stop --help"},
		{"start --timeout 0s", "no time to wait", "--timeout 5m"},
		{"status -o yaml", `-o "yaml" is neither table nor json`, "-o table|json"},
		{"status --progress loud", `"loud" is none of`, "--progress"},
		{"order", "--show N is needed", "platformctl shows"},
		{"order --show 1", "--qty N is needed", "--show 1 --qty 2"},
		{"order --show 0 --qty 1", `--show takes a whole number from 1 to 2147483647, not "0"`, "shows"},
		{"order --show rock --qty 1", `not "rock"`, "shows"},
		{"order --show 1 --qty 0", `--qty takes a whole number from 1 to 2147483647, not "0"`, "--qty 2"},
		{"order --show 1 --qty -1", `not "-1"`, "--qty 2"},
		{"order --show 1 --qty 1.5", `not "1.5"`, "--qty 2"},
		{"order --show 1 --qty 1e3", `not "1e3"`, "--qty 2"},
		{"order --show 1 --qty 1000000000000", `not "1000000000000"`, "--qty 2"},
		{"order --show 1 --qty abc", `not "abc"`, "--qty 2"},
		{"order --show 1 --qty +1", `not "+1"`, "--qty 2"},
		{"order --show 1 --qty 1 --wait soon", `--wait takes a time span such as 30s or 5m, not "soon"`, "order --help"},
		{"order --show 1 --qty 1 --wait -1s", "less than nothing", "--wait 30s"},
		{"order --show 1 --qty 1 --user=", "--user must not be empty", "--user 123"},
		{"order 1 2", "order takes the number of one order, and got 2 arguments", "order 1"},
		{"logs nosuch", `there is no service "nosuch"`, "postgres, rabbitmq, order, payment"},
		{"logs order --tail many", `--tail takes a whole number, not "many"`, "logs --help"},
		{"logs order --tail -1", `not "-1"`, "logs --help"},
		{"logs order --since -5m", "less than nothing", "--since 10m"},
		{"logs order -f --previous", "exclude each other", "one of"},
		{"deploy nosuch", `there is no service "nosuch"`, "use one of: order, payment"},
		{"deploy order postgres", "postgres is not built from this checkout", "platformctl up"},
		{"deploy order --timeout 0s", "no time to wait", "--timeout 5m"},
		{"deploy -o yaml", `-o "yaml" is neither table nor json`, "-o table|json"},
		{"deploy", "is not inside a checkout", "--project"},
		{"dev nosuch", `there is no service "nosuch"`, "use one of: order, payment"},
		{"dev", "is not inside a checkout", "--project"},
		{"psql TABLE shows", `got "TABLE"`, `psql -c "SELECT 1"`},
		{"forward redis", `there is no service "redis"`, "postgres, rabbitmq, order, payment"},
		{"forward postgres:many", `"many" is no port`, "forward postgres:5432"},
		{"forward postgres 70000", "70000 is no port", "forward postgres:5432"},
		{"forward 5432", `there is no service "5432"`, "postgres, rabbitmq, order, payment"},
		{"forward order payment:8080", "port 8080 is asked for twice, for order and payment", "forward order payment:0"},
		{"verify all", `takes no arguments, and got "all"`, "verify --help"},
		{"verify -o xml", `-o "xml" is neither table nor json`, "-o table|json"},
		{"verify --quiet-time -1s", "less than nothing", "--quiet-time 10s"},
		{"bench now", `takes no arguments, and got "now"`, "bench --help"},
		{"bench --clients 0", "a number from 1 to 10000, not 0", "--clients 64"},
		{"bench --rate -1", "not -1", "--rate 500"},
		{"bench --rate NaN", "not NaN", "--rate 500"},
		{"bench --rate many", `--rate takes a number, not "many"`, "bench --help"},
		{"bench --duration 0s", "at most 1h00m", "--duration 10s"},
		{"bench --duration 24h", "at most 1h00m", "--duration 10s"},
		{"bench --orders -1", "less than nothing", "--orders 1000"},
		{"bench --show rock", `not "rock"`, "shows"},
		{"bench --qty 0", `not "0"`, "--qty 1"},
		{"servers", "servers wants a command after --", "servers -- go test"},
		{"servers go test", "servers wants a command after --", "servers -- go test"},
		{"images rm", `images has no command "rm"`, "images ls"},
		{"snapshot restor seed", `snapshot has no command "restor"`, "platformctl snapshot restore"},
		{"images save", "platformctl images save wants one file", "images save platformctl-images.tar"},
	} {
		t.Run(c.args, func(t *testing.T) {
			f := &fakePlatform{}
			r := call(t, f, strings.Fields(c.args)...)
			if r.code != fault.CodeUsage {
				t.Errorf("exit code %d", r.code)
			}
			says, cure, _ := strings.Cut(r.err, "Try:")
			if !strings.HasPrefix(says, "Error: ") || !strings.Contains(says, c.says) {
				t.Errorf("it says %q, not %q", says, c.says)
			}
			if !strings.Contains(cure, c.cure) {
				t.Errorf("its cure is %q, without %q", cure, c.cure)
			}
			if r.out != "" || len(f.calls) > 0 {
				t.Errorf("something was done: %q, %q", r.out, f.calls)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	var pages strings.Builder
	for _, args := range []string{"", "help exit-codes", "help up", "help stop", "help start", "help down", "help order", "help deploy", "help dev", "help logs", "help psql", "help forward", "help verify", "help bench", "help status", "help servers", "help images", "help cleanup", "help snapshot", "help snapshot restore", "help images prune", "help images save", "help timings"} {
		r := call(t, &fakePlatform{}, strings.Fields(args)...)
		if r.code != 0 || r.err != "" {
			t.Errorf("%q: exit code %d, %s", args, r.code, r.err)
		}
		fmt.Fprintf(&pages, "$ platformctl %s\n%s\n", args, r.out)
	}
	text := pages.String()
	for n, line := range strings.Split(text, "\n") {
		if len(line) > 80 {
			t.Errorf("line %d is longer than 80 characters: %s", n+1, line)
		}
	}
	if main, _, _ := strings.Cut(text, "$ platformctl help exit-codes"); strings.Contains(main, "servers") {
		t.Error("the main help shows servers, which are for tests")
	}
	golden := filepath.Join("testdata", "help.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("-want +got (UPDATE_GOLDEN=1 writes it anew):\n%s", diff)
	}
}

func TestUp(t *testing.T) {
	dir := project(t)
	f := &fakePlatform{api: "http://127.0.0.1:8081", mendNotes: []string{"apt-get update", "# waiting for another"}}
	r := callWith(t, f, map[string]string{"PLATFORMCTL_CLUSTER": "mine", "PLATFORMCTL_CACHE": "/c", "PLATFORMCTL_STATE": "/s"}, nil,
		"up", "--project", dir, "--fix", "--images", "packages", "--api-port", "8081", "--kubeconfig", "k")
	if r.code != 0 {
		t.Fatalf("exit code %d: %s", r.code, r.err)
	}
	f.settings.Getenv, f.settings.Chatter = nil, nil
	want := platform.Settings{Cluster: "mine", Project: dir, Cache: "/c", State: "/s", APIPort: 8081, Images: platform.Packages, Timeout: platform.DefaultTimeout, Fix: true, Kubeconfig: "k", Version: "dev"}
	if diff := cmp.Diff(want, f.settings); diff != "" {
		t.Error(diff)
	}
	if want := "The platform is up: http://127.0.0.1:8081\nNext: bin/platformctl order --show 1 --qty 2 --cluster mine\n"; r.out != want {
		t.Errorf("it prints %q", r.out)
	}
	// What is done to the machine is seen in a log, however quickly it is done.
	if !strings.Contains(r.err, "$ apt-get update\n# waiting for another\n") || !strings.Contains(r.err, "done     host/engine") {
		t.Errorf("it shows %q", r.err)
	}
}

func TestDefaults(t *testing.T) {
	f := &fakePlatform{status: platform.Status{Ready: true, State: "running"}}
	t.Chdir(t.TempDir())
	if r := call(t, f, "status"); r.code != 0 {
		t.Fatalf("exit code %d: %s", r.code, r.err)
	}
	if f.settings.Cluster != "platform" || f.settings.Project != "" || f.settings.Images != platform.Auto {
		t.Errorf("%+v", f.settings)
	}
	t.Chdir(project(t))
	if err := os.Chdir("charts"); err != nil {
		t.Fatal(err)
	}
	if r := call(t, f, "status"); r.code != 0 || f.settings.Project == "" {
		t.Errorf("the checkout above is not found: %s", r.err)
	}
}

func TestInterrupt(t *testing.T) {
	signals := make(chan os.Signal, 2)
	f := &fakePlatform{whileUp: func(ctx context.Context) error {
		signals <- os.Interrupt
		<-ctx.Done()
		return fmt.Errorf("create the cluster: %w", context.Cause(ctx))
	}}
	r := callWith(t, f, nil, signals, "up", "--project", project(t))
	if r.code != fault.CodeInterrupted {
		t.Errorf("exit code %d", r.code)
	}
	if !strings.Contains(r.err, "stopping; once more ends it at once") || !strings.HasSuffix(r.err, "Error: interrupted\nTry:   bin/platformctl up   # goes on where it stopped\n") {
		t.Errorf("it says %q", r.err)
	}
}

func TestSecondInterruptEndsAtOnce(t *testing.T) {
	signals := make(chan os.Signal)
	ended := make(chan int)
	e := newEnv(streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }, Signals: signals, Exit: func(code int) { ended <- code }})
	ctx, restore := e.interruptible(t.Context())
	signals <- os.Interrupt
	<-ctx.Done()
	signals <- os.Interrupt
	if code := <-ended; code != fault.CodeInterrupted {
		t.Errorf("exit code %d", code)
	}
	restore()
}

func TestLibrariesAreHeardWhenSomethingFails(t *testing.T) {
	f := &fakePlatform{}
	f.whileUp = func(context.Context) error {
		fmt.Fprintln(f.settings.Chatter, strings.Repeat("x", 5000)+"\nkubeadm said no")
		return fault.TimedOut("platformctl status", "the cluster did not come up")
	}
	r := call(t, f, "up", "--project", project(t))
	if r.code != fault.CodeTimedOut || !strings.Contains(r.err, "kubeadm said no\nError: the cluster did not come up\nTry:   bin/platformctl status\n") || len(r.err) > 5000 {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
}

func TestDryRun(t *testing.T) {
	dir := project(t)
	f := &fakePlatform{foresight: []platform.Foresight{
		{Step: "values", Intent: platform.Keep},
		{Step: "image/order-api", Intent: platform.Build, Why: "it is not in the cache"},
		{Step: "release/payment-service", Intent: platform.Change, Why: "in short", Restarts: []string{"deployment/payment"},
			Differs: []string{"values: env.LOG_LEVEL is info, debug is wanted", "chart: templates/service.yaml differs"}},
		{Step: "release/order-api", Intent: platform.Unknown, Until: "image/order-api", Why: "what is built decides"},
	}}
	want := `STEP                     WOULD    WHY
image/order-api          build    it is not in the cache
release/payment-service  change   values: env.LOG_LEVEL is info, debug is wanted
                                  chart: templates/service.yaml differs
                                  restarts deployment/payment
release/order-api        unknown  until image/order-api is done: what is built decides
and 1 step already
`
	if r := call(t, f, "up", "--project", dir, "--dry-run"); r.code != 0 || r.out != want || r.err != "" {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	var back []platform.Foresight
	if r := call(t, f, "up", "--project", dir, "--dry-run", "-o", "json"); json.Unmarshal([]byte(r.out), &back) != nil || cmp.Diff(f.foresight, back) != "" {
		t.Errorf("not the same as JSON: %s", r.out)
	}
	if !slices.Equal(f.calls, []string{"foresee", "foresee"}) {
		t.Errorf("something was done: %q", f.calls)
	}
	f.foresight = f.foresight[:1]
	if r := call(t, f, "up", "--project", dir, "--dry-run"); r.code != 0 || r.out != "nothing to do: 1 step already\n" {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	f.foresight = []platform.Foresight{{Step: "volumes", Intent: platform.Refuse, Why: "the data volume would shrink", Cure: "take it back"}}
	r := call(t, f, "up", "--project", dir, "--dry-run")
	if r.code != fault.CodeUsage || !strings.Contains(r.out, "volumes  refuse  the data volume would shrink\n") || !strings.HasSuffix(r.err, "Try:   take it back\n") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
}

func TestStopAndStart(t *testing.T) {
	f := &fakePlatform{api: "http://127.0.0.1:8081"}
	t.Chdir(t.TempDir()) // no checkout is needed
	if r := call(t, f, "stop"); r.code != 0 || r.out != "" {
		t.Errorf("stop: exit code %d, %s%s", r.code, r.out, r.err)
	}
	want := "The platform is up: http://127.0.0.1:8081\nNext: bin/platformctl order --show 1 --qty 2\n"
	if r := call(t, f, "start", "--timeout", "9s"); r.code != 0 || r.out != want || f.settings.Timeout != 9*time.Second {
		t.Errorf("start: exit code %d, %s%s", r.code, r.out, r.err)
	}
	if !slices.Equal(f.calls, []string{"stop", "start"}) {
		t.Errorf("%q", f.calls)
	}
	f.err = fault.Unfit("platformctl up", "there is no cluster platform to start")
	if r := call(t, f, "start"); r.code != fault.CodeUnfit || !strings.HasSuffix(r.err, "to start\nTry:   bin/platformctl up\n") || r.out != "" {
		t.Errorf("without a cluster: exit code %d, %s%s", r.code, r.out, r.err)
	}
}

func TestDownAndCleanupAsk(t *testing.T) {
	for _, command := range []string{"down", "cleanup"} {
		f := &fakePlatform{losses: []string{"the orders and payments"}}
		r := call(t, f, command)
		if r.code != fault.CodeUsage || len(f.calls) > 0 || !strings.Contains(r.err, "the orders and payments\n") || !strings.Contains(r.err, "Try:   -y") {
			t.Errorf("%s without a terminal: exit code %d, %q, %s", command, r.code, f.calls, r.err)
		}
		if r := call(t, f, command, "-y"); r.code != 0 || len(f.calls) != 2 || f.calls[0] != "keep before "+command || !strings.HasPrefix(f.calls[1], command) ||
			!strings.Contains(r.err, "bin/platformctl up && bin/platformctl snapshot restore before-"+command) {
			t.Errorf("%s -y: exit code %d, %q, %s", command, r.code, f.calls, r.err)
		}
		f = &fakePlatform{losses: f.losses}
		if r := call(t, f, command, "-y", "--no-snapshot"); r.code != 0 || len(f.calls) != 1 {
			t.Errorf("%s -y --no-snapshot: exit code %d, %q, %s", command, r.code, f.calls, r.err)
		}
		f = &fakePlatform{losses: f.losses, data: fakeData{err: fault.TimedOut("platformctl status", "it does not come to rest")}}
		if r := call(t, f, command, "-y"); r.code != fault.CodeTimedOut || len(f.calls) != 1 || !strings.Contains(r.err, "nothing was deleted") || !strings.Contains(r.err, "Try:   bin/platformctl "+command+" --no-snapshot") {
			t.Errorf("%s -y of what cannot be saved: exit code %d, %q, %s", command, r.code, f.calls, r.err)
		}
	}
	f := &fakePlatform{}
	if r := call(t, f, "down", "--engine"); r.code != 0 || !slices.Equal(f.calls, []string{"down engine=true"}) {
		t.Errorf("down with nothing to lose: exit code %d, %q, %s", r.code, f.calls, r.err)
	}
	f = &fakePlatform{}
	if r := call(t, f, "cleanup"); r.code != 0 || len(f.calls) > 0 || !strings.Contains(r.err, "nothing to clean up") {
		t.Errorf("cleanup with nothing there: exit code %d, %q, %s", r.code, f.calls, r.err)
	}
}

func TestDoctor(t *testing.T) {
	f := &fakePlatform{ailments: []platform.Ailment{
		{Name: "disk"},
		{Name: "engine/running", Why: "the engine does not answer", Cure: []string{"apt-get install -y docker.io", "dockerd"}},
		{Name: "inotify", Why: "128 instances, 512 wanted", Optional: true, Cure: []string{"sysctl fs.inotify.max_user_instances=512"}},
	}}
	r := call(t, f, "doctor")
	want := `lacks  engine/running: the engine does not answer  Cure: apt-get install -y docker.io; dockerd
hint   inotify: 128 instances, 512 wanted  Cure: sysctl fs.inotify.max_user_instances=512
ok     1 of 3 requirements
`
	if r.code != fault.CodeUnfit || r.out != want || !strings.Contains(r.err, "this machine lacks 1 thing\nTry:   bin/platformctl doctor --fix\n") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	var all []platform.Ailment
	if r := call(t, f, "doctor", "-o", "json"); json.Unmarshal([]byte(r.out), &all) != nil || len(all) != 3 {
		t.Errorf("not JSON: %s", r.out)
	}
	f.calls, f.ailments = nil, f.ailments[:1]
	if r := call(t, f, "doctor", "--fix"); r.code != 0 || !slices.Equal(f.calls, []string{"mend", "doctor"}) {
		t.Errorf("exit code %d, %q", r.code, f.calls)
	}
}

func TestStatus(t *testing.T) {
	f := &fakePlatform{status: platform.Status{
		Cluster: "platform", State: "running", API: "http://127.0.0.1:8080", Why: "pod messaging/rabbitmq-0 is not ready", Cache: "/c", CacheUse: 359_000_000,
		Releases: []platform.ReleaseStatus{{Name: "rabbitmq", Namespace: "messaging", Revision: 2, Status: "deployed"}},
		Pods: []platform.PodStatus{
			{Namespace: "messaging", Name: "rabbitmq-0", Phase: "Pending", Reason: "ImagePullBackOff", Message: "Back-off pulling", AgeSecs: 75},
			{Namespace: "apps", Name: "order-api-order-api-chart-5d9-x", Phase: "Running", Ready: true, Restarts: 12, AgeSecs: 7200},
		},
	}}
	r := call(t, f, "status")
	want := `Cluster: platform, running, not ready
API:     http://127.0.0.1:8080
Cache:   359 MB in /c

RELEASE   NAMESPACE  REVISION  STATUS
rabbitmq  messaging         2  deployed

POD                              STATE    RESTARTS  AGE
rabbitmq-0                       Pending         0  1m15s
order-api-order-api-chart-5d9-x  ready          12  2h00m

rabbitmq-0: ImagePullBackOff: Back-off pulling
`
	if diff := cmp.Diff(want, r.out); diff != "" {
		t.Error(diff)
	}
	if r.code != fault.CodeUnfit || !strings.Contains(r.err, "not ready: pod messaging/rabbitmq-0 is not ready\nTry:   bin/platformctl status --wait") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	f.calls = nil
	var back platform.Status
	if r := call(t, f, "status", "--wait", "-o", "json"); json.Unmarshal([]byte(r.out), &back) != nil || cmp.Diff(f.status, back) != "" {
		t.Errorf("not the same as JSON: %s", r.out)
	}
	if !slices.Equal(f.calls, []string{"await", "status"}) {
		t.Errorf("%q", f.calls)
	}
	f.status = platform.Status{Cluster: "platform", State: "stopped", Why: "cluster platform is stopped"}
	if r := call(t, f, "status"); r.code != fault.CodeUnfit || !strings.HasSuffix(r.err, "is stopped\nTry:   bin/platformctl start\n") {
		t.Errorf("exit code %d: %s%s", r.code, r.out, r.err)
	}
	f.status = platform.Status{Cluster: "platform", State: "absent", Why: "cluster platform is absent"}
	if r := call(t, f, "status"); r.code != fault.CodeUnfit || !strings.Contains(r.err, "not running") || !strings.HasPrefix(r.out, "Cluster: platform, absent\n") {
		t.Errorf("exit code %d: %s%s", r.code, r.out, r.err)
	}
}

func TestOrderAndShows(t *testing.T) {
	a := &api{endsAs: "CONFIRMED", polls: 1}
	f := &fakePlatform{api: serve(t, a)}
	r := call(t, f, "order", "--show", "1", "--qty", "2")
	want := "ORDER  SHOW  QTY  STATUS     PAYMENT    AMOUNT  TOOK\n   17     1    2  CONFIRMED  SUCCEEDED     200  400ms\n"
	if r.code != 0 || r.out != want || r.err != "order 17 is PENDING\norder 17 is CONFIRMED\n" {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	a = &api{endsAs: "CANCELLED"}
	f.api = serve(t, a)
	r = call(t, f, "order", "--show", "1", "--qty", "2", "-o", "json")
	want = `{
  "orderId": 17,
  "showId": 1,
  "quantity": 2,
  "status": "CANCELLED",
  "paymentStatus": "SUCCEEDED",
  "amount": 200,
  "createdAt": "2026-01-02T03:04:05.5Z",
  "endedAt": "2026-01-02T03:04:05.9Z"
}
`
	if r.code != 0 || r.out != want {
		t.Errorf("exit code %d\n%s", r.code, r.out)
	}
	f.api = serve(t, &api{polls: 1 << 30})
	r = call(t, f, "order", "--show", "1", "--qty", "2", "--wait", "100ms")
	if r.code != fault.CodeTimedOut || !strings.Contains(r.err, "order 17 is still PENDING") || !strings.Contains(r.out, "   17     1    2  PENDING  ") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	f.api = serve(t, &api{troubles: []func(http.ResponseWriter){nil, status(500, "", "")}})
	r = call(t, f, "order", "--show", "1", "--qty", "2")
	if r.code != fault.CodeFailed || !strings.Contains(r.err, "order 17 was placed") || !strings.Contains(r.err, "Try:   bin/platformctl order 17") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	a = &api{endsAs: "CONFIRMED", polls: 1}
	f.api = serve(t, a)
	r = call(t, f, "order", "17")
	if r.code != 0 || !strings.Contains(r.out, "   17     1    2  CONFIRMED  ") || slices.Contains(a.asked, "POST /orders") {
		t.Errorf("exit code %d, %q\n%s%s", r.code, a.asked, r.out, r.err)
	}
	for _, c := range []struct{ args, says string }{
		{"order 99", "there is no order 99\n"},
		{"order 0", `"0" is no order's number`},
		{"order 1x", `"1x" is no order's number`},
		{"order 17 18", "the number of one order, and got 2 arguments"},
		{"order 17 --show 1", "exclude each other\nTry:   bin/platformctl order 17\n"},
	} {
		if r := call(t, f, strings.Fields(c.args)...); r.code != fault.CodeUsage || !strings.Contains(r.err, c.says) || r.out != "" {
			t.Errorf("%s: exit code %d, %s%s", c.args, r.code, r.out, r.err)
		}
	}
	r = call(t, f, "order", "--show", "9", "--qty", "2")
	if r.code != fault.CodeUsage || !strings.Contains(r.err, "there is no show 9\nTry:   --show 1   Rock Festival 2025, 4996 seats free\n") {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	r = call(t, f, "shows")
	want = `SHOW  NAME                VENUE  STARTS            SEATS  FREE  HELD  SOLD
   1  Rock Festival 2025  Arena  2025-07-01 19:00   5000  4996     1     3
   3  Standup Night                                  120   120     0     0
`
	if diff := cmp.Diff(want, r.out); diff != "" || r.code != 0 {
		t.Errorf("exit code %d: %s", r.code, diff)
	}
	var all []show
	if r := call(t, f, "shows", "-o", "json"); json.Unmarshal([]byte(r.out), &all) != nil || len(all) != 2 {
		t.Errorf("not JSON: %s", r.out)
	}
	f.err = fault.Unfit("platformctl up", "the platform is not running: cluster platform is absent")
	for _, args := range []string{"order --show 1 --qty 1", "shows", "logs", "psql", "forward", "verify", "bench", "kubeconfig"} {
		if r := call(t, f, strings.Fields(args)...); r.code != fault.CodeUnfit || !strings.HasSuffix(r.err, "not running: cluster platform is absent\nTry:   bin/platformctl up\n") || r.out != "" {
			t.Errorf("%s: exit code %d, %s%s", args, r.code, r.out, r.err)
		}
	}
}

func TestCompletion(t *testing.T) {
	shop := httptest.NewServer(&api{})
	defer shop.Close()
	for _, c := range []struct {
		args string
		want []string
		not  string
	}{
		{"__complete tim", []string{"timings\tWhere the time"}, "up"},
		{"__complete logs order ''", []string{"payment\tpayment-service in apps", "rabbitmq", "postgres"}, "order\t"},
		{"__complete deploy order ''", []string{"payment\tpayment-service in apps"}, "postgres"},
		{"__complete order --show ''", []string{"1\tRock Festival 2025, 4996 seats free", "3\tStandup Night"}, "completion"},
		{"__complete order ''", []string{"18\tPENDING, 1 seat of show 3\n17\tCONFIRMED, 2 seats of show 1\n:36\n"}, "completion"},
		{"__complete order 17 ''", []string{":36"}, "CONFIRMED"},
		{"__complete up --progress ''", []string{"plain", "json"}, "table"},
		{"__complete status -o ''", []string{"json"}, "plain"},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.Trim(args[i], "'")
		}
		r := call(t, &fakePlatform{api: shop.URL}, args...)
		for _, want := range c.want {
			if !strings.Contains(r.out, want) {
				t.Errorf("%s offers no %q: %s%s", c.args, want, r.out, r.err)
			}
		}
		if strings.Contains(r.out, c.not) {
			t.Errorf("%s offers %q: %s", c.args, c.not, r.out)
		}
	}
	for _, args := range [][]string{{"order", "--show", ""}, {"order", ""}} {
		for _, f := range []*fakePlatform{{err: errors.New("away")}, {api: "http://127.0.0.1:1"}} {
			if r := call(t, f, append([]string{"__complete"}, args...)...); r.code != 0 || !strings.HasPrefix(r.out, ":") || strings.Contains(r.err, "Error") {
				t.Errorf("%q without a platform: %d %s%s", args, r.code, r.out, r.err)
			}
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := call(t, &fakePlatform{}, "completion", shell); r.code != 0 || !strings.Contains(r.out, "__complete") {
			t.Errorf("%s: %d %s", shell, r.code, r.err)
		}
	}
	if r := call(t, &fakePlatform{}, "completion", "tcsh"); r.code != fault.CodeUsage || !strings.Contains(r.err, "Try:   bin/platformctl completion bash") {
		t.Errorf("tcsh: %d %s", r.code, r.err)
	}
}

func TestTimings(t *testing.T) {
	began := time.Now().Add(-3 * time.Minute)
	span := func(step string, kind plan.Kind, from, took time.Duration) plan.Span {
		return plan.Span{Step: step, Kind: kind, Began: began.Add(from), Took: took}
	}
	f := &fakePlatform{last: platform.Run{Command: "up", Ended: "failed", Failed: "release/order-api", Timings: plan.Timings{
		Began: began, Took: 20 * time.Second, Steps: 9, Chain: []plan.Link{
			{Span: span("host/disk", plan.Already, 0, time.Millisecond)},
			{Span: span("cluster", plan.Done, 0, 15*time.Second), Beside: []plan.Span{
				span("image/order-api", plan.Done, 0, 9*time.Second), span("load/order-api", plan.Done, 0, 2*time.Second), span("a", plan.Done, 0, time.Second), span("b", plan.Done, 0, time.Second),
			}},
			{Span: span("release/order-api", plan.Failed, 15*time.Second, 5*time.Second), Beside: []plan.Span{span("c", plan.Already, 0, time.Millisecond)}},
		},
	}}}
	r := call(t, f, "timings")
	want := `up failed in release/order-api after 20.0s, 2m40s ago: 3 steps one after the other, of 9

STEP               TOOK    %           BESIDE IT
host/disk          1ms     0  already
cluster            15.0s  75           image/order-api 9.0s, load/order-api 2.0s, a 1.0s, 1 more
release/order-api  5.0s   25  failed
`
	got := regexp.MustCompile(`2m4\ds`).ReplaceAllString(r.out, "2m40s")
	if r.code != 0 || got != want {
		t.Errorf("exit code %d\n%s\n%s", r.code, r.err, cmp.Diff(want, got))
	}
	r = call(t, f, "timings", "-o", "json")
	var run struct {
		Command string
		Timings struct {
			TookMS int64
			Chain  []struct {
				Step   string
				TookMS int64
				Beside []struct{ Step string }
			}
		}
	}
	if err := json.Unmarshal([]byte(r.out), &run); err != nil || run.Command != "up" || run.Timings.TookMS != 20_000 || run.Timings.Chain[1].Beside[0].Step != "image/order-api" {
		t.Errorf("%v: %s", err, r.out)
	}
}

func TestDeploy(t *testing.T) {
	f := &fakePlatform{deployed: []platform.Deployed{
		{Service: "order-api", Image: "platformctl.local/order-api:1", Revision: 7, Build: 1230 * time.Millisecond, Load: 310 * time.Millisecond, Roll: 2100 * time.Millisecond},
		{Service: "payment-service", Image: "platformctl.local/payment-service:2", Revision: 3},
	}}
	dir := project(t)
	r := call(t, f, "deploy", "--project", dir, "--timeout", "20s")
	want := "order-api: build 1.2s, load 310ms, roll 2.1s\npayment-service: already runs as the checkout has it\n"
	if r.code != 0 || r.out != want || !slices.Equal(f.calls, []string{"deploy order-api payment-service"}) || f.settings.Timeout != 20*time.Second {
		t.Errorf("exit code %d, %q, %q, %s", r.code, f.calls, r.out, r.err)
	}
	f.calls = nil
	f.deployed[0].Build, f.deployed[0].Load = 0, 0
	if r := call(t, f, "deploy", "--project", dir, "order"); r.code != 0 || !strings.HasPrefix(r.out, "order-api: build none, load none, roll 2.1s\n") || !slices.Equal(f.calls, []string{"deploy order-api"}) {
		t.Errorf("exit code %d, %q, %q", r.code, f.calls, r.out)
	}
	r = call(t, f, "deploy", "--project", dir, "-o", "json")
	var back []map[string]any
	if err := json.Unmarshal([]byte(r.out), &back); err != nil || len(back) != 2 {
		t.Fatalf("not JSON (%v): %s", err, r.out)
	}
	if diff := cmp.Diff(map[string]any{
		"service": "order-api", "image": "platformctl.local/order-api:1", "revision": 7.0, "changed": true,
		"buildMilliseconds": 0.0, "loadMilliseconds": 0.0, "rollMilliseconds": 2100.0,
	}, back[0]); diff != "" {
		t.Error(diff)
	}
	f.err = fault.Unfit("platformctl up", "the platform is not running: cluster platform is absent")
	if r := call(t, f, "deploy", "--project", dir); r.code != fault.CodeUnfit || !strings.HasSuffix(r.err, "Try:   bin/platformctl up\n") || r.out != "" {
		t.Errorf("exit code %d, %s%s", r.code, r.out, r.err)
	}
}

func TestKubeconfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte("apiVersion: v1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fakePlatform{path: path}
	if r := call(t, f, "kubeconfig"); r.code != 0 || r.out != "apiVersion: v1\n" {
		t.Errorf("exit code %d, %q", r.code, r.out)
	}
	if r := call(t, f, "kubeconfig", "--path"); r.code != 0 || r.out != path+"\n" {
		t.Errorf("exit code %d, %q", r.code, r.out)
	}
}

func TestImages(t *testing.T) {
	f := &fakePlatform{images: []platform.CachedImage{
		{Ref: "platformctl.local/node:v1", Key: "k", Where: "cache", Path: "/c/n.tar", Size: 359_000_000}, {Key: "abc", Where: "cache", Path: "/c/p", Size: 41_000_000},
		{Key: "order-api-source-1", Where: "cache", Path: "/c/s", Size: 20}, {Ref: "platformctl.local/node:v1", Where: "engine", Size: 500_000_000},
	}}
	table := func(what string) string {
		return `IMAGE                      SIZE    WHERE
platformctl.local/node:v1  359 MB  /c/n.tar
(part) abc                 41 MB   /c/p
platformctl.local/node:v1  500 MB  engine
4 pieces ` + what + `, 900 MB, 1 note on sources among them
`
	}
	for _, c := range []struct{ args, called, out string }{
		{"images", "", table("kept")},
		{"images ls", "", table("kept")},
		{"images prune --dry-run", "prune parts=false dry=true", table("would go")},
		{"images prune --parts", "prune parts=true dry=false", table("removed")},
		{"images load x.tar", "load x.tar", table("loaded")},
		{"images save x.tar", "save x.tar", "Saved to x.tar\nThere:  bin/platformctl images load x.tar\n"},
	} {
		f.calls = nil
		r := call(t, f, append(strings.Fields(c.args), "--project", project(t))...)
		if r.code != 0 || r.out != c.out || strings.Join(f.calls, ", ") != c.called {
			t.Errorf("%s: exit code %d, %q\n%s%s", c.args, r.code, f.calls, r.out, r.err)
		}
	}
	f.calls = nil
	if r := call(t, f, "images", "prune", "-o", "yaml", "--project", project(t)); r.code != fault.CodeUsage || len(f.calls) > 0 {
		t.Errorf("exit code %d, %q", r.code, f.calls)
	}
	if r := call(t, &fakePlatform{}, "images", "ls", "-o", "json"); r.out != "[]\n" {
		t.Errorf("an empty cache is %q", r.out)
	}
}

func TestServersPassTheExitCode(t *testing.T) {
	f := &fakePlatform{code: 7}
	r := call(t, f, "servers", "--project", project(t), "--", "go", "test", "-run", "X")
	if r.code != 7 || r.err != "" || !slices.Equal(f.calls, []string{`servers ["go" "test" "-run" "X"]`}) {
		t.Errorf("exit code %d, %q, %s", r.code, f.calls, r.err)
	}
}

func TestPsqlCall(t *testing.T) {
	base := []string{"psql", "-U", "postgresdb", "-d", "postgresdb"}
	for _, c := range []struct {
		flags  psqlFlags
		args   []string
		person bool
		argv   []string
		tty    bool
	}{
		{psqlFlags{}, nil, true, base, true},
		{psqlFlags{}, nil, false, base, false},
		{psqlFlags{statement: "SELECT 1"}, nil, true, append(base[:5:5], "-c", "SELECT 1"), false},
		{psqlFlags{}, []string{"--csv"}, true, append(base[:5:5], "--csv"), false},
	} {
		x, err := c.flags.exec(c.args, c.person)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(kube.Exec{Namespace: "database", Pod: "postgresql-0", Container: "postgresql", Argv: c.argv, TTY: c.tty}, x); diff != "" {
			t.Error(diff)
		}
	}
}

func TestLogsRequest(t *testing.T) {
	r, err := logsFlags{tail: 20, follow: true, since: time.Minute}.request([]string{"order", "order-api", "rabbit"})
	if err != nil {
		t.Fatal(err)
	}
	want := kube.LogRequest{Follow: true, Tail: 20, Since: time.Minute, Workloads: []kube.Workload{
		{Kind: "Deployment", Namespace: "apps", Name: "order-api-order-api-chart"}, {Kind: "StatefulSet", Namespace: "messaging", Name: "rabbitmq"},
	}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
	if r, err = (logsFlags{}).request(nil); err != nil || len(r.Workloads) != 4 {
		t.Errorf("without names: %+v, %v", r, err)
	}
}

func TestVersion(t *testing.T) {
	if r := call(t, &fakePlatform{}, "version"); r.code != 0 || !strings.HasPrefix(r.out, "platformctl dev (go1.") {
		t.Errorf("exit code %d, %q", r.code, r.out)
	}
}

func TestCuresCanBePasted(t *testing.T) {
	e := &env{streams: streams{Program: "bin/platformctl"}}
	in := "platformctl up --fix\nleave it out, or: platformctl down, then platformctl up --api-port 8081\nthe caches are in platformctl/images"
	want := "bin/platformctl up --fix\nleave it out, or: bin/platformctl down, then bin/platformctl up --api-port 8081\nthe caches are in platformctl/images"
	if got := e.asCalled(in); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
