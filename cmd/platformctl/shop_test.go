package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platformctl/pkg/fault"
)

// api behaves as the platform's API does: the client is tested against it, the true pair end to end.
type api struct {
	mu       sync.Mutex
	troubles []func(http.ResponseWriter) // what the next requests meet instead of an answer
	orders   map[string]int64            // by idempotency key
	polls    int                         // of an order, until it ends
	endsAs   string
	asked    []string // method and path, for order
	waits    []string
}

const showsJSON = `[{"showId":1,"name":"Rock Festival 2025","venue":"Arena","startsAt":"2025-07-01T19:00:00Z","capacity":5000,"free":4996,"held":1,"sold":3},
{"showId":3,"name":"Standup Night","venue":null,"startsAt":null,"capacity":120,"free":120,"held":0,"sold":0}]`

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, r.Method+" "+r.URL.Path)
	if len(a.troubles) > 0 {
		trouble := a.troubles[0]
		a.troubles = a.troubles[1:]
		if trouble != nil {
			trouble(w)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	switch r.Method + " " + r.URL.Path {
	case "POST /orders":
		a.order(w, r)
	case "GET /orders/17":
		a.waits = append(a.waits, r.URL.Query().Get("wait"))
		a.polls--
		if a.polls >= 0 {
			fmt.Fprint(w, `{"orderId":17,"showId":1,"quantity":2,"status":"PENDING","paymentStatus":null,"amount":null,"createdAt":"2026-01-02T03:04:05.5Z","endedAt":null}`)
			return
		}
		fmt.Fprintf(w, `{"orderId":17,"showId":1,"quantity":2,"status":%q,"paymentStatus":"SUCCEEDED","amount":200,"createdAt":"2026-01-02T03:04:05.5Z","endedAt":"2026-01-02T03:04:05.9Z","later":"field"}`, a.endsAs)
	case "GET /orders":
		fmt.Fprint(w, `{"orders":[{"orderId":18,"showId":3,"quantity":1,"status":"PENDING","paymentStatus":null,"amount":null,"createdAt":"2026-01-02T03:04:06Z","endedAt":null},
{"orderId":17,"showId":1,"quantity":2,"status":"CONFIRMED","paymentStatus":"SUCCEEDED","amount":200,"createdAt":"2026-01-02T03:04:05.5Z","endedAt":"2026-01-02T03:04:05.9Z"}],"next":"`+r.URL.Query().Get("limit")+`"}`)
	case "GET /shows":
		fmt.Fprint(w, showsJSON)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"error":"order_not_found"}`)
	}
}

func (a *api) order(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"error":"invalid_request","message":%q}`, err.Error())
		return
	}
	key := r.Header.Get("Idempotency-Key")
	switch {
	case key == "" || r.Header.Get("Content-Type") != "application/json" || len(body) != 3 || body["userId"] == "":
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_request","message":"missing: something"}`)
	case body["showId"] == 9.0:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"error":"show_not_found"}`)
	case body["quantity"].(float64) > 120:
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"error":"not_enough_stock","available":120}`)
	default:
		if a.orders == nil {
			a.orders = map[string]int64{}
		}
		if _, ok := a.orders[key]; !ok {
			a.orders[key] = int64(17 + len(a.orders))
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, `{"status":"accepted","orderId":%d}`, a.orders[key])
	}
}

func typed(command string) string { return "platformctl " + command }

