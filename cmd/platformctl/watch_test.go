package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/fault"
	"platformctl/pkg/inspect"
	"platformctl/pkg/platform"
)

// watching runs status -w for a few looks, and interrupts it.
func watching(t *testing.T, args ...string) result {
	t.Helper()
	signals := make(chan os.Signal, 2)
	var out, errs bytes.Buffer
	e := newEnv(streams{In: strings.NewReader(""), Out: &out, Err: &errs, Program: "bin/platformctl", Signals: signals, Exit: func(code int) { t.Errorf("ended at once with %d", code) }, Getenv: func(name string) string {
		return map[string]string{"PLATFORMCTL_CACHE": t.TempDir(), "PLATFORMCTL_STATE": t.TempDir()}[name]
	}})
	e.open = func(platform.Settings) (thePlatform, error) { return &fakePlatform{}, nil }
	looks := 0
	e.look = func(context.Context, thePlatform) (func(context.Context) watched, error) {
		return func(ctx context.Context) watched {
			w := watched{Figures: inspect.Figures{
				At: time.Date(2025, 11, 26, 10, 0, looks, 0, time.UTC), Over: float64(looks), In: inspect.Rate{PerSecond: 512.4, P99MS: new(3.14)}, Out: inspect.Rate{PerSecond: 3.25, P99MS: new(1234.0)},
				Outbox: &inspect.OutboxFigures{Events: 12, OldestSeconds: 0.1}, Queues: []inspect.QueueFigure{{Name: "a", Messages: 3}, {Name: "b"}, {Name: "c", Messages: 1}},
			}}
			switch looks++; looks {
			case 2:
				w.Outbox, w.Queues, w.Wrong = nil, nil, "no pod of order-api runs"
			case 3:
				signals <- os.Interrupt
				<-ctx.Done()
			}
			return w
		}, nil
	}
	code := e.run(t.Context(), append([]string{"status", "-w"}, args...))
	return result{code, out.String(), errs.String()}
}

func TestWatchAppendsLinesWhereItCannotDraw(t *testing.T) {
	for _, args := range [][]string{nil, {"--progress", "plain"}} {
		r := watching(t, args...)
		want := `TIME        IN/S   OUT/S   ANSWER      END  OUTBOX  OLDEST TO PAY TO END  DEAD
10:00:00       -       -    3.1ms     1.2s      12   100ms      3      0     1
no pod of order-api runs
10:00:01     512     3.2    3.1ms     1.2s       -       -      -      -     -
`
		if r.out != want || r.err != "" || r.code != fault.CodeInterrupted {
			t.Errorf("exit code %d\n%s\n%s", r.code, r.out, r.err)
		}
	}
}

func TestWatchAsJSON(t *testing.T) {
	r := watching(t, "-o", "json")
	var all []watched
	for dec := json.NewDecoder(strings.NewReader(r.out)); dec.More(); {
		var w watched
		if err := dec.Decode(&w); err != nil {
			t.Fatalf("%v in %s", err, r.out)
		}
		all = append(all, w)
	}
	if len(all) != 2 || all[0].In.PerSecond != 512.4 || all[0].Wrong != "" || all[1].Outbox != nil || all[1].Wrong == "" {
		t.Errorf("%+v", all)
	}
}

func TestWatchInPlace(t *testing.T) {
	r := watching(t, "--progress", "tty")
	for _, want := range []string{"platform at 10:00:01 UTC; rates and p99 of the last 1s", "accepted              512  3.1ms", "c, dead letters         1", "no pod of order-api runs", "\x1b[?25h"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in %q", want, r.out)
		}
	}
	if r.code != fault.CodeInterrupted || r.err != "" {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
}
