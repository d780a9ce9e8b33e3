package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

const (
	requestTimeout = 10 * time.Second // for a request to come in, from its first byte to its last
	answerTimeout  = 45 * time.Second // longer than any GET waits
	idleTimeout    = 2 * time.Minute
	headerLimit    = 16 << 10
	connections    = 12_000 // open at once; an idle one takes up to 20 KiB of the 256 MiB that a service's container may have
	checkTimeout   = time.Second
	longestWait    = 5 * time.Second       // that /ready may be asked for
	readyAgain     = 20 * time.Millisecond // and how often it looks meanwhile

	// A service's heap is a few megabytes. Collected whenever it has doubled, as is usual, it would be collected dozens of times a
	// second under load; so it may grow to five times its size, but not beyond half of what its container has. A bound that 2,000
	// connections reach by themselves would have it collected all the time: 48 MiB let a third as many orders end.
	gcPercent   = 400
	memoryBound = 128 << 20

	// linger is how long a stopping service goes on answering with "Connection: close". A client that keeps its connection
	// learns by that to take another one, so that no request meets one that is just being closed.
	linger = time.Second
	// stopTimeout is how long everything may take to stop; the kubelet kills after 30 s, of which 5 s passed before SIGTERM.
	stopTimeout = 20 * time.Second
)

// Part is something of a service that runs until it is stopped.
type Part struct {
	Name string
	// Run works until ctx ends, finishes what it has in hand, and returns. If it returns before, the service ends.
	Run func(ctx context.Context) error
	// Drain, if there is one, is called before Run's ctx ends, to bring to an end what was begun, until its own ctx ends.
	Drain func(ctx context.Context) error
}

// Service is all that Run needs.
type Service struct {
	Name     string
	Log      *slog.Logger
	Listener net.Listener // closed by Run
	// Connections is how many may be open at once, 12,000 where it is 0. Who comes then waits until one is closed.
	Connections int
	Routes      *http.ServeMux // health, readiness, liveness and metrics are added to it
	Registry    *prometheus.Registry
	// Checks say what is well outside of the service; one that fails makes /health say "degraded".
	Checks map[string]func(context.Context) error
	// Ready says why the service cannot take requests, or nil. While it is stopping it is not ready, whatever Ready says.
	Ready func(context.Context) error
	// OnStop, if there is one, is called when the service begins to stop: requests that wait for something should answer.
	OnStop func()
	// Parts are started together, and stopped one after another, in their order, after the last request was answered.
	Parts []Part
}

// NewLogger makes the logger of a service: a JSON line an event.
func NewLogger(w io.Writer, level slog.Level, service, pod string) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})).With("service", service, "pod", pod)
}

// NewRegistry makes a registry with the metrics of the process.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Run serves until ctx ends and everything has stopped in order. Its error says what failed or was left undone.
func Run(ctx context.Context, s Service) error {
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(memoryBound))
	d := &running{Service: s}
	requests := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "http_request_seconds", Help: "Requests by method, route and status.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
	}, []string{"method", "route", "status"})
	s.Registry.MustRegister(requests)
	d.routes()
	server := &http.Server{
		Handler:     d.observed(requests),
		ReadTimeout: requestTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: headerLimit,
		ErrorLog:       slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug), // broken connections are the clients' business
	}
	failed := make(chan error, len(s.Parts)+1)
	running := make([]started, 0, len(s.Parts))
	for _, p := range s.Parts {
		running = append(running, start(ctx, p, failed))
	}
	go func() {
		failed <- fmt.Errorf("serve HTTP: %w", server.Serve(netutil.LimitListener(s.Listener, cmp.Or(s.Connections, connections))))
	}()
	s.Log.InfoContext(ctx, "serving", "address", s.Listener.Addr().String())

	var first error
	select {
	case <-ctx.Done():
	case first = <-failed:
		s.Log.ErrorContext(ctx, "a part of the service failed, stopping", "error", first.Error())
	}
	return errors.Join(first, d.stop(context.WithoutCancel(ctx), server, running))
}

// started is a part that runs.
type started struct {
	Part
	cancel context.CancelFunc
	done   chan struct{} // closed after err is set
	err    *error
}

func start(ctx context.Context, p Part, failed chan<- error) started {
	// Not ended by ctx: parts are stopped in their order.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := started{Part: p, cancel: cancel, done: make(chan struct{}), err: new(error)}
	go func() {
		err := p.Run(ctx)
		if err != nil {
			err = fmt.Errorf("%s: %w", p.Name, err)
		}
		*s.err = err
		close(s.done)
		if ctx.Err() == nil {
			failed <- errors.Join(err, fmt.Errorf("%s ended by itself", p.Name))
		}
	}()
	return s
}

// running is a service and whether it is stopping.
type running struct {
	Service
	stopping atomic.Bool
}

