package proof

import (
	"slices"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/contract"
)

func ptr(n int64) *int64 { return &n }

// sound are facts of a platform in which everything is right.
func sound() Facts {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return Facts{
		At: at, Since: at, Newest: at.Add(-time.Minute), Orders: 5, Payments: 4,
		Shows: []Show{{ID: 1, Name: "Rock", Exists: true, Capacity: 100, Sum: 4, Counter: ptr(4), Limit: ptr(100)}},
		Cells: []Cell{
			{Order: "CONFIRMED", Hold: "COMMITTED", Payment: "SUCCEEDED", Ended: true, Agrees: true, Count: 2, First: []int64{1, 2}},
			{Order: "CANCELLED", Hold: "RELEASED", Payment: "FAILED", Ended: true, Agrees: true, Count: 1, First: []int64{3}},
			{Order: "CANCELLED", Hold: "EXPIRED", Payment: "SUCCEEDED", Refund: true, Ended: true, Agrees: true, Count: 1, First: []int64{4}},
			{Order: "PENDING", Hold: "RESERVED", Agrees: true, Count: 1, First: []int64{5}},
		},
		Lives:   Lives{Accepted: 5, Ended: 4, Lapsed: 1, Seats: 2},
		Events:  Events{Sent: 9},
		Keys:    Keys{Count: 3},
		Letters: []Letter{{"order.created:8", "no"}, {"m", "no JSON"}},
		Queues:  []Queue{{Name: contract.QueueOrderCreated}, {Name: contract.QueuePaymentResults}, {Name: contract.QueueDeadLetters, Ready: 2}},
	}
}

