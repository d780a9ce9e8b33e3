package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
)

const (
	requestTimeout = 10 * time.Second // for a request to come in, from its first byte to its last
	answerTimeout  = 45 * time.Second // longer than any GET waits
	idleTimeout    = 2 * time.Minute
	headerLimit    = 8 << 10
	bodyLimit      = 64 << 10
	connections    = 12_000                 // open at once; an idle one takes up to 20 KiB of the 256 MiB that a service's container may have
	lookAgain      = 250 * time.Millisecond // for a client that has gone, while its request is answered
	checkTimeout   = time.Second
	longestWait    = 5 * time.Second       // that /ready may be asked for
	readyAgain     = 20 * time.Millisecond // and how often it looks meanwhile
)

// server makes the service's own server, with all that Run adds to its routes.
func (d *running) server() *fasthttp.Server {
	requests := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "http_request_seconds", Help: "Requests by method, route and status.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
	}, []string{"method", "route", "status"})
	d.Registry.MustRegister(requests)
	d.routes()
	direct := map[string]fasthttp.RequestHandler{}
	for pattern, handle := range d.Direct {
		direct[pattern] = observedDirect(requests, pattern, handle)
	}
	server := NewServer(observed(requests, d.Routes), direct, d.Log)
	handle := server.Handler
	server.Handler = func(ctx *fasthttp.RequestCtx) {
		handle(ctx)
		if d.stopping.Load() { // also where the request came before the stop
			ctx.SetConnectionClose()
		}
	}
	return server
}

// NewServer makes an HTTP server: direct's handlers by method and path, and routes for all else. A handler of routes whose client
// goes sees its request's context end; a direct one asks Gone. A request's strings lie in memory that is used again: who keeps one
// for longer than the request clones it.
func NewServer(routes http.Handler, direct map[string]fasthttp.RequestHandler, log *slog.Logger) *fasthttp.Server {
	all := fasthttpadaptor.NewFastHTTPHandler(whileThere(routes, log))
	return &fasthttp.Server{
		Handler: func(ctx *fasthttp.RequestCtx) {
			handle, told := all, true // its faults are told where they were
			pattern := append(append(append(make([]byte, 0, 64), ctx.Method()...), ' '), ctx.Path()...)
			if found, ok := direct[string(pattern)]; ok {
				handle, told = found, false
			} else if _, err := url.ParseRequestURI(string(ctx.RequestURI())); err != nil { // the adaptor would answer in its own way
				handle = func(ctx *fasthttp.RequestCtx) { unreadable(ctx, "the path or the query is not a URL's", log) }
			}
			defer func() { // one request's fault is not its neighbours'
				if fault := recover(); fault != nil {
					if !told {
						tell(ctx, log, string(ctx.Method()), string(ctx.Path()), fault)
					}
					ctx.Response.Reset()
					ctx.SetStatusCode(http.StatusInternalServerError)
					reply(ctx, map[string]string{"error": "internal"}, log)
				}
			}()
			handle(ctx)
		},
		ErrorHandler: func(ctx *fasthttp.RequestCtx, err error) { refuse(ctx, err, log) },
		ReadTimeout:  requestTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		ReadBufferSize: headerLimit, MaxRequestBodySize: bodyLimit,
		ReduceMemoryUsage:            true, // a connection has buffers only while it has a request
		DisablePreParseMultipartForm: true, NoDefaultServerHeader: true, NoDefaultContentType: true, CloseOnShutdown: true,
		SecureErrorLogMessage: true,
		Logger:                slog.NewLogLogger(log.Handler(), slog.LevelDebug), // broken connections are the clients' business
	}
}

// whileThere ends a request's context when its client has gone, and tells of a fault where it was.
func whileThere(routes http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := r.Context().(*fasthttp.RequestCtx) // the adaptor's; it ends when the server begins to stop, and a request does not
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(asked))
		defer cancel(nil)
		go watch(ctx, asked.Conn(), cancel)
		defer func() {
			if fault := recover(); fault != nil {
				tell(ctx, log, r.Method, r.URL.Path, fault)
				panic(fault)
			}
		}()
		routes.ServeHTTP(controlled{w, asked.Conn()}, r.WithContext(ctx))
	})
}

func tell(ctx context.Context, log *slog.Logger, method, path string, fault any) {
	log.ErrorContext(ctx, "a request failed", "method", method, "path", path, "fault", fmt.Sprint(fault), "stack", string(debug.Stack()))
}

// controlled is the adaptor's ResponseWriter with its connection's deadlines, for http.ResponseController.
type controlled struct {
	http.ResponseWriter
	client net.Conn
}

