package page_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"platformctl/pkg/page"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const patience = 30 * time.Second

// shop is what the page shows, in memory: what a test sets is what is read.
type shop struct {
	mu      sync.Mutex
	shows   []page.Show
	orders  []page.Order
	broker  page.Broker
	away    bool
	asked   int // how often the database was
	answers prometheus.Histogram
}

func newShop() *shop {
	return &shop{
		shows:   []page.Show{{ID: 1, Name: "Rock <b>&", Venue: "Hall", Capacity: 10, Free: 7, Held: 1, Sold: 2}, {ID: 2, Name: "Opera", Capacity: 5, Sold: 5}},
		orders:  []page.Order{{ID: 7, Show: "Opera", Quantity: 5, Status: "PENDING", Accepted: time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC), Sent: new(time.Date(2025, 1, 2, 3, 4, 5, 9e6, time.UTC))}},
		broker:  page.Broker{Queues: []page.Queue{{Name: "q", What: "Waits", Messages: 3}}},
		answers: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x", Buckets: []float64{0.001, 0.01, 0.1}}),
	}
}

func (s *shop) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// ask is the database.
func (s *shop) ask() error {
	if s.asked++; s.away {
		return errors.New("password authentication failed for secret@10.0.0.1")
	}
	return nil
}

func (s *shop) Shows(context.Context) ([]page.Show, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]page.Show{}, s.shows...), s.ask()
}

func (s *shop) Free(context.Context) ([]page.Show, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var free []page.Show
	for _, show := range s.shows {
		free = append(free, page.Show{ID: show.ID, Capacity: show.Capacity, Free: show.Free})
	}
	return free, s.ask()
}

func (s *shop) Orders(context.Context, int) ([]page.Order, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]page.Order{}, s.orders...), s.ask()
}

func (s *shop) Outbox(context.Context) (page.Outbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return page.Outbox{}, s.ask()
}

func (s *shop) Broker() page.Broker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broker
}

func (s *shop) Figures() (page.Figures, error) {
	var m dto.Metric
	err := s.answers.Write(&m)
	return page.Figures{Accepted: float64(m.GetHistogram().GetSampleCount()), Answers: m.GetHistogram(), Ends: &dto.Histogram{}}, err
}

// serve has a page run until the test ends.
func serve(t *testing.T, s *shop) (*page.Page, string) {
	t.Helper()
	p := page.New("pod-1", s, slog.New(slog.DiscardHandler))
	mux := http.NewServeMux()
	p.Routes(mux)
	server := httptest.NewServer(mux)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		p.Close()
		server.Close()
		stop()
		running.Wait()
	})
	return p, server.URL
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(body)
}

// frames reads a stream.
type frames struct {
	*testing.T
	body  io.ReadCloser
	lines *bufio.Scanner
}

func watch(t *testing.T, url string) frames {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/page/stream", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %s", answer.Status, answer.Header)
	}
	f := frames{T: t, body: answer.Body, lines: bufio.NewScanner(answer.Body)}
	f.lines.Buffer(nil, 1<<20)
	return f
}

// next is the next frame that has a part.
func (f frames) next(part string) map[string]json.RawMessage {
	f.Helper()
	for f.lines.Scan() {
		text, is := strings.CutPrefix(f.lines.Text(), "data: {")
		if !is {
			continue
		}
		var frame map[string]json.RawMessage
		if err := json.Unmarshal([]byte("{"+text), &frame); err != nil {
			f.Fatal(err)
		}
		if _, has := frame[part]; has {
			return frame
		}
	}
	f.Fatalf("the stream ended before %s: %v", part, f.lines.Err())
	return nil
}

