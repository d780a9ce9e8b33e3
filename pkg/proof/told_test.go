package proof

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWhatClientsWereTold(t *testing.T) {
	told := func(statuses ...int) (all []Answer) {
		for _, status := range statuses {
			got := Answer{Status: status, Available: -1}
			if status == 202 {
				got.Order = 1
			}
			all = append(all, got)
		}
		return all
	}
	good := Row{ID: 1, User: "r-1", Show: 1, Quantity: 2, Status: "CONFIRMED", Payments: 1}
	with := func(change func(*Row)) []Row {
		r := good
		change(&r)
		return []Row{r}
	}
	twice := []Row{good, {ID: 2, User: "r-1", Show: 1, Quantity: 2, Status: "CONFIRMED", Payments: 1}}
	for _, c := range []struct {
		name    string
		answers []Answer
		rows    []Row
		broken  string // "" is none
		row     string
	}{
		{"accepted", told(202), []Row{good}, "", ""},
		{"accepted after many tries, and asked again", told(0, 503, 0, 202, 0, 202), []Row{good}, "", ""},
		{"refused", told(409), nil, "", ""},
		{"taken, the answer lost, seats given back, and refused", told(0, 409), []Row{good}, "", ""},
		{"in doubt, and there", told(0, 503), []Row{good}, "", ""},
		{"in doubt, and not there", told(0, 500), nil, "", ""},
		{"killed before it was told", nil, []Row{good}, "", ""},
		{"cancelled", told(202), with(func(r *Row) { r.Status = "CANCELLED" }), "", ""},
		{"not there", told(202), nil, "accepted", "r-1: order 1 was accepted, and is not there"},
		{"there, under another id", told(202), with(func(r *Row) { r.ID = 2 }), "accepted", "r-1: order 1 was accepted, and is not there"},
		{"there twice", told(0, 202), twice, "keys", "r-1: orders 1 and 2"},
		{"there twice, and nobody was told", told(0), twice, "keys", "r-1: orders 1 and 2"},
		{"another id the next time", append(told(202), Answer{Status: 202, Order: 2}), []Row{good}, "keys", "r-1: order 1, and then order 2"},
		{"accepted without an id", append(told(202), Answer{Status: 202}), []Row{good}, "keys", "r-1: accepted without an order's id"},
		{"refused after it was accepted", told(202, 409), []Row{good}, "keys", "r-1: order 1, and then the answer 409"},
		{"refused, and taken", told(409), []Row{good}, "accepted", "r-1: refused, and there is order 1"},
		{"refused with seats left", []Answer{{Status: 409, Available: 2}}, nil, "accepted", "r-1: refused 2 seats of show 1 with 2 left"},
		{"too many seats", told(202), with(func(r *Row) { r.Quantity = 3 }), "accepted", "r-1: order 1 is 3 of show 1, not 2 of show 1"},
		{"the wrong show", told(202), with(func(r *Row) { r.Show = 2 }), "accepted", "r-1: order 1 is 2 of show 2, not 2 of show 1"},
		{"nobody's", told(409), with(func(r *Row) { r.User = "r-2" }), "accepted", "order 1 of r-2, for which nobody asked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := sound()
			f.Rows, f.History = c.rows, &History{Runs: []string{"r"}, Asked: []*Asked{{Key: "r-1", Show: 1, Quantity: 2, Answers: c.answers}}}
			var broken []string
			for _, found := range Judge(f).Invariants {
				if !found.Holds {
					broken = append(broken, found.Name, found.Rows[0])
				}
			}
			want := []string{c.broken, c.row}
			if c.broken == "" {
				want = nil
			}
			if diff := cmp.Diff(want, broken); diff != "" {
				t.Errorf("want and got:\n%s", diff)
			}
		})
	}
}