func status(code int, header, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		if header != "" {
			w.Header().Set("Retry-After", header)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// cut ends the connection without an answer, as a pod that is killed does.
func cut(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_ = conn.Close() // the client sees it
}

func serve(t *testing.T, a http.Handler) string {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	return server.URL
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestPlace(t *testing.T) {
	ok := wish{UserID: "123", ShowID: 1, Quantity: 2}
	for _, c := range []struct {
		name     string
		wish     wish
		troubles []func(http.ResponseWriter)
		within   time.Duration
		code     int
		says     string
		cure     string
		asked    int
	}{
		{name: "accepted", wish: ok, asked: 1},
		{name: "busy, then accepted", wish: ok, troubles: []func(http.ResponseWriter){
			status(503, "0", `{"error":"unavailable"}`), status(503, time.Now().UTC().Format(http.TimeFormat), ""), cut,
		}, asked: 4},
		{name: "unknown show", wish: wish{"1", 9, 1}, code: fault.CodeUsage, says: "no show 9", cure: "--show 3   Standup Night, 120 seats free", asked: 2},
		{name: "unknown show, and no list of them", wish: wish{"1", 9, 1}, troubles: []func(http.ResponseWriter){nil, status(500, "", "")},
			code: fault.CodeUsage, says: "no show 9", cure: "platformctl shows", asked: 2},
		{name: "too many", wish: wish{"1", 3, 121}, code: fault.CodeFailed, says: "show 3 has 120 seats available, not 121", asked: 1},
		{name: "refused", wish: wish{"", 1, 1}, code: fault.CodeUsage, says: "missing: something", asked: 1},
		{name: "broken", wish: ok, troubles: []func(http.ResponseWriter){status(500, "", "<html>out of order</html>")},
			code: fault.CodeFailed, says: "500 Internal Server Error: <html>out of order</html>", asked: 1},
		{name: "not the API", wish: ok, troubles: []func(http.ResponseWriter){status(200, "", "hello")},
			code: fault.CodeFailed, says: "not what the platform's API says", asked: 1},
		{name: "no order's id", wish: ok, troubles: []func(http.ResponseWriter){status(202, "", "{}")},
			code: fault.CodeFailed, says: "named no orderId", asked: 1},
		{name: "busy for too long", wish: ok, within: 300 * time.Millisecond, troubles: []func(http.ResponseWriter){status(503, "60", `{"error":"unavailable","message":"too many orders are waiting, try again"}`)},
			code: fault.CodeTimedOut, says: "too many orders are waiting", cure: "platformctl status", asked: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &api{troubles: c.troubles}
			if c.within == 0 {
				c.within = 20 * time.Second
			}
			id, err := newShop(serve(t, a), typed).place(within(t, c.within), "key", c.wish)
			if fault.CodeOf(err) != c.code {
				t.Fatalf("exit code %d, want %d: %v", fault.CodeOf(err), c.code, err)
			}
			if err == nil && id != 17 {
				t.Errorf("order %d", id)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			if !strings.Contains(fault.CureOf(err), c.cure) {
				t.Errorf("the cure %q is without %q", fault.CureOf(err), c.cure)
			}
			if len(a.asked) != c.asked {
				t.Errorf("asked %v, want %d requests", a.asked, c.asked)
			}
			if len(a.orders) > 1 {
				t.Errorf("ordered %d times", len(a.orders))
			}
		})
	}
}

func TestFollow(t *testing.T) {
	for _, end := range []string{"CONFIRMED", "CANCELLED"} {
		a := &api{polls: 2, endsAs: end, troubles: []func(http.ResponseWriter){nil, cut, status(503, "0", "")}}
		var seen []string
		last, err := newShop(serve(t, a), typed).follow(within(t, 20*time.Second), 17, func(o placedOrder) { seen = append(seen, o.Status) })
		if err != nil || last.Status != end || *last.Amount != 200 || last.EndedAt.Sub(last.CreatedAt) != 400*time.Millisecond {
			t.Errorf("%+v, %v", last, err)
		}
		if diff := cmp.Diff([]string{"PENDING", "PENDING", end}, seen); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"", "2s", "2s"}, a.waits); diff != "" {
			t.Errorf("the waits that were asked for: %s", diff)
		}
	}
}

func TestFollowEndsInTime(t *testing.T) {
	a := &api{polls: 1 << 30}
	last, err := newShop(serve(t, a), typed).follow(within(t, 350*time.Millisecond), 17, func(placedOrder) {})
	if fault.CodeOf(err) != fault.CodeTimedOut || last.Status != "PENDING" {
		t.Errorf("%+v, %v", last, err)
	}
	if n := len(a.asked); n < 2 || n > 5 {
		t.Errorf("asked %d times in 350 ms", n)
	}
}

func TestFollowIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := newShop(serve(t, &api{polls: 1 << 30}), typed).follow(ctx, 17, func(placedOrder) { cancel(errInterrupted) })
	if !errors.Is(err, errInterrupted) {
		t.Errorf("%v", err)
	}
}

