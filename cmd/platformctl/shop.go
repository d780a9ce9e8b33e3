package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"platformctl/pkg/fault"
)

// shop is the platform's HTTP API, as order and shows use it.
type shop struct {
	base   string                      // "http://127.0.0.1:8080"
	line   func(command string) string // a command as the user would type it, for cures
	client *http.Client
}

func newShop(base string, line func(string) string) *shop {
	return &shop{base: strings.TrimSuffix(base, "/"), line: line, client: &http.Client{}}
}

// wish is what is ordered.
type wish struct {
	UserID   string `json:"userId"`
	ShowID   int64  `json:"showId"`
	Quantity int64  `json:"quantity"`
}

// placedOrder is an order as GET /orders/{id} has it.
type placedOrder struct {
	OrderID       int64      `json:"orderId"`
	ShowID        int64      `json:"showId"`
	Quantity      int64      `json:"quantity"`
	Status        string     `json:"status"`
	PaymentStatus *string    `json:"paymentStatus"`
	Amount        *int64     `json:"amount"`
	CreatedAt     time.Time  `json:"createdAt"`
	EndedAt       *time.Time `json:"endedAt"`
}

// ended tells whether the order is in one of its two end states.
func (o placedOrder) ended() bool { return o.Status == "CONFIRMED" || o.Status == "CANCELLED" }

// show is a show with its seats; free, held and sold add up to its capacity.
type show struct {
	ShowID   int64      `json:"showId"`
	Name     string     `json:"name"`
	Venue    *string    `json:"venue"`
	StartsAt *time.Time `json:"startsAt"`
	Capacity int64      `json:"capacity"`
	Free     int64      `json:"free"`
	Held     int64      `json:"held"`
	Sold     int64      `json:"sold"`
}

const (
	shortPause = 100 * time.Millisecond // before a connection that broke is tried again
	deafTime   = 5 * time.Second        // how long nothing need listen until the platform is not running; a pod that starts anew takes less
	longPause  = time.Second            // what Retry-After stands for where it cannot be read
	answerTime = 10 * time.Second       // for one answer; the API holds none back longer than the wait that it is asked for
	answerSize = 4 << 20
)

// place orders. While the API is busy, or away for a moment as when a pod is replaced, it is asked again with the same key
// until ctx ends: the key sees to it that nothing is ordered twice.
func (s *shop) place(ctx context.Context, key string, o wish) (id int64, err error) {
	body, err := json.Marshal(o)
	if err != nil {
		return 0, err
	}
	var accepted struct {
		OrderID int64 `json:"orderId"`
	}
	unheard, err := s.persist(ctx, func() (*http.Request, error) {
		request, err := http.NewRequest(http.MethodPost, s.base+"/orders", bytes.NewReader(body))
		if err == nil {
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Idempotency-Key", key)
		}
		return request, err
	}, &accepted)
	var refused *refusal
	if errors.As(err, &refused) && (!unheard || refused.status < http.StatusInternalServerError) {
		return 0, s.refused(ctx, refused, o, err)
	}
	if err != nil && unheard {
		return 0, fault.New(fault.CodeOf(err), "", "%w; the order may have been placed all the same, for an answer was lost", err)
	}
	if err == nil && accepted.OrderID <= 0 {
		err = errors.New("the API accepted the order and named no orderId")
	}
	return accepted.OrderID, err
}

// refused makes of the API's answer what a user can act on; where it knows nothing better, err stays.
func (s *shop) refused(ctx context.Context, r *refusal, o wish, err error) error {
	switch {
	case r.status == http.StatusNotFound && r.Reason == "show_not_found":
		cure := s.line("shows")
		if all, err := s.shows(ctx); err == nil { // it is but to help
			lines := make([]string, 0, len(all))
			for _, w := range all {
				lines = append(lines, fmt.Sprintf("--show %d   %s, %d seats free", w.ShowID, w.Name, w.Free))
			}
			cure = strings.Join(lines, "\n")
		}
		return fault.Usage(cure, "there is no show %d", o.ShowID)
	case r.status == http.StatusConflict && r.Reason == "not_enough_stock" && r.Available != nil:
		return fault.New(fault.CodeFailed, s.line("shows"), "show %d has %s available, not %d", o.ShowID, plural(int(*r.Available), "seat"), o.Quantity)
	case r.status == http.StatusBadRequest:
		return fault.Usage("", "the API refused the order: %w", r)
	}
	return err
}

// order reads an order. With a wait the API answers as soon as the order has ended, or when the wait is over.
func (s *shop) order(ctx context.Context, id int64, wait time.Duration) (o placedOrder, err error) {
	url := fmt.Sprintf("%s/orders/%d", s.base, id)
	if wait > 0 {
		url += "?wait=" + wait.String()
	}
	_, err = s.persist(ctx, get(url), &o)
	if err == nil && o.Status == "" {
		err = fmt.Errorf("GET %s: the answer has no status", url)
	}
	return o, err
}

// follow reads an order until it has ended and tells of it each time. When ctx ends first, it returns what was known last
// and ctx's cause.
func (s *shop) follow(ctx context.Context, id int64, say func(placedOrder)) (last placedOrder, err error) {
	for wait := time.Duration(0); ; wait = 2 * time.Second {
		began := time.Now()
		now, err := s.order(ctx, id, wait)
		if err != nil {
			return last, err
		}
		last = now
		say(last)
		if last.ended() {
			return last, nil
		}
		// An API that does not hold its answer back is not asked without pause.
		if rest := shortPause - time.Since(began); rest > 0 {
			if err := pause(ctx, rest); err != nil {
				return last, err
			}
		}
	}
}