func TestASoundPlatformHolds(t *testing.T) {
	r := Judge(sound())
	if !r.Holds || r.DeadLetters != 2 || len(r.Broken()) != 0 {
		t.Errorf("%+v", r)
	}
	var lines []string
	for _, f := range r.Invariants {
		lines = append(lines, f.ID+" "+f.Name+": "+f.Counted)
	}
	want := []string{
		"I1 accepted: 5 orders accepted",
		"I2 seats: 1 show, 4 of 100 seats held",
		"I3 rest: 1 PENDING, 0 late, outbox 0, queues 0, dead letters 2",
		"I4 payments: 4 payments, 5 orders",
		"I5 events: 9 sent, 0 lost, 0 unexpected, 0 published again by others",
		"I6 states: 2 CONFIRMED, 2 CANCELLED, 1 PENDING",
		"I7 keys: 3 keys",
		"I8 letters: 2 dead letters",
		"I9 ends: 4 of 5 ended",
		"I10 lapses: 1 hold lapsed, 2 seats back",
		"I11 outages: a client history tells of it",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
}

func TestWhatIsBrokenIsNamed(t *testing.T) {
	for _, c := range []struct {
		broken string // the only invariant that is
		row    string // the first row named
		rows   int64
		change func(*Facts)
	}{
		{"seats", "show 1 (Rock): the counter says 3 held, its reservations are 4", 1, func(f *Facts) { f.Shows[0].Counter = ptr(3) }},
		{"seats", "show 1 (Rock): the counter's capacity is 99, the show's 100", 1, func(f *Facts) { f.Shows[0].Limit = ptr(99) }},
		{"seats", "show 1 (Rock): it has no counter", 1, func(f *Facts) { f.Shows[0].Counter, f.Shows[0].Limit = nil, nil }},
		{"seats", "show 1 (Rock): oversold: 125 of 100 seats", 1, func(f *Facts) { f.Shows[0].Sum, f.Shows[0].Counter = 125, ptr(125) }},
		{"seats", "show 9: 3 seats are held, and there is no such show", 1, func(f *Facts) { f.Shows = append(f.Shows, Show{ID: 9, Sum: 3}) }},
		{"seats", "show 1 (Rock): oversold for a time: 101 of 100 seats", 1, func(f *Facts) { f.Shows[0].Peak = 101 }},
		{"rest", "order 5: PENDING", 1, func(f *Facts) { f.Cells[3].Waiting = true }},
		{"rest", "order 5: its hold is past its time", 1, func(f *Facts) {
			f.Cells[3] = Cell{Order: "CANCELLED", Hold: "RESERVED", Payment: "FAILED", Agrees: true, Lapsed: true, Count: 1, First: []int64{5}}
		}},
		{"rest", "order 4: CANCELLED and paid, but not marked to be paid back", 1, func(f *Facts) { f.Cells[2].Refund, f.Cells[2].Waiting = false, true }},
		{"rest", "outbox: order.created:7, there before 03:04:05", 12, func(f *Facts) {
			f.Outbox = Outbox{Count: 20, Waiting: 12, First: []string{"order.created:7", "order.created:8"}}
		}},
		{"rest", "queue payment.order-created.q: 1 ready, 2 unacknowledged", 3, func(f *Facts) { f.Queues[0].Ready, f.Queues[0].Unacked = 1, 2 }},
		{"payments", "payments with order_id 7: more than one", 3, func(f *Facts) { f.Twice = []Twice{{What: "order_id", Count: 3, First: []string{"7", "8"}}} }},
		{"payments", "payments with message_id m: more than one", 1, func(f *Facts) { f.Twice = []Twice{{What: "message_id", Count: 1, First: []string{"m"}}} }},
		{"states", "order 1: CONFIRMED RELEASED SUCCEEDED: no legal combination", 2, func(f *Facts) { f.Cells[0].Hold = "RELEASED" }},
		{"states", "order 1: CONFIRMED COMMITTED FAILED: no legal combination", 2, func(f *Facts) { f.Cells[0].Payment = "FAILED" }},
		{"states", "order 1: CONFIRMED COMMITTED -: no legal combination", 2, func(f *Facts) { f.Cells[0].Payment = "" }},
		{"states", "order 1: CONFIRMED - SUCCEEDED: no legal combination", 2, func(f *Facts) { f.Cells[0].Hold = "" }},
		{"states", "order 1: CONFIRMED RESERVED SUCCEEDED: no legal combination", 2, func(f *Facts) { f.Cells[0].Hold = "RESERVED" }},
		{"states", "order 3: CANCELLED COMMITTED FAILED: no legal combination", 1, func(f *Facts) { f.Cells[1].Hold = "COMMITTED" }},
		{"states", "order 3: CANCELLED RELEASED SUCCEEDED: no legal combination", 1, func(f *Facts) { f.Cells[1].Payment = "SUCCEEDED" }},
		{"states", "order 3: - - SUCCEEDED: no legal combination", 1, func(f *Facts) { f.Cells[1] = Cell{Payment: "SUCCEEDED", Agrees: true, Count: 1, First: []int64{3}} }},
		{"states", "order 3: - COMMITTED -: no legal combination", 1, func(f *Facts) { f.Cells[1] = Cell{Hold: "COMMITTED", Agrees: true, Count: 1, First: []int64{3}} }},
		{"states", "order 3: LOST RELEASED FAILED: no legal combination", 1, func(f *Facts) { f.Cells[1].Order = "LOST" }},
		{"states", "order 1: CONFIRMED COMMITTED SUCCEEDED: show, quantity or user differ", 2, func(f *Facts) { f.Cells[0].Agrees = false }},
		{"states", "order 1: CONFIRMED COMMITTED SUCCEEDED: it is marked to be paid back", 2, func(f *Facts) { f.Cells[0].Refund = true }},
		{"states", "order 5: PENDING RESERVED -: it has ended already", 1, func(f *Facts) { f.Cells[3].Ended = true }},
		{"events", "order 9: its order.created is lost", 1, func(f *Facts) { f.Events.Unpaid = Some{2, []int64{8, 9}} }}, // 8 is a dead letter
		{"events", "order 9: its order.created is lost", 1, func(f *Facts) { // 8 left the outbox meanwhile, and 7 is there still
			f.Leaving, f.Events.Unpaid = []string{"order.created:7", "order.created:8"}, Some{2, []int64{8, 9}}
		}},
		{"events", "order 8: its payment's result is lost", 2, func(f *Facts) { f.Events.Unsettled = Some{2, []int64{8, 9}} }},
		{"events", "order 8: paid for by another order's event", 1, func(f *Facts) { f.Events.Unexpected = Some{1, []int64{8}} }},
		{"letters", `dead letter "m": no reason`, 1, func(f *Facts) { f.Letters[1].Reason = "" }},
	} {
		t.Run(c.row, func(t *testing.T) {
			f := sound()
			c.change(&f)
			r := Judge(f)
			if r.Holds || !slices.Equal(r.Broken(), []string{c.broken}) {
				t.Fatalf("broken are %q", r.Broken())
			}
			for _, found := range r.Invariants {
				if found.Name == c.broken && (found.Broken != c.rows || len(found.Rows) == 0 || found.Rows[0] != c.row) {
					t.Errorf("%d rows, %q", found.Broken, found.Rows)
				}
			}
		})
	}
}

func TestWhatIsNotBroken(t *testing.T) {
	for name, change := range map[string]func(*Facts){
		"a message while orders arrive": func(f *Facts) { f.Newest, f.Queues[0].Ready = f.Since.Add(time.Second), 5 },
		"an event that is new":          func(f *Facts) { f.Outbox.Count = 5 },
		"a queue of somebody else's":    func(f *Facts) { f.Queues = append(f.Queues, Queue{Name: contract.QueuePaymentEvents, Ready: 9}) },
		"what waits in the queue": func(f *Facts) {
			f.Newest, f.Queues[0].Ready, f.Events.Unpaid = f.Since.Add(time.Second), 5, Some{5, []int64{5, 6, 7, 9, 10}}
		},
		"what left the outbox meanwhile": func(f *Facts) {
			f.Leaving = []string{"order.created:5", "order.created:6", "payment.failed:7"}
			f.Events.Unpaid, f.Events.Unsettled = Some{2, []int64{5, 6}}, Some{1, []int64{7}}
		},
		"no queue yet":                func(f *Facts) { f.Queues = nil },
		"confirmed by an old service": func(f *Facts) { f.Cells[0].Hold, f.Cells[0].Ended, f.Cells[0].Lapsed = "RESERVED", false, true },
		"cancelled by an old service": func(f *Facts) { f.Cells[1].Hold, f.Cells[1].Ended = "RESERVED", false },
		"a refund that is on its way": func(f *Facts) { f.Cells[2].Refund = false },
		"an expired order":            func(f *Facts) { f.Cells[2].Payment, f.Cells[2].Refund = "", false },
	} {
		f := sound()
		change(&f)
		if r := Judge(f); !r.Holds {
			t.Errorf("%s: %+v", name, r.Invariants)
		}
	}
}

func TestTenRowsAreNamedAtMost(t *testing.T) {
	f := sound()
	for i := range 3 {
		f.Cells = append(f.Cells, Cell{Order: "LOST", Hold: strings.Repeat("X", i), Agrees: true, Count: 1000, First: []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}})
	}
	found := Judge(f).Invariants[5]
	if found.Broken != 3000 || len(found.Rows) != most {
		t.Errorf("%d rows, %d named", found.Broken, len(found.Rows))
	}
}

