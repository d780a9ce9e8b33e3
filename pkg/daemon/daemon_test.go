package daemon_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"platformctl/pkg/daemon"

	"github.com/google/go-cmp/cmp"
)

const patience = 30 * time.Second

func TestLoadTellsAllFaultsAtOnce(t *testing.T) {
	var base daemon.Base
	var database daemon.Database
	var broker daemon.Broker
	err := daemon.Load([]string{"LOG_LEVEL=loud", "DB_PORT=x", "RABBITMQ_PREFETCH=0", "RABBITMQ_USERNAME=u", "PGUSER="}, &base, &database, &broker)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"LOG_LEVEL is not a valid", "DB_PORT is not a valid uint16", "PGUSER is not set", "PGPASSWORD is not set", "PGDATABASE is not set", "RABBITMQ_PREFETCH is not a valid", "RABBITMQ_PASSWORD is not set"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	for _, unwanted := range []string{"RABBITMQ_USERNAME", "RABBITMQ_PORT", "\n"} {
		if strings.Contains(err.Error(), unwanted) {
			t.Errorf("%q is in: %v", unwanted, err)
		}
	}
}

func TestLoad(t *testing.T) {
	var base daemon.Base
	var database daemon.Database
	var broker daemon.Broker
	if err := daemon.Load([]string{
		"LOG_LEVEL=debug", "PGHOST=", "DB_HOST=old", "PGPORT=1", "DB_PORT=2", "DB_NAME=d", "DB_USER=u ser", "DB_PASSWORD=p@ss/wo:rd=",
		"RABBITMQ_HOST=::1", "RABBITMQ_USERNAME=u", "RABBITMQ_PASSWORD=p#", "RABBITMQ_VHOST=/",
	}, &base, &database, &broker); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(daemon.Base{LogLevel: slog.LevelDebug, PodName: "local"}, base); diff != "" {
		t.Error(diff)
	}
	// A variable goes before its older name, and an empty one is not set.
	if got, want := database.URL(), "postgres://u%20ser:p%40ss%2Fwo%3Ard=@old:1/d?sslmode=disable"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := broker.URL(), "amqp://u:p%23@[::1]:5672/%2F"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if broker.Events != "events.topic" || broker.DeadLetters != "dlx.direct" || broker.Prefetch != 500 {
		t.Errorf("%+v", broker)
	}
}

// running is a service in a test.
type running struct {
	url  string
	stop context.CancelFunc
	done chan error
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func start(t *testing.T, s daemon.Service) running {
	t.Helper()
	s.Name, s.Log, s.Registry = "test", slog.New(slog.DiscardHandler), daemon.NewRegistry()
	if s.Listener == nil {
		s.Listener = listen(t)
	}
	if s.Routes == nil {
		s.Routes = http.NewServeMux()
	}
	if s.Ready == nil {
		s.Ready = func(context.Context) error { return nil }
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r := running{url: "http://" + s.Listener.Addr().String(), stop: stop, done: make(chan error, 1)}
	finished := make(chan struct{})
	go func() {
		r.done <- daemon.Run(ctx, s)
		close(finished)
	}()
	t.Cleanup(func() {
		stop()
		<-finished
	})
	return r
}

func (r running) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(patience):
		t.Fatal("the service does not end")
		return nil
	}
}

func get(t *testing.T, url string) (int, string, bool) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Error(err)
		return 0, "", false
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Error(err)
	}
	return answer.StatusCode, strings.TrimSpace(string(body)), answer.Close
}

// Headers that are larger than any client of ours needs are refused; what is a little smaller is answered.
func TestHeadersAreLimited(t *testing.T) {
	s := start(t, daemon.Service{})
	for size, want := range map[int]int{7 << 10: http.StatusOK, 12 << 10: http.StatusRequestHeaderFieldsTooLarge, 32 << 10: http.StatusRequestHeaderFieldsTooLarge, 700 << 10: http.StatusRequestHeaderFieldsTooLarge, 8 << 20: http.StatusRequestHeaderFieldsTooLarge} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/live", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("X-Large", strings.Repeat("x", size))
		answer, err := http.DefaultClient.Do(request)
		if err != nil && size > 1<<20 {
			continue // more than is read before the connection is closed: the client may be cut off before it sees its answer
		}
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if err := answer.Body.Close(); err != nil {
			t.Error(err)
		}
		if answer.StatusCode != want {
			t.Errorf("%d bytes: %s", size, answer.Status)
		}
	}
	if code, _, _ := get(t, s.url+"/live"); code != http.StatusOK {
		t.Errorf("after that: %d", code)
	}
}