// shows lists the shows.
func (s *shop) shows(ctx context.Context) ([]show, error) {
	var all []show
	_, err := s.persist(ctx, get(s.base+"/shows"), &all)
	return all, err
}

// newest lists the newest orders, the newest first; limit is 1 to 500.
func (s *shop) newest(ctx context.Context, limit int) ([]placedOrder, error) {
	var page struct {
		Orders []placedOrder `json:"orders"`
	}
	_, err := s.persist(ctx, get(fmt.Sprintf("%s/orders?limit=%d", s.base, limit)), &page)
	return page.Orders, err
}

func get(url string) func() (*http.Request, error) {
	return func() (*http.Request, error) { return http.NewRequest(http.MethodGet, url, nil) }
}

// refusal is an answer other than the one that was hoped for.
type refusal struct {
	method, url string
	status      int
	Reason      string `json:"error"`
	Message     string `json:"message"`
	Available   *int64 `json:"available"`
}

func (r *refusal) Error() string {
	text := r.Reason
	if r.Message != "" {
		text = strings.TrimPrefix(text+": "+r.Message, ": ")
	}
	return strings.TrimSuffix(fmt.Sprintf("%s %s: %d %s: %s", r.method, r.url, r.status, http.StatusText(r.status), text), ": ")
}

// persist sends a request until it is answered by anything but "busy" and a broken connection, and decodes a good answer.
// Where nothing listens for a while, the platform is not running. unheard says that of a request that was sent no answer came.
func (s *shop) persist(ctx context.Context, request func() (*http.Request, error), into any) (unheard bool, err error) {
	var deaf time.Time // since when nothing listens
	var refused error  // by the machine, since then
	for {
		again, lost, err := s.try(ctx, request, into)
		unheard = unheard || lost
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			if refused = err; deaf.IsZero() {
				deaf = time.Now()
			}
			if time.Since(deaf) > deafTime {
				again = 0
			}
		case refused != nil && !lost && ctx.Err() != nil: // this try came too late to be refused
			err = refused
		default:
			deaf, refused = time.Time{}, nil
		}
		if err == nil || again == 0 || ctx.Err() != nil {
			return unheard, s.explain(ctx, err)
		}
		if pause(ctx, again) != nil {
			return unheard, s.explain(ctx, err)
		}
	}
}

// try sends a request once. again is 0 where another try would be of no use, else the time until then. lost says that the request
// may have come there, and its answer did not come here.
func (s *shop) try(ctx context.Context, request func() (*http.Request, error), into any) (again time.Duration, lost bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	r, err := request()
	if err != nil {
		return 0, false, err
	}
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	answer, err := s.client.Do(r.WithContext(ctx))
	if errors.Is(err, syscall.ECONNREFUSED) {
		return shortPause, false, fault.Unfit(s.line("up")+"\n"+s.line("status"), "the platform, or its order-api, is not running: nothing listens on %s: %w", s.base, syscall.ECONNREFUSED)
	}
	if err != nil {
		return shortPause, connected.Load(), err
	}
	defer func() { _ = answer.Body.Close() }() // it was read; nothing is lost
	text, err := io.ReadAll(io.LimitReader(answer.Body, answerSize))
	if err != nil {
		return shortPause, true, fmt.Errorf("%s %s: read the answer: %w", r.Method, r.URL, err)
	}
	if answer.StatusCode/100 == 2 {
		if err := json.Unmarshal(text, into); err != nil {
			return 0, false, fmt.Errorf("%s %s: the answer is not what the platform's API says: %w", r.Method, r.URL, err)
		}
		return 0, false, nil
	}
	no := &refusal{method: r.Method, url: r.URL.String(), status: answer.StatusCode}
	if json.Unmarshal(text, no) != nil {
		no.Reason = strings.TrimSpace(string(text[:min(len(text), 200)])) // not JSON: shown as it came
	}
	if answer.StatusCode == http.StatusServiceUnavailable {
		return retryAfter(answer.Header.Get("Retry-After")), false, no
	}
	return 0, false, no
}

// explain names the time-out where the last try's error is all that there is.
func (s *shop) explain(ctx context.Context, err error) error {
	var busy *refusal
	switch cause := context.Cause(ctx); {
	case err == nil || cause == nil:
		return err
	case errors.Is(err, syscall.ECONNREFUSED) && errors.Is(cause, context.DeadlineExceeded):
		return err
	case !errors.Is(cause, context.DeadlineExceeded):
		return cause
	case errors.As(err, &busy):
		return fault.TimedOut(s.line("status"), "the platform has no time for it: %w", err)
	}
	return fault.TimedOut(s.line("status")+"\n"+s.line("logs order"), "the API on %s does not answer: %w", s.base, err)
}

// retryAfter reads the header, in seconds or as a date.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds >= 0 {
		return max(time.Duration(seconds)*time.Second, shortPause)
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(time.Until(at), shortPause)
	}
	return longPause
}

// pause waits, or returns the cause of ctx's end.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