// Nothing of another host, nothing inline, nothing that the policy would refuse, and all of it not heavier than it may be.
func TestWhatThePageIsMadeOf(t *testing.T) {
	const most = 60_000 // bytes, of everything that a browser loads to show it
	_, url := serve(t, newShop())
	answer, document := get(t, url+"/")
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
	if got := answer.Header.Get("Content-Security-Policy"); got != policy {
		t.Errorf("the policy is %q", got)
	}
	for header, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8"} {
		if got := answer.Header.Get(header); got != want {
			t.Errorf("%s: %q", header, got)
		}
	}
	if inline := regexp.MustCompile(`(?i)<script[^>]*>[^<]|<style|\sstyle=|\son\w+=|javascript:|https?://|src="//`).FindString(document); inline != "" {
		t.Errorf("inline or foreign: %s", inline)
	}
	files, err := os.ReadDir("assets")
	if err != nil {
		t.Fatal(err)
	}
	weight := 0
	for _, f := range files {
		raw, err := os.ReadFile("assets/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		weight += len(raw)
		if f.Name() == "index.html" {
			continue
		}
		answer, body := get(t, url+"/page/"+f.Name())
		if answer.StatusCode != http.StatusOK || body != string(raw) || answer.Header.Get("Content-Security-Policy") != policy {
			t.Errorf("%s: %s", f.Name(), answer.Status)
		}
		if found := regexp.MustCompile(`https?://[^w]|innerHTML|outerHTML|insertAdjacentHTML|eval\(|new Function|document\.write`).FindString(body); found != "" {
			t.Errorf("%s has %s", f.Name(), found)
		}
	}
	if weight += len(document); weight > most {
		t.Errorf("the page weighs %d bytes, more than %d", weight, most)
	}
	t.Logf("the page weighs %d bytes", weight)
	for path, status := range map[string]int{"/page/index.html": 404, "/page/nothing.js": 404, "/page/..%2fpage.go": 404} {
		if answer, _ := get(t, url+path); answer.StatusCode != status {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
	refused, err := http.Post(url+"/", "text/plain", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	refused.Body.Close()
	if refused.StatusCode != http.StatusMethodNotAllowed || refused.Header.Get("Allow") != "GET" {
		t.Errorf("POST /: %s", refused.Status)
	}
}

// The server writes what there is, as text, so that it can be read without JavaScript.
func TestWithoutJavaScript(t *testing.T) {
	s := newShop()
	s.broker.Trouble, s.broker.Dead = "The broker is away.", 2
	_, url := serve(t, s)
	_, document := get(t, url+"/")
	plain := regexp.MustCompile(`\s+`).ReplaceAllString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(document, " "), " ")
	for _, want := range []string{"pod-1", "Rock &lt;b&gt;&amp; Hall, 10 seats 7 1 2", "Opera 5 seats Sold out 0 5", "7 03:04:05 Opera&nbsp;×&nbsp;5 PENDING 9 ms – – – – –", "The broker is away.", "Waits 3 q", "Dead letters 2"} {
		if !strings.Contains(plain, want) {
			t.Errorf("no %q in %s", want, plain)
		}
	}
}

// The first frame is the whole state, and then comes what changes, and only that, soon after it happened.
func TestTheStream(t *testing.T) {
	s := newShop()
	p, url := serve(t, s)
	stream := watch(t, url)
	first := stream.next("shows")
	for _, part := range []string{"pod", "database", "shows", "orders", "outbox", "broker", "history"} {
		if first[part] == nil {
			t.Errorf("no %s in the first frame", part)
		}
	}
	s.set(func() { s.shows[0].Free, s.shows[0].Held = 5, 3 })
	happened := time.Now()
	p.Happened(1, func(int) page.Event { return page.Event{Key: "order.created", Order: "8", At: happened} })
	events := stream.next("events")
	if got := string(events["events"]); !strings.Contains(got, `"key":"order.created","order":"8"`) || !strings.Contains(got, `"missed":0`) {
		t.Errorf("%s", got)
	}
	changed := stream.next("shows")
	t.Logf("seen %s after it happened", time.Since(happened))
	if changed["orders"] != nil || changed["broker"] != nil {
		t.Errorf("sent again: %v", changed)
	}
	var shows []page.Show
	if err := json.Unmarshal(changed["shows"], &shows); err != nil || shows[0].Free != 5 {
		t.Errorf("%v %v", shows, err)
	}
	// What others did is seen as well, and the broker's trouble.
	s.set(func() { s.shows[1].Free = 1; s.broker.Trouble = "away" })
	for !strings.Contains(string(stream.next("broker")["broker"]), "away") { // how it was before may come first
	}
	stream.next("shows")
	// Who comes back begins with all of it.
	if again := watch(t, url).next("shows"); !strings.Contains(string(again["broker"]), "away") || !strings.Contains(string(again["shows"]), `"free":1`) {
		t.Errorf("%v", again)
	}
}

// Thousands of events are a sample of each kind, and a number.
func TestManyEventsAreSampled(t *testing.T) {
	p, url := serve(t, newShop())
	stream := watch(t, url)
	stream.next("shows")
	asked := 0
	for range 50 {
		p.Happened(100, func(i int) page.Event { asked++; return page.Event{Key: "order.created", Order: fmt.Sprint(i)} })
	}
	all := 0
	for all < 5000 {
		var e struct {
			Shown  []page.Event
			Missed int
		}
		if err := json.Unmarshal(stream.next("events")["events"], &e); err != nil {
			t.Fatal(err)
		}
		if len(e.Shown) > 24 {
			t.Errorf("%d events in a frame", len(e.Shown))
		}
		all += len(e.Shown) + e.Missed
	}
	if all != 5000 || asked > 500 {
		t.Errorf("%d events were counted, and %d asked for", all, asked)
	}
}

// While nobody looks nothing is asked, neither the database nor for events.
func TestNobodyLooks(t *testing.T) {
	s := newShop()
	p, url := serve(t, s)
	stream := watch(t, url)
	stream.next("shows")
	if err := stream.body.Close(); err != nil {
		t.Fatal(err)
	}
	asked := func() (n int) { s.set(func() { n = s.asked }); return n }
	watched := func() (is bool) { p.Happened(1, func(int) page.Event { is = true; return page.Event{} }); return is }
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); watched(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatal("the stream that was left is still fed")
		}
	}
	before := asked()
	calm := time.NewTimer(1500 * time.Millisecond) // longer than between two looks
	defer calm.Stop()
	<-calm.C
	if after := asked(); after > before+3 { // a look may have been on its way
		t.Errorf("the database was asked %d times though nobody looks", after-before)
	}
}

