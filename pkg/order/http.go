package order

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/postgres"

	"github.com/valyala/fasthttp"
	"golang.org/x/sync/semaphore"
)

const (
	readTimeout = 2 * time.Second // of the database, for a GET
	// mostReads is how many GETs ask the database at once. It is not all of the pool: who takes and settles orders stands in the same line.
	mostReads = 8
	// mostWaits is how many GETs wait for an order's end at once. More would take the connections from those who order, and from the probes.
	mostWaits   = 5000
	longestWait = 30 * time.Second
	// A page of orders.
	defaultPage, longestPage = 50, 500
	retryAfter               = "1" // seconds
	// statusGone is what is counted for a client that left before its answer, as web servers do; it would be another's fault as a 503.
	statusGone = 499
	mediaType  = "application/json; charset=utf-8"
)

// API is the HTTP interface for orders and shows.
type API struct {
	Store   *Store
	Shows   *postgres.Throttled[[]Show] // all of them, by id
	Intake  *Intake
	Waiters *Waiters
	Log     *slog.Logger
	Gone    func(net.Conn) bool // tells whether a client has gone

	reads, waits *semaphore.Weighted
}

// NewAPI makes an API of one that has its exported fields.
func NewAPI(a API) *API {
	a.reads, a.waits = semaphore.NewWeighted(mostReads), semaphore.NewWeighted(mostWaits)
	return &a
}

// Direct are the routes that are asked for thousands of times a second, by method and path.
func (a *API) Direct() map[string]fasthttp.RequestHandler {
	return map[string]fasthttp.RequestHandler{"POST /orders": a.createOrder}
}

// Routes adds the API's other routes.
func (a *API) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /orders", a.listOrders)
	mux.HandleFunc("GET /orders/{id}", a.getOrder)
	mux.HandleFunc("GET /shows", a.listShows)
	mux.HandleFunc("GET /openapi.yaml", a.describe)
	for path, allowed := range map[string]string{"/orders": "GET, POST", "/orders/{id}": "GET", "/shows": "GET", "/openapi.yaml": "GET"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allowed)
			a.fail(w, r, http.StatusMethodNotAllowed, "method_not_allowed", fmt.Sprintf("%s takes %s", r.URL.Path, strings.ReplaceAll(allowed, ", ", " and ")))
		})
	}
}

//go:embed openapi.yaml
var description []byte

// describe serves the API's description, to which a test holds the server.
func (a *API) describe(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	if _, err := w.Write(description); err != nil {
		a.Log.DebugContext(r.Context(), "an answer could not be sent", "error", err.Error())
	}
}

func (a *API) createOrder(ctx *fasthttp.RequestCtx) {
	request, err := parseRequest(ctx.Request.Body())
	if err == nil {
		request.Key, err = idempotencyKey(ctx.Request.Header.PeekAll(headerKey))
	}
	if err != nil {
		a.answer(ctx, http.StatusBadRequest, failure{"invalid_request", err.Error()})
		return
	}
	request.Came, request.Trace = time.Now(), contract.ParseTrace(string(ctx.Request.Header.Peek(contract.HeaderTrace))).Next()
	client := ctx.Conn()
	outcome, err := a.Intake.Submit(request, func() bool { return a.Gone(client) })
	switch {
	case errors.Is(err, ErrGone):
		ctx.SetConnectionClose()
		a.answer(ctx, statusGone, failure{"client_gone", err.Error()}) // nobody reads it
	case err != nil && !errors.Is(err, ErrUnavailable) && postgres.IsDataError(err):
		a.Log.ErrorContext(ctx, "the database refused an order's data", "error", err.Error())
		a.answer(ctx, http.StatusBadRequest, failure{"invalid_request", "the database refused the order's data"})
	case err != nil:
		ctx.Response.Header.Set("Retry-After", retryAfter)
		a.answer(ctx, http.StatusServiceUnavailable, failure{"unavailable", a.excuse(ctx, string(ctx.Method()), string(ctx.Path()), err)})
	case outcome.KeyReused:
		a.answer(ctx, http.StatusUnprocessableEntity, failure{"idempotency_key_reused", "this Idempotency-Key was sent with another order"})
	case !outcome.Accepted && outcome.NoShow:
		a.answer(ctx, http.StatusNotFound, failure{Error: "show_not_found"})
	case !outcome.Accepted:
		a.answer(ctx, http.StatusConflict, struct {
			Error     string `json:"error"`
			Available int32  `json:"available"`
		}{"not_enough_stock", outcome.Available})
	default:
		a.answer(ctx, http.StatusAccepted, struct {
			Status  string `json:"status"`
			OrderID int32  `json:"orderId"`
		}{"accepted", outcome.ID})
	}
}

func (a *API) listOrders(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit, err := parameter(query, "limit", defaultPage, longestPage)
	if err != nil {
		a.invalid(w, r, err)
		return
	}
	before, err := parameter(query, "before", math.MaxInt64, math.MaxInt64)
	if err != nil {
		a.invalid(w, r, err)
		return
	}
	orders, err := reading(r.Context(), a, func(ctx context.Context) ([]View, error) {
		return a.Store.Orders(ctx, before, int(limit)+1) // one more tells whether there is a next page
	})
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	page := struct {
		Orders []View  `json:"orders"`
		Next   *string `json:"next"` // what to send as before; null on the last page
	}{Orders: orders}
	if len(orders) > int(limit) {
		page.Orders = orders[:limit]
		page.Next = new(fmt.Sprint(page.Orders[limit-1].OrderID))
	}
	a.reply(w, r, http.StatusOK, page)
}

