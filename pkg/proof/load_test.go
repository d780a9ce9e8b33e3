package proof

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// shop answers orders as it is told to, by their number from 1.
func shop(t *testing.T, answer func(n int64, w http.ResponseWriter)) (address string, orders *atomic.Int64) {
	t.Helper()
	orders = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != "POST" || r.URL.Path != "/orders" || r.Header.Get("Content-Type") != "application/json" || string(body) != `{"userId":"bench","showId":7,"quantity":2}` {
			t.Errorf("%s %s %s %v", r.Method, r.URL, body, err)
		}
		answer(orders.Add(1), w)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), orders
}

func TestAnswersAreCounted(t *testing.T) {
	address, orders := shop(t, func(n int64, w http.ResponseWriter) {
		switch {
		case n%10 == 0:
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusConflict)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
		if _, err := io.WriteString(w, `{"status":"accepted"}`); err != nil {
			t.Error(err)
		}
	})
	a, err := Load{Address: address, Show: 7, Quantity: 2, Clients: 4, Duration: time.Minute, Orders: 100}.Run(t.Context())
	if err != nil || a.Sent != 100 || orders.Load() != 100 || a.Statuses[202] != 90 || a.Statuses[409] != 10 || a.Accepted.Count != 90 || a.Others.Count != 10 || len(a.Failures) > 0 {
		t.Errorf("%+v %v", a, err)
	}
	if l := a.Accepted; l.P50 <= 0 || l.P99 < l.P50 || l.P999 < l.P99 || l.Max < l.P999 || a.PerSecond() <= 0 {
		t.Errorf("%+v", a)
	}
}

// Who is told to come back when no more orders are begun does not wait for that.
func TestABusyAPIDoesNotMakeALoadLonger(t *testing.T) {
	t.Parallel()
	address, orders := shop(t, func(_ int64, w http.ResponseWriter) {
		w.Header().Set("Retry-After", "600")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	a, err := Load{Address: address, Show: 7, Quantity: 2, Clients: 3, Duration: 10 * time.Second}.Run(t.Context())
	if err != nil || a.Statuses[503] != 3 || orders.Load() != 3 || a.Took > 5*time.Second {
		t.Errorf("%+v %v", a, err)
	}
}

// A server that closes what is idle fails nobody.
func TestAnIdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	var orders, connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		orders.Add(1)
		w.WriteHeader(http.StatusAccepted)
	}))
	server.Config.IdleTimeout = 50 * time.Millisecond
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	a, err := Load{Address: strings.TrimPrefix(server.URL, "http://"), Show: 7, Quantity: 2, Clients: 1, Rate: 0.5, Duration: 5 * time.Second}.Run(t.Context())
	if err != nil || a.Statuses[202] != 3 || orders.Load() != 3 || connections.Load() != 3 || len(a.Failures) > 0 {
		t.Errorf("%+v %v, %d connections", a, err, connections.Load())
	}
}

// An answer that takes long makes the orders behind it late, and that counts.
func TestWhatIsDueCountsFromThen(t *testing.T) {
	const stall = 200 * time.Millisecond
	address, _ := shop(t, func(n int64, w http.ResponseWriter) {
		if n == 1 {
			time.Sleep(stall) // the answer's own time is what is measured
		}
		w.WriteHeader(http.StatusAccepted)
	})
	a, err := Load{Address: address, Show: 7, Quantity: 2, Clients: 1, Rate: 1000, Duration: 300 * time.Millisecond, Orders: 100}.Run(t.Context())
	if err != nil || a.Sent != 100 {
		t.Fatalf("%+v %v", a, err)
	}
	if a.Accepted.P50 < 100 || a.Accepted.Max < 200 {
		t.Errorf("the late ones do not count: %+v", a.Accepted)
	}
}

