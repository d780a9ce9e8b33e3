package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platformctl/pkg/fault"
	"platformctl/pkg/inspect"
	"platformctl/pkg/platform"
)

// lives are what a database answers, look by look; the last stays. A nil one is a connection that breaks.
type lives struct {
	looks  []*inspect.Life
	opened int
	closed int
	seen   func(look int) // of the output before each look
	look   int
}

func (l *lives) JSON(ctx context.Context, _ string) ([]byte, error) {
	at := min(l.look, len(l.looks)-1)
	l.seen(l.look)
	l.look++
	switch life := l.looks[at]; {
	case life == nil:
		return nil, io.ErrUnexpectedEOF
	case life.Order == 0:
		return []byte("[]"), nil
	default:
		return json.Marshal([]inspect.Life{*life})
	}
}

func (l *lives) Close() error { l.closed++; return nil }

// following runs order --follow on lives.
func following(t *testing.T, l *lives, args ...string) (r result, before []string) {
	t.Helper()
	var out, errs bytes.Buffer
	e := newEnv(streams{In: strings.NewReader(""), Out: &out, Err: &errs, Program: "bin/platformctl", Exit: func(int) {}, Getenv: func(name string) string {
		return map[string]string{"PLATFORMCTL_CACHE": t.TempDir(), "PLATFORMCTL_STATE": t.TempDir()}[name]
	}})
	f := &fakePlatform{api: serve(t, &api{}), broker: &fakeBroker{}}
	e.open = func(platform.Settings) (thePlatform, error) { return f, nil }
	e.broker = func(context.Context, thePlatform) (theBroker, error) { return f.broker, nil }
	l.seen = func(int) { before = append(before, out.String()) }
	e.tables = func(context.Context, thePlatform) (theTables, error) { l.opened++; return l, nil }
	code := e.run(t.Context(), append([]string{"order", "--follow"}, args...))
	if l.closed != l.opened {
		t.Errorf("%d connections opened, %d closed", l.opened, l.closed)
	}
	return result{code, out.String(), errs.String()}, before
}

func TestFollowTellsEachHopAsItHappens(t *testing.T) {
	began := time.Date(2025, 11, 26, 10, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	pointer := func(ms int) *time.Time { return new(at(ms)) }
	hops := []inspect.Hop{
		{Hop: "accepted", At: at(3), Began: pointer(0), Pod: "order-api-x-1-aaaaa", Tries: 1},
		{Hop: "payment_succeeded", At: at(9), Began: pointer(7), Pod: "payment-service-x-1-bbbbb", Tries: 1},
		{Hop: "sent order.created", At: at(8), Began: pointer(3), Pod: "order-api-x-1-aaaaa", Tries: 1},
		{Hop: "confirmed", At: at(20), Began: pointer(18), Pod: "order-api-x-1-aaaaa", Tries: 1},
	}
	life := func(n int) *inspect.Life {
		l := &inspect.Life{At: at(21), Order: 17, Show: 1, Quantity: 2, Status: "PENDING", Created: at(3), Hops: hops[:n]}
		if n == len(hops) {
			l.Status, l.Ended = "CONFIRMED", pointer(20)
		}
		return l
	}
	l := &lives{looks: []*inspect.Life{life(1), life(1), life(2), nil, life(3), life(4)}}
	r, before := following(t, l, "--show", "1", "--qty", "2")
	want := `   0.0ms  request at order-api aaaaa
   3.0ms     2 seats held, order and event stored
   7.0ms     delivered to payment-service bbbbb
   9.0ms        payment SUCCEEDED, and its event stored
   8.0ms     order.created confirmed by the broker after 5.0ms
    18ms        delivered to order-api aaaaa
    20ms           CONFIRMED, 2 seats sold
order 17 is CONFIRMED after 17ms
`
	if diff := cmp.Diff(want, r.out); diff != "" || r.code != 0 {
		t.Errorf("exit code %d: %s", r.code, diff)
	}
	var lines []int
	for _, text := range before {
		lines = append(lines, strings.Count(text, "\n"))
	}
	if diff := cmp.Diff([]int{0, 2, 2, 4, 4, 5}, lines); diff != "" {
		t.Errorf("lines before each look: %s", diff)
	}
	if !strings.Contains(r.err, "following order 17") || !strings.Contains(r.err, "the database does not answer, asking again") {
		t.Error(r.err)
	}

	// The event after the end may lack its confirm for a while, and is waited for no longer than that.
	unsent := life(4)
	unsent.Outbox = []inspect.OutboxRow{{Key: "payment.succeeded"}}
	gone := *unsent
	gone.At = at(5000)
	if r, before := following(t, &lives{looks: []*inspect.Life{unsent, unsent, &gone}}, "17"); r.code != 0 || len(before) != 3 {
		t.Errorf("exit code %d after %d looks: %s", r.code, len(before), r.err)
	}
	var whole inspect.Trace
	if r, _ := following(t, &lives{looks: []*inspect.Life{life(2), life(4)}}, "17", "-o", "json"); json.Unmarshal([]byte(r.out), &whole) != nil || len(whole.Steps) != 7 {
		t.Errorf("not one document: %s", r.out)
	}
	if r, _ := following(t, &lives{looks: []*inspect.Life{life(1)}}, "17", "--wait", "100ms"); r.code != fault.CodeTimedOut || !strings.Contains(r.out, "it waits for payment-service") || !strings.Contains(r.err, "order 17 is still PENDING after 100ms") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	if r, _ := following(t, &lives{looks: []*inspect.Life{{}}}, "99"); r.code != fault.CodeUsage || !strings.Contains(r.err, "there is no order 99") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
}

func TestFollowInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	l := &lives{looks: []*inspect.Life{{Order: 17, Status: "PENDING"}}, seen: func(look int) {
		if look == 2 {
			cancel(errInterrupted)
		}
	}}
	life, err := followed(ctx, l, 17, func(inspect.Step, time.Time) error { return nil })
	if !errors.Is(err, context.Canceled) || life.Order != 17 {
		t.Errorf("%v, %v", life, err)
	}
}