// parameter is a number from a query, from 1 to most.
func parameter(query url.Values, name string, without, most int64) (int64, error) {
	text := query.Get(name)
	if text == "" {
		return without, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s must be an integer from 1 to %d, not %q", name, most, text)
	}
	return n, nil
}

func (a *API) getOrder(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id < 1 {
		a.invalid(w, r, fmt.Errorf("an order's id is an integer from 1, not %q", r.PathValue("id")))
		return
	}
	var wait time.Duration
	if text := r.URL.Query().Get("wait"); text != "" {
		if wait, err = time.ParseDuration(text); err != nil || wait < 0 || wait > longestWait {
			a.invalid(w, r, fmt.Errorf("wait must be a duration from 0s to %s, such as 2s, not %q", longestWait, text))
			return
		}
	}
	if id > math.MaxInt32 {
		a.fail(w, r, http.StatusNotFound, "order_not_found", "")
		return
	}
	view, err := a.await(r.Context(), int32(id), wait)
	switch {
	case errors.Is(err, ErrNotFound):
		a.fail(w, r, http.StatusNotFound, "order_not_found", "")
	case err != nil:
		a.unavailable(w, r, err)
	default:
		a.reply(w, r, http.StatusOK, view)
	}
}

// Of requests that read: too many do.
var (
	errCrowded = errors.New("too many requests wait for their orders' ends")
	errReaders = errors.New("too many requests read")
)

// await reads an order, as soon as it has ended or after wait.
func (a *API) await(ctx context.Context, id int32, wait time.Duration) (View, error) {
	read := func(ctx context.Context) (View, error) { return a.Store.Order(ctx, id) }
	over := time.NewTimer(wait)
	defer over.Stop()
	ended, leave := a.Waiters.Wait(id) // before the first look, so that no end is missed
	defer leave()
	view, err := reading(ctx, a, read)
	if err != nil || wait == 0 || view.Status != Pending {
		return view, err
	}
	if !a.waits.TryAcquire(1) {
		return View{}, errCrowded
	}
	defer a.waits.Release(1)
	select {
	case <-ended: // or the service stops
	case <-over.C:
	case <-ctx.Done():
		return View{}, context.Cause(ctx)
	}
	return reading(ctx, a, read)
}

// reading asks the database, when its turn has come.
func reading[T any](ctx context.Context, a *API, read func(context.Context) (T, error)) (value T, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if err := a.reads.Acquire(ctx, 1); err != nil {
		return value, errReaders
	}
	defer a.reads.Release(1)
	return read(ctx)
}

func (a *API) listShows(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	shows, err := a.Shows.Get(ctx)
	if err != nil {
		a.unavailable(w, r, err)
		return
	}
	a.reply(w, r, http.StatusOK, shows)
}

func (a *API) invalid(w http.ResponseWriter, r *http.Request, err error) {
	a.fail(w, r, http.StatusBadRequest, "invalid_request", err.Error())
}

// unavailable is the answer when a request may be sent again.
func (a *API) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody reads it
	}
	w.Header().Set("Retry-After", retryAfter)
	a.fail(w, r, http.StatusServiceUnavailable, "unavailable", a.excuse(r.Context(), r.Method, r.URL.Path, err))
}

// excuse says why a request cannot be answered now, to the client, and to the log where it is not for load.
func (a *API) excuse(ctx context.Context, method, path string, err error) string {
	load := []error{ErrBusy, ErrBehind, ErrTwin, ErrClosed, errCrowded, errReaders}
	if slices.ContainsFunc(load, func(e error) bool { return errors.Is(err, e) }) {
		return err.Error() + ", try again"
	}
	a.Log.ErrorContext(ctx, "request failed", "method", method, "path", path, "error", err.Error())
	return "the database is not available, try again"
}

// failure is an error: a word for programs, and a sentence for people where the word does not say it all.
type failure struct {
	Error   string `json:"error"`
	Message string `json:"message,omitempty"`
}

func (a *API) fail(w http.ResponseWriter, r *http.Request, status int, word, message string) {
	a.reply(w, r, status, failure{word, message})
}

func (a *API) reply(w http.ResponseWriter, r *http.Request, status int, body any) {
	status, raw := a.encode(r.Context(), status, body)
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	if _, err := w.Write(raw); err != nil {
		a.Log.DebugContext(r.Context(), "an answer could not be sent", "error", err.Error())
	}
}

// answer is reply for a direct route.
func (a *API) answer(ctx *fasthttp.RequestCtx, status int, body any) {
	status, raw := a.encode(ctx, status, body)
	ctx.SetStatusCode(status)
	ctx.SetContentType(mediaType)
	ctx.SetBody(raw)
}

func (a *API) encode(ctx context.Context, status int, body any) (int, []byte) {
	raw, err := json.Marshal(body)
	if err != nil {
		a.Log.ErrorContext(ctx, "an answer could not be written as JSON", "error", err.Error())
		status, raw = http.StatusInternalServerError, []byte(`{"error":"internal"}`)
	}
	return status, append(raw, '\n')
}
