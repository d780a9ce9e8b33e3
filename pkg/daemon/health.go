package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	checkTimeout = time.Second
	longestWait  = 5 * time.Second       // that /ready may be asked for
	readyAgain   = 20 * time.Millisecond // and how often it looks meanwhile
)

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
