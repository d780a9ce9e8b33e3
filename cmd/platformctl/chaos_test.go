package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platformctl/pkg/chaos"
	"platformctl/pkg/fault"
	"platformctl/pkg/platform"
	"platformctl/pkg/proof"
)

func TestAPlanIsPrintedAndNothingDone(t *testing.T) {
	f := &fakePlatform{}
	first := call(t, f, "chaos", "--plan", "--seed", "7", "--faults", "kill,poison", "--duration", "20s")
	again := call(t, f, "chaos", "--plan", "--seed=7", "--faults", "poison,kill", "--duration", "20s")
	if first.code != 0 || first.out != again.out || !strings.HasPrefix(first.out, "seed 7, 20s, 4 faults\n") || len(f.calls) > 0 {
		t.Errorf("%+v %+v %q", first, again, f.calls)
	}
	for _, bad := range [][]string{{"--seed", "x"}, {"--seed", "-1"}, {"--seed", "7 8"}, {"--faults", "rain"}, {"--duration", "1s"}, {"--duration", "2h"}, {"--rate", "0"}, {"--clients", "0"}, {"--quiet-time", "-1s"}} {
		if r := call(t, f, append([]string{"chaos", "--plan"}, bad...)...); r.code != fault.CodeUsage {
			t.Errorf("%q: %+v", bad, r)
		}
	}
}

// A cluster that the platform refuses is not touched.
func TestAForeignClusterIsNotHurt(t *testing.T) {
	f := &fakePlatform{err: fault.Unfit("choose another name", "platformctl did not make the cluster")}
	r := call(t, f, "chaos", "--seed", "7", "--duration", "10s")
	if r.code != fault.CodeUnfit || len(f.calls) != 1 || f.calls[0] != "api" || !strings.Contains(r.err, "did not make the cluster") {
		t.Errorf("%+v %q", r, f.calls)
	}
}

// A cluster that another command has in hand is not hurt meanwhile.
func TestChaosTakesTheLock(t *testing.T) {
	f := &fakePlatform{api: "http://localhost:1", held: fault.New(fault.CodeFailed, "", "given up")}
	if r := call(t, f, "chaos", "--seed", "7", "--duration", "10s"); r.code != fault.CodeFailed || len(f.calls) != 2 || f.calls[1] != "hold" || !strings.Contains(r.err, "given up") {
		t.Errorf("%+v %q", r, f.calls)
	}
}

// Whatever is typed next heals what a killed chaos left, and says so.
func TestTheNextCommandHeals(t *testing.T) {
	state := t.TempDir()
	path := platform.FaultsFile(state, "platform")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(`{"n":4,"kind":"drain","target":"order-api"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fakePlatform{}
	env := map[string]string{"PLATFORMCTL_STATE": state}
	r := callWith(t, f, env, nil, "stop")
	if r.code != 0 || len(f.calls) != 2 || !strings.Contains(f.calls[0], "uncordon test-control-plane") || f.calls[1] != "stop" || !strings.Contains(r.err, "healing what a killed chaos left: drain order-api") {
		t.Errorf("%+v %q", r, f.calls)
	}
	f.calls = nil
	if r := callWith(t, f, env, nil, "stop"); r.code != 0 || len(f.calls) != 1 || strings.Contains(r.err, "healing") {
		t.Errorf("%+v %q", r, f.calls)
	}
}

func TestPrintChaos(t *testing.T) {
	outcome := func(n int, kind chaos.Kind, target, seen string, recovered time.Duration) chaos.Outcome {
		return chaos.Outcome{Fault: chaos.Fault{N: n, Kind: kind, Target: target}, Seen: seen, Recovered: recovered, Accepted: 100}
	}
	r := chaos.Result{
		Plan: chaos.Plan{Seed: 7}, Lasted: time.Minute, Ends: map[string]int64{"CONFIRMED": 900, "CANCELLED": 99}, Doubt: 2,
		Outcomes: []chaos.Outcome{
			outcome(1, chaos.Kill, "rabbitmq", "gone", 9*time.Second), outcome(2, chaos.Kill, "order-api", "gone", 2*time.Second),
			outcome(3, chaos.Partition, "apps→database", "", 100*time.Millisecond),
		},
		Calm:   chaos.Calm{Before: 200, BeforeP99: 5.04, Between: 600, BetweenP99: 9},
		Report: proof.Report{Holds: true, Invariants: []proof.Finding{{ID: "I1", Name: "accepted", Holds: true, Counted: "999 orders"}}},
	}
	var out strings.Builder
	if err := printChaos(&out, r); err != nil {
		t.Fatal(err)
	}
	want := `FAULT      MADE  UNSEEN  ACCEPTED MEANWHILE  SLOWEST RECOVERY  OF
kill          2       0                 200  9.0s              1, rabbitmq
partition     1       1                 100  100ms             3, apps→database

Seed:     7; 3 faults in 1m00s
Orders:   99 CANCELLED, 900 CONFIRMED; 2 never told
POST p99: 5.0 ms of 200 before the first fault, 9.0 ms of 600 between faults
Slowest:  9.0s, of fault 1, kill rabbitmq

    INVARIANT  VERDICT  COUNTED
I1  accepted   holds    999 orders
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	r.Calm.Between, r.Calm.BetweenP99 = 0, 0
	out.Reset()
	if err := printChaos(&out, r); err != nil || !strings.Contains(out.String(), "POST p99: 5.0 ms of 200 before the first fault, no calm time between faults\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