func TestFollowAnUnknownOrder(t *testing.T) {
	_, err := newShop(serve(t, &api{}), typed).follow(within(t, 20*time.Second), 18, func(placedOrder) {})
	if fault.CodeOf(err) != fault.CodeFailed || !strings.Contains(err.Error(), "order_not_found") {
		t.Errorf("%v", err)
	}
}

func TestAnAPIThatSaysNothing(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	_, err = newShop("http://"+listener.Addr().String(), typed).shows(within(t, 200*time.Millisecond))
	if fault.CodeOf(err) != fault.CodeTimedOut || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
}

// nowhere is an address on which nothing listens, for now.
func nowhere(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return listener.Addr().String()
}

func TestNothingListens(t *testing.T) {
	t.Parallel()
	for _, long := range []time.Duration{300 * time.Millisecond, 20 * time.Second} {
		_, err := newShop("http://"+nowhere(t), typed).place(within(t, long), "key", wish{"1", 1, 1})
		if fault.CodeOf(err) != fault.CodeUnfit || !strings.Contains(err.Error(), "is not running: nothing listens") || strings.Contains(err.Error(), "may have been placed") ||
			!strings.HasPrefix(fault.CureOf(err), "platformctl up\n") {
			t.Errorf("%v, cure %q", err, fault.CureOf(err))
		}
	}
}

// A pod that starts anew refuses connections for a moment.
func TestNothingListensForAMoment(t *testing.T) {
	t.Parallel()
	address, asked := nowhere(t), make(chan struct{}, 1)
	s := newShop("http://"+address, typed)
	s.client.Transport = &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			select {
			case asked <- struct{}{}:
			default:
			}
		}
		return conn, err
	}}
	served := make(chan error, 1)
	server := &http.Server{Handler: &api{}, ReadHeaderTimeout: time.Minute}
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		<-asked
		listener, err := net.Listen("tcp", address)
		if err != nil {
			served <- err
			return
		}
		served <- server.Serve(listener)
	}()
	if id, err := s.place(within(t, 20*time.Second), "key", wish{"1", 1, 1}); err != nil || id != 17 {
		t.Errorf("order %d: %v", id, err)
	}
	select {
	case err := <-served:
		t.Error(err)
	default:
	}
}

// Where an answer was lost, and then nothing listens, nobody can tell whether there is an order.
func TestAnAnswerIsLost(t *testing.T) {
	t.Parallel()
	a := &api{}
	server := httptest.NewUnstartedServer(a)
	a.troubles = []func(http.ResponseWriter){func(w http.ResponseWriter) {
		cut(w)
		_ = server.Listener.Close() // what listens is gone, too
	}}
	server.Start()
	t.Cleanup(server.Close)
	_, err := newShop(server.URL, typed).place(within(t, 2*time.Second), "key", wish{"1", 1, 1})
	if fault.CodeOf(err) != fault.CodeUnfit || !strings.Contains(err.Error(), "may have been placed") {
		t.Error(err)
	}
}

func TestShows(t *testing.T) {
	all, err := newShop(serve(t, &api{}), typed).shows(within(t, 20*time.Second))
	if err != nil || len(all) != 2 || all[0].Sold != 3 || *all[0].Venue != "Arena" || all[1].Venue != nil {
		t.Errorf("%+v, %v", all, err)
	}
}
