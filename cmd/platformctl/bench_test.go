package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platformctl/pkg/proof"
)

func TestPrintBench(t *testing.T) {
	r := proof.BenchResult{
		Clients: 64, Rate: 500, Duration: 10 * time.Second,
		Answers: proof.Answers{
			Took: 10 * time.Second, Statuses: map[int]int64{503: 3, 202: 4990, 409: 5}, Failures: map[string]int64{"the connection was closed": 2},
			Accepted: proof.Latency{Count: 4990, P50: 2, P99: 9.04, P999: 20, Max: 31}, Others: proof.Latency{Count: 8, P50: 1, P99: 2, P999: 2, Max: 2},
		},
		Ends: proof.Ends{Orders: 4990, Ended: 4989, PerSecond: 498.6, Unsettled: 7, P50: 5, P99: 40},
		CPU:  &proof.CPU{Cores: 2, Foreign: 0.126, Shares: []proof.Used{{Name: "order", Cores: 0.5}, {Name: "client", Cores: 0.1}}},
	}
	var out strings.Builder
	if err := printBench(&out, r); err != nil {
		t.Fatal(err)
	}
	want := `Load:     500 orders a second due, 64 clients, for 10.0s
Accepted: 4990, 499/s
Answered: p50 2.0 ms, p99 9.0 ms, p99.9 20.0 ms, slowest 31.0 ms
Answers:  4990 × 202, 5 × 409, 3 × 503
Refused:  p50 1.0 ms, p99 2.0 ms, p99.9 2.0 ms, slowest 2.0 ms
Failed:   2 × the connection was closed
Ended:    4989 of 4990, 499/s, 7 after the load; taken → ended p50 5.0 ms, p99 40.0 ms
CPU:      order 0.50, client 0.10; foreign 0.13; of 2 cores

`
	got, _, _ := strings.Cut(out.String(), "  INVARIANT")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
