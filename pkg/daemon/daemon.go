package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/valyala/fasthttp"
)

const (
	// A service's heap is a few megabytes. Collected whenever it has doubled, as is usual, it would be collected dozens of times a
	// second under load; so it may grow to two and a half times its size, but not beyond half of what its container has. With three
	// times, a thousand clients made it 64 MiB for 57, with five 81, and no order was cheaper. A bound that 2,000 connections reach by
	// themselves would have it collected all the time: 48 MiB let a third as many orders end.
	gcPercent   = 150
	memoryBound = 128 << 20

	// linger is how long a stopping service goes on answering with "Connection: close". A client that keeps its connection
	// learns by that to take another one, so that no request meets one that is just being closed.
	linger = time.Second
	// stopTimeout is how long everything may take to stop; the kubelet kills after 30 s, of which 5 s passed before SIGTERM.
	stopTimeout = 23 * time.Second
	// finishTimeout is what the last requests get of it: those that were coming in when it began have come or are refused by then, and
	// a client that reads slowly shall not keep the parts from their own end.
	finishTimeout = requestTimeout
)

// Part is something of a service that runs until it is stopped.
type Part struct {
	Name string
	// Run works until ctx ends, finishes what it has in hand, and returns. If it returns before, the service ends.
	Run func(ctx context.Context) error
	// Drain, if there is one, is called before Run's ctx ends, to bring to an end what was begun, until its own ctx ends.
	Drain func(ctx context.Context) error
}

// Within is a Drain that gives up after a while.
func Within(most time.Duration, drain func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, most)
		defer cancel()
		return drain(ctx)
	}
}

// Service is all that Run needs.
type Service struct {
	Name     string
	Log      *slog.Logger
	Listener net.Listener // closed by Run
	// Connections is how many may be open at once, 12,000 where it is 0. Who comes then has one closed that says nothing, or waits.
	Connections int
	Routes      *http.ServeMux // health, readiness, liveness and metrics are added to it
	// Direct are the handlers of what is asked for thousands of times a second, by method and path: "POST /orders". They are spared
	// what net/http's handlers need, which costs more than all else about a small request.
	Direct   map[string]fasthttp.RequestHandler
	Registry *prometheus.Registry
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
	server := d.server()
	failed := make(chan error, len(s.Parts)+1)
	parts := make([]started, 0, len(s.Parts))
	for _, p := range s.Parts {
		parts = append(parts, start(ctx, p, failed))
	}
	go func() {
		if err := server.Serve(d.Listener); err != nil {
			failed <- fmt.Errorf("serve HTTP: %w", err)
		}
	}()
	s.Log.InfoContext(ctx, "serving", "address", s.Listener.Addr().String())

	var first error
	select {
	case <-ctx.Done():
	case first = <-failed:
		s.Log.ErrorContext(ctx, "a part of the service failed, stopping", "error", first.Error())
	}
	return errors.Join(first, d.stop(context.WithoutCancel(ctx), server, parts))
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

func (d *running) stop(ctx context.Context, server *fasthttp.Server, parts []started) error {
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
	finish, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	if err := server.ShutdownWithContext(finish); err != nil {
		errs = append(errs, fmt.Errorf("finish the last requests: %w", err))
	}
	if err := d.Listener.Close(); err != nil { // it is open where the server had not begun
		errs = append(errs, fmt.Errorf("take no more connections: %w", err))
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