func (c controlled) Unwrap() http.ResponseWriter        { return c.ResponseWriter }
func (c controlled) SetReadDeadline(t time.Time) error  { return c.client.SetReadDeadline(t) }
func (c controlled) SetWriteDeadline(t time.Time) error { return c.client.SetWriteDeadline(t) }

// watch ends the work for a client that has gone.
func watch(ctx context.Context, client net.Conn, end context.CancelCauseFunc) {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			if Gone(client) {
				end(errGone)
			}
		}
	}
}

// refuse answers a request that could not be read.
func refuse(ctx *fasthttp.RequestCtx, err error, log *slog.Logger) {
	var header *fasthttp.ErrSmallBuffer
	var late net.Error
	status, word, message := http.StatusBadRequest, "invalid_request", "the request could not be read"
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		status, word, message = http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body must not be larger than %d bytes", bodyLimit)
	case errors.As(err, &header):
		status, word, message = http.StatusRequestHeaderFieldsTooLarge, "too_large", fmt.Sprintf("the headers must not be larger than %d bytes", headerLimit)
	case errors.As(err, &late) && late.Timeout():
		message = fmt.Sprintf("the request did not come in within %s", requestTimeout)
	}
	log.DebugContext(ctx, "a request could not be read", "error", err.Error())
	if c, ok := ctx.Conn().(*conn); ok {
		c.unread = true
	}
	ctx.SetStatusCode(status)
	reply(ctx, map[string]string{"error": word, "message": message}, log)
}

// unreadable answers a request that came in whole and says nothing.
func unreadable(ctx *fasthttp.RequestCtx, message string, log *slog.Logger) {
	ctx.SetStatusCode(http.StatusBadRequest)
	reply(ctx, map[string]string{"error": "invalid_request", "message": message}, log)
}

// reply writes an answer's body as JSON.
func reply(ctx *fasthttp.RequestCtx, body map[string]string, log *slog.Logger) {
	raw, err := json.Marshal(body)
	if err != nil {
		log.ErrorContext(ctx, "an answer could not be written as JSON", "error", err.Error())
		ctx.SetStatusCode(http.StatusInternalServerError)
		raw = []byte(`{"error":"internal"}`)
	}
	ctx.SetContentType("application/json; charset=utf-8")
	ctx.SetBody(append(raw, '\n'))
}

// routes adds what every service answers.
func (d *running) routes() {
	d.Routes.HandleFunc("GET /health", d.health)
	d.Routes.HandleFunc("GET /ready", d.ready)
	d.Routes.HandleFunc("GET /live", func(w http.ResponseWriter, r *http.Request) {
		d.reply(w, r, http.StatusOK, map[string]string{"status": "ok"})
	})
	d.Routes.Handle("GET /metrics", promhttp.HandlerFor(d.Registry, promhttp.HandlerOpts{}))
	for _, path := range []string{"/health", "/ready", "/live", "/metrics"} {
		d.Routes.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", http.MethodGet)
			d.reply(w, r, http.StatusMethodNotAllowed, map[string]string{"error": "method_not_allowed", "message": path + " takes GET"})
		})
	}
	d.Routes.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		d.reply(w, r, http.StatusNotFound, map[string]string{"error": "not_found", "message": "there is nothing at " + r.URL.Path})
	})
}

// statusGone is what is counted for a client that left before its answer, as web servers do.
const statusGone = 499

// observed counts requests.
func observed(requests *prometheus.HistogramVec, routes http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, method := time.Now(), method(r.Method) // of a client that left, the request may be another's when the work ends
		noted := &status{ResponseWriter: w, code: http.StatusOK}
		routes.ServeHTTP(noted, r)
		if !noted.wrote && errors.Is(context.Cause(r.Context()), errGone) {
			noted.code = statusGone
		}
		requests.WithLabelValues(method, r.Pattern, strconv.Itoa(noted.code)).Observe(time.Since(began).Seconds())
	})
}

func observedDirect(requests *prometheus.HistogramVec, pattern string, handle fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		began := time.Now()
		handle(ctx)
		requests.WithLabelValues(string(ctx.Method()), pattern, strconv.Itoa(ctx.Response.StatusCode())).Observe(time.Since(began).Seconds())
	}
}

// method keeps a client from making up label values. What it returns is never the request's own string, which lies in memory that the
// next request is read into.
func method(m string) string {
	for _, known := range []string{
		http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions,
	} {
		if m == known {
			return known
		}
	}
	return "other"
}

// status is a ResponseWriter that knows what was answered.
type status struct {
	http.ResponseWriter
	code  int
	wrote bool
}

// WriteHeader implements http.ResponseWriter.
func (s *status) WriteHeader(code int) {
	s.code, s.wrote = code, true
	s.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (s *status) Write(b []byte) (int, error) {
	s.wrote = true
	return s.ResponseWriter.Write(b)
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