func TestABusyAPIIsObeyed(t *testing.T) {
	address, orders := shop(t, func(n int64, w http.ResponseWriter) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	a, err := Load{Address: address, Show: 7, Quantity: 2, Clients: 2, Duration: 500 * time.Millisecond}.Run(t.Context())
	if err != nil || orders.Load() != 2 || a.Statuses[503] != 2 || a.PerSecond() != 0 {
		t.Errorf("%d orders, %+v %v", orders.Load(), a, err)
	}
}

func TestAnOrderIsSentAgain(t *testing.T) {
	address, orders := shop(t, func(n int64, w http.ResponseWriter) {
		if n%2 == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	a, err := Load{Address: address, Show: 7, Quantity: 2, Clients: 1, Duration: time.Minute, Orders: 5, Persist: true}.Run(t.Context())
	if err != nil || a.Sent != 5 || orders.Load() != 10 || a.Statuses[202] != 5 || a.Statuses[503] != 5 {
		t.Errorf("%d orders, %+v %v", orders.Load(), a, err)
	}
	closed, orders := shop(t, func(n int64, w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) })
	a, err = Load{Address: closed, Show: 7, Quantity: 2, Clients: 1, Duration: 100 * time.Millisecond, Orders: 1, Persist: true}.Run(t.Context())
	if err != nil || a.Sent != 1 || a.Statuses[503] < 2 || orders.Load() != a.Statuses[503] {
		t.Errorf("%d orders, %+v %v", orders.Load(), a, err)
	}
}

// With a history an order has a key, and is sent again under the same one until somebody says what became of it.
func TestAKeyIsKept(t *testing.T) {
	var file bytes.Buffer
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != `{"userId":"`+key+`","showId":7,"quantity":2}` {
			t.Errorf("%s %v", body, err)
		}
		switch asked = append(asked, key); len(asked) {
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 3:
			w.WriteHeader(http.StatusAccepted)
			_, err = io.WriteString(w, `{"status":"accepted","orderId":17}`)
		default:
			w.WriteHeader(http.StatusConflict)
			_, err = io.WriteString(w, `{"error":"not_enough_stock","available":1}`)
		}
		if err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	load := Load{Address: strings.TrimPrefix(server.URL, "http://"), Show: 7, Quantity: 2, Clients: 1, Duration: time.Minute, Orders: 2, Persist: true, History: Record(&file)}
	a, err := load.Run(t.Context())
	if err != nil || a.Sent != 2 || len(asked) != 4 || asked[0] != asked[1] || asked[1] != asked[2] || asked[2] == asked[3] {
		t.Fatalf("%q %+v %v", asked, a, err)
	}
	h, err := ReadHistory(&file)
	if err != nil || len(h.Asked) != 2 || h.Asked[0].Key != asked[0] || h.Asked[0].Show != 7 || h.Asked[0].Quantity != 2 {
		t.Fatalf("%+v %v", h, err)
	}
	var told []Answer
	for _, got := range append(h.Asked[0].Answers, h.Asked[1].Answers...) {
		got.At = time.Time{}
		told = append(told, got)
	}
	want := []Answer{{Available: -1, Said: "the connection was closed"}, {Status: 503, Available: -1}, {Status: 202, Order: 17, Available: -1}, {Status: 409, Available: 1}}
	if !slices.Equal(told, want) {
		t.Errorf("%+v", told)
	}
	load.History = Record(full{})
	if _, err := load.Run(t.Context()); err == nil {
		t.Error("the history could not be written, and nobody knows")
	}
}

func TestWhatIsNotAnswered(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello\r\n") // the connection is cut anyway
			_ = conn.Close()
		}
	}()
	a, err := Load{Address: listener.Addr().String(), Show: 7, Quantity: 2, Clients: 1, Duration: time.Minute, Orders: 1}.Run(t.Context())
	if err != nil || len(a.Failures) != 1 || len(a.Statuses) != 0 || a.Sent != 1 {
		t.Errorf("%+v %v", a, err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	a, err = Load{Address: listener.Addr().String(), Show: 7, Quantity: 2, Clients: 1, Duration: time.Minute, Orders: 1}.Run(t.Context())
	if err != nil || a.Failures["dial: connect: connection refused"] != 1 {
		t.Errorf("%+v %v", a, err)
	}
}

func TestLoadStaysOnLoopback(t *testing.T) {
	for _, address := range []string{"192.0.2.1:80", "localhost:80", "127.0.0.1", ""} {
		if _, err := (Load{Address: address, Clients: 1, Duration: time.Second}).Run(t.Context()); err == nil {
			t.Errorf("%q is loaded", address)
		}
	}
	if _, err := (Load{Address: "192.0.2.1:80", Container: true, Clients: 1, Duration: time.Second}).Run(t.Context()); err == nil {
		t.Error("an address that no container has is loaded")
	}
}

func TestAnInterruptEndsTheLoad(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	address, _ := shop(t, func(n int64, w http.ResponseWriter) {
		if n == 10 {
			cancel(stopped)
		}
		w.WriteHeader(http.StatusAccepted)
	})
	if _, err := (Load{Address: address, Show: 7, Quantity: 2, Clients: 2, Duration: time.Hour}).Run(ctx); !errors.Is(err, stopped) {
		t.Error(err)
	}
}

// Neither does it wait for an answer that does not come.
func TestAnInterruptDoesNotWaitForAnAnswer(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped, over := errors.New("stopped"), make(chan struct{})
	address, _ := shop(t, func(int64, http.ResponseWriter) {
		cancel(stopped)
		<-over
	})
	defer close(over)
	began := time.Now()
	_, err := Load{Address: address, Show: 7, Quantity: 2, Clients: 1, Duration: time.Hour}.Run(ctx)
	if took := time.Since(began); !errors.Is(err, stopped) || took > answerTimeout/2 {
		t.Errorf("%v after %s", err, took)
	}
}

// Where the answers take far longer than the rate allows, the load ends some time after it should, and tells what it did not send.
func TestAHopelessRateEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load := Load{Rate: 1e9, Duration: time.Second}
		began := time.Now()
		next := load.turns(began)
		sent := 0
		for due, ok := next(); ok; due, ok = next() {
			sent++
			if due.After(began.Add(load.Duration)) {
				t.Errorf("one is due at %s", due.Sub(began))
			}
			<-time.After(100 * time.Millisecond) // what an answer takes
		}
		if took := time.Since(began); took < load.Duration || took > load.Duration+2*answerTimeout || sent > 200 {
			t.Errorf("%d orders in %s", sent, took)
		}
		for want, l := range map[int64]Load{1e9: load, 110: {Rate: 100, Duration: 1100 * time.Millisecond}, 2: {Rate: 100, Duration: time.Second, Orders: 2}} {
			if due := l.due(); due != want {
				t.Errorf("%d are due, not %d", due, want)
			}
		}
	})
}

