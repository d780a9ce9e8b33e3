package payment

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

const (
	listed      = 50
	readTimeout = 2 * time.Second
	retryAfter  = "1" // seconds
)

// API is the HTTP interface for payments.
type API struct {
	Store *Store
	Log   *slog.Logger
}

// Routes adds the API's routes.
func (a *API) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /payments", a.list)
	mux.HandleFunc("/payments", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", "GET")
		a.reply(w, r, http.StatusMethodNotAllowed, failure{"method_not_allowed", fmt.Sprintf("%s takes GET", r.URL.Path)})
	})
}

type failure struct {
	Error   string `json:"error"`
	Message string `json:"message"`
}

// list shows the newest payments.
func (a *API) list(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	rows, err := a.Store.Newest(ctx, listed)
	if err != nil {
		a.Log.ErrorContext(ctx, "request failed", "method", r.Method, "path", r.URL.Path, "error", err.Error())
		w.Header().Set("Retry-After", retryAfter)
		a.reply(w, r, http.StatusServiceUnavailable, failure{"unavailable", "the database is not available, try again"})
		return
	}
	a.reply(w, r, http.StatusOK, rows)
}

func (a *API) reply(w http.ResponseWriter, r *http.Request, status int, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		a.Log.ErrorContext(r.Context(), "an answer could not be written as JSON", "error", err.Error())
		status, raw = http.StatusInternalServerError, []byte(`{"error":"internal"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	if _, err := w.Write(append(raw, '\n')); err != nil {
		a.Log.DebugContext(r.Context(), "an answer could not be sent", "error", err.Error())
	}
}