func TestOutagesOfTheBroker(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	facts := func(lasts time.Duration, ask int, answer func(i int) Answer, status string) Facts {
		f := sound()
		f.History = &History{Runs: []string{"r"}, Outages: []Outage{{Down: began, Up: began.Add(lasts)}}}
		for i := range ask {
			at := began.Add(time.Duration(i+1) * time.Millisecond)
			got := answer(i)
			got.At = at
			a := &Asked{Key: fmt.Sprint("r-", i), Show: 1, Quantity: 1, Began: at, Answers: []Answer{got}}
			f.History.Asked = append(f.History.Asked, a)
			if got.Order > 0 {
				f.Rows = append(f.Rows, Row{ID: got.Order, User: a.Key, Show: 1, Quantity: 1, Status: status})
			}
		}
		return f
	}
	taken := func(i int) Answer { return Answer{Status: 202, Order: int64(i + 1)} }
	busy := func(int) Answer { return Answer{Status: 503} }
	some := func(i int) Answer {
		if i < fewestTaken-1 {
			return taken(i)
		}
		return busy(i)
	}
	for _, c := range []struct {
		facts   Facts
		broken  int64
		counted string
	}{
		{facts(10*time.Second, 20, taken, "CONFIRMED"), 0, "1 outage of 2s and more, 20 orders accepted"},
		{facts(10*time.Second, 20, taken, "PENDING"), 20, "1 outage of 2s and more, 20 orders accepted"},
		{facts(10*time.Second, 20, busy, ""), 1, "1 outage of 2s and more, 0 orders accepted"},
		{facts(time.Second, 20, busy, ""), 0, "0 outages of 2s and more, 0 orders accepted"},
		{facts(10*time.Second, 120, taken, "CONFIRMED"), 0, "1 outage of 2s and more, 120 orders accepted; 120 or more in each of 1 of 10s and more"},
		{facts(10*time.Second, 120, some, "CONFIRMED"), 1, "1 outage of 2s and more, 99 orders accepted; 99 or more in each of 1 of 10s and more"},
		{facts(10*time.Second, 120, busy, ""), 1, "1 outage of 2s and more, 0 orders accepted; 0 or more in each of 1 of 10s and more"},
		{facts(9*time.Second, 120, some, "CONFIRMED"), 0, "1 outage of 2s and more, 99 orders accepted"},
	} {
		if found := outages(c.facts); found.Broken != c.broken || found.Counted != c.counted || found.Unasked {
			t.Errorf("%+v", found)
		}
	}
}

func TestPoisonIsADeadLetter(t *testing.T) {
	f := sound()
	f.History = &History{Published: []Published{{Message: "m", As: AsPoison}, {Message: "order.created:1", As: AsAgain}}}
	if found := letters(f); found.Broken != 0 || found.Counted != "2 dead letters, 1 published as poison" {
		t.Errorf("%+v", found)
	}
	if found := events(f); found.Broken != 0 || found.Counted != "9 sent, 0 lost, 0 unexpected, 1 published again by others" {
		t.Errorf("%+v", found)
	}
	f.History.Published = append(f.History.Published, Published{Message: "n", As: AsPoison})
	if found := letters(f); found.Broken != 1 || found.Rows[0] != `message "n": published as poison, and not in the dead letters` {
		t.Errorf("%+v", found)
	}
}