// Who comes when all connections are taken waits while all of them are at work, and then gets the place of who has been silent for longest.
func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	routes := http.NewServeMux()
	routes.HandleFunc("GET /work", func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-finish
	})
	s := start(t, daemon.Service{Connections: 2, Routes: routes})
	ask := func(ctx context.Context, client *http.Client, path string) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, http.NoBody)
		if err != nil {
			return err
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		return answer.Body.Close()
	}
	worked := make(chan error, 2)
	var taken [2]*http.Client
	var closed [2]atomic.Bool
	for i := range taken {
		taken[i] = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return &noticed{c, &closed[i]}, err
		}}}
		defer taken[i].CloseIdleConnections()
		go func() { worked <- ask(t.Context(), taken[i], "/work") }()
		<-begun
	}
	third := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	served := make(chan error, 1)
	go func() {
		patient, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		served <- ask(patient, third, "/live")
	}()
	select {
	case err := <-served:
		t.Fatalf("a third connection was served: %v", err)
	case <-time.After(1500 * time.Millisecond): // longer than who says nothing is left alone
	}
	for range taken {
		finish <- struct{}{}
		if err := <-worked; err != nil {
			t.Error(err)
		}
	}
	if err := <-served; err != nil {
		t.Errorf("with two that say nothing: %v", err)
	}
	// One of them had to go, and one only.
	for deadline := time.Now().Add(patience); !closed[0].Load() && !closed[1].Load() && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if closed[0].Load() == closed[1].Load() {
		t.Errorf("closed: %v and %v", closed[0].Load(), closed[1].Load())
	}
}

// noticed is a connection that tells when its client has closed it, having seen its end.
type noticed struct {
	net.Conn
	closed *atomic.Bool
}

func (n *noticed) Close() error {
	n.closed.Store(true)
	return n.Conn.Close()
}

// A client that does not come to its end has the service stop without it; the parts are stopped in order all the same.
func TestAStopDoesNotWaitForARequest(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	defer close(finish)
	routes := http.NewServeMux()
	routes.HandleFunc("GET /work", func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-finish
	})
	drained := false
	s := start(t, daemon.Service{Routes: routes, Parts: []daemon.Part{{
		Name:  "part",
		Run:   func(ctx context.Context) error { <-ctx.Done(); return nil },
		Drain: func(ctx context.Context) error { drained = true; return ctx.Err() },
	}}})
	go func() {
		if answer, err := http.Get(s.url + "/work"); err == nil {
			answer.Body.Close()
		}
	}()
	<-begun
	s.stop()
	if err := s.end(t); err == nil || !strings.Contains(err.Error(), "finish the last requests") || strings.Contains(err.Error(), "drain") || !drained {
		t.Errorf("%v, drained: %v", err, drained)
	}
}

func TestHealthReadinessLivenessAndMetrics(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var trouble error
	check := func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		return trouble
	}
	r := start(t, daemon.Service{Checks: map[string]func(context.Context) error{"database": check}, Ready: check})
	expect := func(path string, code int, body string) {
		t.Helper()
		if c, b, _ := get(t, r.url+path); c != code || b != body {
			t.Errorf("%s: %d %s", path, c, b)
		}
	}
	expect("/health", 200, `{"database":"ok","service":"test","status":"ok"}`)
	expect("/ready", 200, `{"service":"test","status":"ok"}`)
	mu.Lock()
	trouble = errors.New("gone")
	mu.Unlock()
	expect("/health", 200, `{"database":"gone","service":"test","status":"degraded"}`)
	expect("/ready", 503, `{"reason":"gone","service":"test","status":"not ready"}`)
	expect("/ready?wait=50ms", 503, `{"reason":"gone","service":"test","status":"not ready"}`)
	expect("/ready?wait=6s", 400, `{"error":"invalid_request","message":"wait must be a duration from 0s to 5s, such as 1s, not \"6s\""}`)
	expect("/live", 200, `{"status":"ok"}`)
	if got := post(t, r.url+"/live", ""); got != `405 {"error":"method_not_allowed","message":"/live takes GET"} false` {
		t.Error(got)
	}
	expect("/nothing", 404, `{"error":"not_found","message":"there is nothing at /nothing"}`)
	if c, b, _ := get(t, r.url+"/metrics"); c != 200 || !strings.Contains(b, `http_request_seconds_count{method="GET",route="GET /ready",status="503"} 2`) || !strings.Contains(b, "go_goroutines") {
		t.Errorf("/metrics: %d %s", c, b)
	}
}