func (d *running) stop(ctx context.Context, server *http.Server, parts []started) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	d.stopping.Store(true)
	d.Log.InfoContext(ctx, "stopping")
	if d.OnStop != nil {
		d.OnStop()
	}
	timer := time.NewTimer(linger)
	defer timer.Stop()
	<-timer.C
	var errs []error
	if err := server.Shutdown(ctx); err != nil {
		errs = append(errs, fmt.Errorf("finish the last requests: %w", err))
	}
	for _, p := range parts {
		if p.Drain != nil {
			if err := p.Drain(ctx); err != nil {
				errs = append(errs, fmt.Errorf("drain %s: %w", p.Name, err))
			}
		}
		p.cancel()
		select {
		case <-p.done:
			errs = append(errs, *p.err)
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("%s did not stop in time", p.Name))
		}
	}
	d.Log.InfoContext(ctx, "stopped", "duration", time.Since(began).String())
	return errors.Join(errs...)
}

// routes adds what every service answers.
func (d *running) routes() {
	d.Routes.HandleFunc("GET /health", d.health)
	d.Routes.HandleFunc("GET /ready", d.ready)
	d.Routes.HandleFunc("GET /live", func(w http.ResponseWriter, r *http.Request) {
		d.reply(w, r, http.StatusOK, map[string]string{"status": "ok"})
	})
	d.Routes.Handle("GET /metrics", promhttp.HandlerFor(d.Registry, promhttp.HandlerOpts{}))
	d.Routes.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		d.reply(w, r, http.StatusNotFound, map[string]string{"error": "not_found", "message": "there is nothing at " + r.URL.Path})
	})
}

// observed counts requests, and tells clients of a stopping service to use another connection.
func (d *running) observed(requests *prometheus.HistogramVec) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		if d.stopping.Load() {
			w.Header().Set("Connection", "close")
		}
		noted := &status{ResponseWriter: w, code: http.StatusOK, stopping: &d.stopping}
		d.Routes.ServeHTTP(noted, r)
		requests.WithLabelValues(method(r.Method), r.Pattern, strconv.Itoa(noted.code)).Observe(time.Since(began).Seconds())
	})
}

// method keeps a client from making up label values.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions:
		return m
	}
	return "other"
}

// status is a ResponseWriter that knows what was answered.
type status struct {
	http.ResponseWriter
	code     int
	stopping *atomic.Bool
}

// WriteHeader implements http.ResponseWriter. A request that came before the stop may be answered after it.
func (s *status) WriteHeader(code int) {
	s.code = code
	if s.stopping.Load() {
		s.Header().Set("Connection", "close")
	}
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController find what is behind.
func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// health always answers 200: it tells how things are, and no probe should kill a service over another's trouble.
func (d *running) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	answer := map[string]string{"status": "ok", "service": d.Name}
	for name, check := range d.Checks {
		wg.Go(func() {
			err := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			answer[name] = "ok"
			if err != nil {
				answer[name], answer["status"] = err.Error(), "degraded"
			}
		})
	}
	wg.Wait()
	d.reply(w, r, http.StatusOK, answer)
}

// ready answers whether the service takes requests. Asked with ?wait=1s it waits so long for it to become true: a probe that comes
// a moment too early would only come again after its period.
func (d *running) ready(w http.ResponseWriter, r *http.Request) {
	var wait time.Duration
	if text := r.URL.Query().Get("wait"); text != "" {
		var err error
		if wait, err = time.ParseDuration(text); err != nil || wait < 0 || wait > longestWait {
			d.reply(w, r, http.StatusBadRequest, map[string]string{"error": "invalid_request",
				"message": fmt.Sprintf("wait must be a duration from 0s to %s, such as 1s, not %q", longestWait, text)})
			return
		}
	}
	if err := d.whenReady(r.Context(), wait); err != nil {
		d.reply(w, r, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "service": d.Name, "reason": err.Error()})
		return
	}
	d.reply(w, r, http.StatusOK, map[string]string{"status": "ok", "service": d.Name})
}

// whenReady returns nil as soon as the service is ready, or after wait why it is not.
func (d *running) whenReady(ctx context.Context, wait time.Duration) error {
	over := time.NewTimer(wait)
	defer over.Stop()
	again := time.NewTicker(readyAgain)
	defer again.Stop()
	for last := wait == 0; ; {
		err := d.isReady(ctx)
		if err == nil || last || d.stopping.Load() {
			return err
		}
		select {
		case <-again.C:
		case <-over.C:
			last = true
		case <-ctx.Done():
			return err
		}
	}
}

func (d *running) isReady(ctx context.Context) error {
	if d.stopping.Load() {
		return errors.New("the service is stopping")
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return d.Ready(ctx)
}

func (d *running) reply(w http.ResponseWriter, r *http.Request, code int, body map[string]string) {
	raw, err := json.Marshal(body)
	if err != nil {
		code, raw = http.StatusInternalServerError, []byte(`{"error":"internal"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(code)
	if _, err := w.Write(append(raw, '\n')); err != nil {
		d.Log.DebugContext(r.Context(), "an answer could not be sent", "error", err.Error())
	}
}