func TestStreamsAreBoundedAndEnd(t *testing.T) {
	p, url := serve(t, newShop())
	streams := make([]frames, 0, 16)
	for range 16 {
		streams = append(streams, watch(t, url))
	}
	answer, body := get(t, url+"/page/stream")
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" || !strings.Contains(body, "16 streams") {
		t.Errorf("%s %s", answer.Status, body)
	}
	p.Close()
	for _, s := range streams {
		for s.lines.Scan() {
			continue
		}
		if err := s.lines.Err(); err != nil {
			t.Errorf("a stream did not end well: %v", err)
		}
	}
	if answer, _ := get(t, url+"/page/stream"); answer.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after the end: %s", answer.Status)
	}
}

// Without the database the page shows what it knew, says so in words of its own, and heals.
func TestTheDatabaseIsAway(t *testing.T) {
	s := newShop()
	_, url := serve(t, s)
	stream := watch(t, url)
	stream.next("shows")
	s.set(func() { s.away = true })
	if got := string(stream.next("database")["database"]); got != `"The database does not answer."` {
		t.Errorf("%s", got)
	}
	if _, document := get(t, url+"/"); !strings.Contains(document, "The database does not answer.") || !strings.Contains(document, "Opera") || strings.Contains(document, "secret") {
		t.Errorf("%s", document)
	}
	s.set(func() { s.away = false })
	if got := string(stream.next("database")["database"]); got != `""` {
		t.Errorf("%s", got)
	}
}

// The state can be had at once, for programs.
func TestTheState(t *testing.T) {
	s := newShop()
	_, url := serve(t, s)
	_, body := get(t, url+"/page/state")
	var got page.State
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	want := page.State{Pod: "pod-1", Shows: s.shows, Orders: s.orders, Broker: s.broker, History: []page.Point{}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What was done lately is there for who comes later, with percentiles of what was measured in between.
func TestTheHistory(t *testing.T) {
	s := newShop()
	_, url := serve(t, s)
	for range 100 {
		s.answers.Observe(0.005)
	}
	stream := watch(t, url)
	for {
		var point page.Point
		if err := json.Unmarshal(stream.next("point")["point"], &point); err != nil {
			t.Fatal(err)
		}
		s.answers.Observe(0.05)
		if point.AnswerP99MS == nil || point.In <= 0 {
			continue
		}
		if p99 := *point.AnswerP99MS; p99 < 1 || p99 > 100 || math.IsNaN(p99) || point.EndP99MS != nil {
			t.Errorf("%v %v", p99, point.EndP99MS)
		}
		break
	}
}

// Where the database knows the free seats and not, for now, how the others divide, what was taken meanwhile is held.
func TestFreeSeatsAreShownBeforeTheRest(t *testing.T) {
	s := newShop()
	p, url := serve(t, s)
	stream := watch(t, url)
	stream.next("shows")
	for _, tt := range []struct{ free, held, sold int32 }{{4, 4, 2}, {10, 0, 0}, {7, 1, 2}} {
		s.set(func() { s.shows[0].Free, s.shows[0].Held, s.shows[0].Sold = tt.free, tt.held, tt.sold })
		p.Happened(1, func(int) page.Event { return page.Event{Key: "order.created", Order: "8"} })
		for {
			var shows []page.Show
			if err := json.Unmarshal(stream.next("shows")["shows"], &shows); err != nil {
				t.Fatal(err)
			}
			if got := shows[0]; got.Free+got.Held+got.Sold != got.Capacity || got.Held < 0 || got.Sold < 0 {
				t.Fatalf("%+v", got)
			} else if got.Free == tt.free && got.Held == tt.held && got.Sold == tt.sold {
				break
			}
		}
	}
}