// Who waits for readiness is told when it comes, and at once when the service stops: it will not come any more.
func TestReadinessIsWaitedFor(t *testing.T) {
	t.Parallel()
	var ready atomic.Bool
	asked := make(chan struct{}, 1000)
	r := start(t, daemon.Service{Ready: func(context.Context) error {
		asked <- struct{}{}
		if ready.Load() {
			return nil
		}
		return errors.New("gone")
	}})
	answered := make(chan string, 1)
	ask := func() {
		code, body, _ := get(t, r.url+"/ready?wait=5s")
		answered <- fmt.Sprint(code, " ", body)
	}
	went := func(want string) {
		t.Helper()
		began := time.Now()
		if got := <-answered; !strings.HasPrefix(got, want) || time.Since(began) > 4*time.Second {
			t.Errorf("%s after %s, not %s", got, time.Since(began), want)
		}
	}
	go ask()
	<-asked
	<-asked
	ready.Store(true)
	went(`200 {"service":"test","status":"ok"}`)

	ready.Store(false)
	for len(asked) > 0 {
		<-asked
	}
	go ask()
	<-asked
	r.stop()
	went("503 ")
}

// A stop lets requests end, tells clients to go elsewhere, and stops the parts one after another.
func TestStopInOrder(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var lines []string
	note := func(line string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, line)
	}
	part := func(name string) daemon.Part {
		return daemon.Part{Name: name,
			Run:   func(ctx context.Context) error { <-ctx.Done(); note(name + " ended"); return nil },
			Drain: func(ctx context.Context) error { note(name + " drained"); return nil },
		}
	}
	mux := http.NewServeMux()
	arrived, finish := make(chan struct{}), make(chan struct{})
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-finish
		note("request ended")
		fmt.Fprint(w, "done")
	})
	stopping := make(chan struct{})
	r := start(t, daemon.Service{Routes: mux, OnStop: func() { note("stopping"); close(stopping) }, Parts: []daemon.Part{part("a"), part("b")}})
	slow := make(chan string, 1)
	go func() {
		code, body, closed := get(t, r.url+"/slow")
		slow <- fmt.Sprint(code, body, closed)
	}()
	<-arrived
	if _, _, closed := get(t, r.url+"/live"); closed {
		t.Error("connections are closed before the stop")
	}
	r.stop()
	<-stopping
	if code, body, closed := get(t, r.url+"/live"); code != 200 || !closed {
		t.Errorf("while it stops: %d %s, closed %t", code, body, closed)
	}
	if code, _, _ := get(t, r.url+"/ready"); code != 503 {
		t.Errorf("ready while it stops: %d", code)
	}
	// The request goes on until nothing new is let in.
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			break
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("connections are still taken")
		}
	}
	close(finish)
	if got := <-slow; got != "200donefalse" && got != "200donetrue" {
		t.Errorf("the request in hand: %s", got)
	}
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	if want := []string{"stopping", "request ended", "a drained", "a ended", "b drained", "b ended"}; !slices.Equal(lines, want) {
		t.Errorf("%v", lines)
	}
}

func TestAPartThatFailsEndsTheService(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	ended := make(chan struct{})
	r := start(t, daemon.Service{Parts: []daemon.Part{
		{Name: "other", Run: func(ctx context.Context) error { <-ctx.Done(); close(ended); return nil }},
		{Name: "weak", Run: func(context.Context) error { return broken }},
	}})
	if err := r.end(t); !errors.Is(err, broken) || !strings.Contains(err.Error(), "weak") {
		t.Errorf("%v", err)
	}
	<-ended
}

func TestLogsAreJSONLines(t *testing.T) {
	var out strings.Builder
	log := daemon.NewLogger(&out, slog.LevelInfo, "order-api", "pod-1")
	log.Debug("not this")
	log.Info("this", "order", 7)
	var line map[string]any
	if err := json.Unmarshal([]byte(out.String()), &line); err != nil || line["msg"] != "this" || line["service"] != "order-api" || line["pod"] != "pod-1" || line["order"] != 7.0 {
		t.Errorf("%s %v", out.String(), err)
	}
}
