package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platformctl/pkg/contract"
	"platformctl/pkg/inspect"
)

func someLetters() []inspect.Letter {
	died := time.Date(2025, 11, 26, 10, 0, 0, 0, time.UTC)
	return []inspect.Letter{
		{ID: "5f2c81ab", MessageID: "order.created:17", Died: died, Key: "order.created", Queue: "payment.order-created.q", Order: 17, Tries: 1, Reason: "quantity is missing or not between 1 and 1000000", Body: inspect.Body(`{"orderId":17}`)},
		{ID: "00c3d911", Died: died.Add(time.Hour), Key: "payment.failed", Queue: "order.payment-results.q", Order: 99, Tries: 2, Retries: 3, Reason: "there is no order 99", Body: inspect.Body("\x1b[2Jnot JSON")},
		{ID: "77aa0012", Reason: "rejected"},
	}
}

func TestPrintLetters(t *testing.T) {
	var out strings.Builder
	now := time.Date(2025, 11, 26, 11, 0, 44, 0, time.UTC)
	for width, want := range map[int]string{
		0: `ID        AGE    KEY             ORDER  TRIES  REASON
5f2c81ab  1h00m  order.created      17      1  quantity is missing or not between 1 and 1000000
00c3d911  44s    payment.failed     99      2  (retry 3) there is no order 99
77aa0012  -      -                   -      -  rejected
`,
		80: `ID        AGE    KEY             ORDER  TRIES  REASON
5f2c81ab  1h00m  order.created      17      1  quantity is missing or not
                                               between 1 and 1000000
00c3d911  44s    payment.failed     99      2  (retry 3) there is no order 99
77aa0012  -      -                   -      -  rejected
`,
		60: `ID        AGE    KEY             ORDER  TRIES
5f2c81ab  1h00m  order.created      17      1
    quantity is missing or not between 1 and 1000000
00c3d911  44s    payment.failed     99      2
    (retry 3) there is no order 99
77aa0012  -      -                   -      -
    rejected
`,
		30: `5f2c81ab, age 1h00m, key
order.created, order 17, tries
1
    quantity is missing or not
    between 1 and 1000000
00c3d911, age 44s, key
payment.failed, order 99,
tries 2
    (retry 3) there is no
    order 99
77aa0012, age -, key -, order
-, tries -
    rejected
`,
	} {
		out.Reset()
		if err := printLetters(&out, width, someLetters(), now); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("at %d: %s", width, diff)
		}
	}
	out.Reset()
	if err := printLetter(&out, someLetters()[1], now); err != nil {
		t.Fatal(err)
	}
	want := `ID:       00c3d911
Message:  -
Key:      payment.failed
Queue:    order.payment-results.q
Order:    99
Died:     2025-11-26T11:00:00Z, 44s ago
Tries:    2
Retries:  3
Reason:   there is no order 99

not JSON
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

// fakeBroker has letters, and notes what is asked of it.
type fakeBroker struct {
	letters []inspect.Letter
	fates   []inspect.Fate
	calls   []string
	queues  []inspect.QueueState
	events  []inspect.Event
}

func (f *fakeBroker) Queues(context.Context) ([]inspect.QueueState, error) { return f.queues, nil }

func (f *fakeBroker) Tap(ctx context.Context, key string, begun func(), _ func(error), see func(inspect.Event) error) error {
	begun()
	for _, e := range f.events {
		if inspect.Match(key, e.Key) {
			if err := see(e); err != nil {
				return err
			}
		}
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (f *fakeBroker) Publish(_ context.Context, key string, body []byte) (string, error) {
	f.calls = append(f.calls, "publish "+key)
	id, _, err := contract.Check(key, body)
	return id, err
}

func (f *fakeBroker) Letters(context.Context) ([]inspect.Letter, int, error) {
	return f.letters, 0, nil
}

func (f *fakeBroker) Retry(_ context.Context, c inspect.Choice, dry bool) ([]inspect.Fate, []string, error) {
	f.calls = append(f.calls, "retry")
	return f.fates, c.Unknown(f.letters), nil
}

func (f *fakeBroker) Drop(_ context.Context, c inspect.Choice, dry bool) (dropped []inspect.Letter, unknown []string, err error) {
	for _, l := range f.letters {
		if c.Has(l) {
			dropped = append(dropped, l)
		}
	}
	if !dry {
		f.calls = append(f.calls, "drop")
	}
	return dropped, c.Unknown(f.letters), nil
}

func TestDlq(t *testing.T) {
	letters := someLetters()
	for _, tt := range []struct {
		args  string
		code  int
		says  string
		calls string
	}{
		{"dlq", 0, "5f2c81ab", ""},
		{"dlq ls -o json", 0, `"reason": "there is no order 99"`, ""},
		{"dlq lst", 2, `dlq has no command "lst"`, ""},
		{"dlq show", 2, "takes the id of one dead letter, and got 0", ""},
		{"dlq show 5f2c81ab", 0, `"orderId": 17`, ""},
		{"dlq show nope", 2, "there is no dead letter nope", ""},
		{"dlq retry", 2, "which dead letters?", ""},
		{"dlq retry --all --key x", 2, "exclude each other", ""},
		{"dlq retry --order none", 2, "--order takes a whole number", ""},
		{"dlq retry nope", 2, "there is no dead letter nope", "retry"},
		{"dlq retry --all", 1, "dead letters that stay: 1 of 2", "retry"},
		{"dlq retry --all --dry-run", 1, "would be sent back to payment.order-created.q, retry 1", "retry"},
		{"dlq drop --all", 2, "There is no terminal to answer on", ""},
		{"dlq drop --all --dry-run", 0, "77aa0012", ""},
		{"dlq drop --key payment.* -y", 0, "1 dead letter dropped", "drop"},
		{"dlq drop --key nothing -y", 0, "nothing was to do", ""},
	} {
		broker := &fakeBroker{letters: letters, fates: []inspect.Fate{{Letter: letters[0], Sent: true}, {Letter: letters[1], Why: "it was sent back 3 times already"}}}
		f := &fakePlatform{broker: broker}
		r := call(t, f, strings.Fields(tt.args)...)
		if r.code != tt.code || !strings.Contains(r.out+r.err, tt.says) || strings.Join(broker.calls, " ") != tt.calls {
			t.Errorf("%s: exit code %d, %v\n%s%s", tt.args, r.code, broker.calls, r.out, r.err)
		}
	}
}

func TestFolded(t *testing.T) {
	for _, tt := range [][2]string{{"", ""}, {"one two three", "one\ntwo\nthree"}, {"a bcdefghijklm n", "a\nbcdefg\nhijklm\nn"}, {"ä ö ü ß", "ä ö ü\nß"}} {
		if got := folded(tt[0], 6); got != tt[1] {
			t.Errorf("%q is folded to %q", tt[0], got)
		}
	}
}
