package daemon

import (
	"cmp"
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
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
)

// server makes the service's own server, with all that Run adds to its routes, and puts its listener before the one given.
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
	server, listener := NewServer(d.Listener, d.Connections, observed(requests, d.Routes), direct, d.Log)
	d.Listener = listener
	handle := server.Handler
	server.Handler = func(ctx *fasthttp.RequestCtx) {
		handle(ctx)
		if d.stopping.Load() { // also where the request came before the stop
			ctx.SetConnectionClose()
		}
	}
	return server
}

// NewServer makes an HTTP server, of direct's handlers by method and path and of routes for all else, and the listener that it is to
// serve: at most so many connections of l at once, 0 is 12,000. A handler of routes whose client goes sees its request's context end;
// a direct one asks Gone. A request's strings lie in memory that is used again: who keeps one for longer than the request clones it.
func NewServer(l net.Listener, most int, routes http.Handler, direct map[string]fasthttp.RequestHandler, log *slog.Logger) (*fasthttp.Server, net.Listener) {
	all, listener := fasthttpadaptor.NewFastHTTPHandler(whileThere(routes, log)), limit(l, cmp.Or(most, connections), log)
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
		ConnState:    listener.track,
		ReadTimeout:  requestTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		ReadBufferSize: headerLimit, MaxRequestBodySize: bodyLimit,
		ReduceMemoryUsage:            true, // a connection has buffers only while it has a request
		DisablePreParseMultipartForm: true, NoDefaultServerHeader: true, NoDefaultContentType: true, CloseOnShutdown: true,
		SecureErrorLogMessage: true,
		Logger:                slog.NewLogLogger(log.Handler(), slog.LevelDebug), // broken connections are the clients' business
	}, listener
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