func TestLettersAreParsed(t *testing.T) {
	letters, err := parseLetters([]byte("letter bQ== bm8=\nwarning\nletter  \nok\n"))
	if want := []Letter{{"m", "no"}, {"", ""}}; err != nil || !slices.Equal(letters, want) {
		t.Errorf("%v %v", letters, err)
	}
	for _, bad := range []string{"", "letter bQ== bm8=\n", "letter ! bm8=\nok", "Error: no leader"} {
		if _, err := parseLetters([]byte(bad)); err == nil {
			t.Errorf("%q is an answer", bad)
		}
	}
}

func TestQueuesAreParsed(t *testing.T) {
	queues, err := parseQueues([]byte("queue 3 1 a.q\nwarning\nqueue 0 0 b c\nok\n"))
	if want := []Queue{{"a.q", 3, 1}, {"b c", 0, 0}}; err != nil || !slices.Equal(queues, want) {
		t.Errorf("%v %v", queues, err)
	}
	if queues, err := parseQueues([]byte("ok\n")); err != nil || len(queues) != 0 {
		t.Errorf("%v %v", queues, err)
	}
	for _, bad := range []string{"", "queue 3 1 a.q\n", "queue 3 a.q\nok", "queue x 1 a.q\nok", "Error: no leader"} {
		if _, err := parseQueues([]byte(bad)); err == nil {
			t.Errorf("%q is an answer", bad)
		}
	}
}