// One order in three hundred years is one order.
func TestATinyRate(t *testing.T) {
	address, orders := shop(t, func(_ int64, w http.ResponseWriter) { w.WriteHeader(http.StatusAccepted) })
	a, err := Load{Address: address, Show: 7, Quantity: 2, Clients: 2, Rate: 1e-10, Duration: 100 * time.Millisecond}.Run(t.Context())
	if err != nil || a.Sent != 1 || orders.Load() != 1 {
		t.Errorf("%d orders came, %+v %v", orders.Load(), a, err)
	}
}

func TestALoadLastsUntilItIsEnough(t *testing.T) {
	enough := make(chan struct{})
	address, orders := shop(t, func(n int64, w http.ResponseWriter) {
		if n == 10 {
			close(enough)
		}
		if n < 13 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	a, err := Load{Address: address, Show: 7, Quantity: 2, Clients: 1, Duration: time.Hour, Persist: true, Until: enough}.Run(t.Context())
	if err != nil || orders.Load() != 13 || a.Statuses[503] != 12 || a.Statuses[202] != 1 || a.Sent != 1 {
		t.Errorf("the order in hand is to be told of, and no other begun: %+v %v", a, err)
	}
}

func TestTurnsKeepTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		next := Load{Rate: 4, Duration: time.Second}.turns(began)
		for i := range 4 {
			if due, ok := next(); !ok || due.Sub(began) != time.Duration(i)*250*time.Millisecond {
				t.Errorf("%d: %v %v", i, due.Sub(began), ok)
			}
		}
		if _, ok := next(); ok {
			t.Error("a fifth in the first second")
		}
	})
}

func TestLatency(t *testing.T) {
	var micros []uint32
	for i := range uint32(1000) {
		micros = append(micros, 1000*(1000-i))
	}
	if got, want := latency(micros), (Latency{Count: 1000, P50: 501, P99: 991, P999: 1000, Max: 1000}); got != want {
		t.Errorf("%+v", got)
	}
}