// What was recorded is what is read, also behind an earlier run, and up to where the recorder was killed.
func TestAHistoryIsReadAsItWasRecorded(t *testing.T) {
	var file bytes.Buffer
	Record(&file)
	r := Record(&file)
	first, second := r.Ask(1, 2), r.Ask(3, 1)
	r.Answer(second, Answer{Status: 409, Available: 0})
	r.Answer(first, Answer{Said: "no answer in 10s"})
	r.Answer(first, Answer{Status: 202, Order: 7, Available: -1})
	r.Broker(false)
	r.Published("order.created:7", AsAgain)
	r.Published("poison", AsPoison)
	r.Broker(true)
	r.Broker(false)
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	whole := file.String()
	h, err := ReadHistory(strings.NewReader(whole + `{"at":"2026-01-0`))
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Runs) != 2 || h.Runs[1] != r.Run || len(h.Asked) != 2 || len(h.Published) != 2 || len(h.Outages) != 2 || h.Outages[0].Up.IsZero() || !h.Outages[1].Up.IsZero() {
		t.Fatalf("%+v", h)
	}
	a := h.Asked[0]
	if a.Key != r.Run+"-1" || a.Show != 1 || a.Quantity != 2 || a.Began.IsZero() || len(a.Answers) != 2 || a.Answers[0].Final() || a.Answers[0].Said == "" || a.Accepted().Order != 7 {
		t.Errorf("%+v", a)
	}
	if got := h.Asked[1].Answers[0]; got.Status != 409 || got.Available != 0 {
		t.Errorf("%+v", got)
	}
	if h.Published[1].Message != "poison" || h.Published[1].As != AsPoison {
		t.Errorf("%+v", h.Published)
	}
	for _, c := range []struct{ file, why string }{
		{"", "the client history is empty"},
		{"hello\n", "line 1 of the client history: invalid character"},
		{`{"did":"began","run":"a"}` + "\n", "it has no time"},
		{`{"at":"2026-01-01T00:00:00Z","did":"began","run":"a'b"}` + "\n", "is no name of a run"},
		{`{"at":"2026-01-01T00:00:00Z","did":"danced"}` + "\n", "nothing is known of \"danced\""},
		{whole + `{"at":"2026-01-01T00:00:00Z","did":"answered","key":"x-1"}` + "\n", "nobody asked with the key"},
		{whole + `{"at":"2026-01-01T00:00:00Z","did":"asked","key":"x-1","show":1,"quantity":1}` + "\n", "is no new key of a run"},
		{whole + `{"at":"2026-01-01T00:00:00Z","did":"published","message":"m","as":"joke"}` + "\n", "published as"},
		{strings.Repeat("x", longestLine+1<<16), "it is longer than any of a history"},
	} {
		if _, err := ReadHistory(strings.NewReader(c.file)); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%.60q: %v", c.file, err)
		}
	}
}

// full takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }

func TestAHistoryThatCannotBeWrittenIsAnError(t *testing.T) {
	r := Record(full{})
	r.Ask(1, 1)
	if r.Err() == nil || !strings.Contains(r.Err().Error(), "the disk is full") {
		t.Error(r.Err())
	}
}

func TestJUnit(t *testing.T) {
	f := sound()
	f.Shows[0].Sum = 125
	var out bytes.Buffer
	if err := Judge(f).JUnit(&out); err != nil {
		t.Fatal(err)
	}
	var s junitSuite
	if err := xml.Unmarshal(out.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if s.Tests != 11 || s.Failures != 1 || s.Skipped != 1 || len(s.Cases) != 11 || s.Cases[1].Failure == nil || !strings.Contains(s.Cases[1].Failure.Text, "oversold: 125 of 100") || s.Cases[10].Skipped == nil {
		t.Errorf("%s", out.String())
	}
	if err := Judge(f).JUnit(full{}); err == nil {
		t.Error("what cannot be written is written")
	}
}

func FuzzReadHistory(f *testing.F) {
	var file bytes.Buffer
	r := Record(&file)
	r.Answer(r.Ask(1, 2), Answer{Status: 202, Order: 7})
	r.Published("m", AsPoison)
	r.Broker(false)
	f.Add(file.Bytes())
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := ReadHistory(bytes.NewReader(raw))
		if err != nil {
			return
		}
		for _, a := range h.Asked {
			if run, _, ok := strings.Cut(a.Key, "-"); !ok || !slices.Contains(h.Runs, run) || !plainRun(run) {
				t.Errorf("%q is a key of %q", a.Key, h.Runs)
			}
		}
		if strings.Count(ofRuns(h), "'") != 2*len(h.Runs) {
			t.Errorf("a statement with %q", ofRuns(h))
		}
	})
}
