package kill

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"platformctl/pkg/proof"
)

// request is an order that somebody wants.
type request struct {
	key            string
	show, quantity int64
}

// client asks for orders and remembers what it was told.
type client struct {
	http    *http.Client
	address string

	mu  sync.Mutex
	all []*proof.Asked
}

const (
	answerTimeout = 10 * time.Second
	askAgain      = 100 * time.Millisecond // sooner than Retry-After says: whoever comes back up is asked at once
)

func newClient(address string) *client {
	return &client{address: address, http: &http.Client{Timeout: answerTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
}

// order asks with one key until the answer is final or ctx ends.
func (c *client) order(ctx context.Context, r request) *proof.Asked {
	a := &proof.Asked{Key: r.key, Show: r.show, Quantity: r.quantity, Began: time.Now()}
	c.mu.Lock()
	c.all = append(c.all, a)
	c.mu.Unlock()
	c.again(ctx, a)
	return a
}

// again asks once more with a key that was asked with before.
func (c *client) again(ctx context.Context, a *proof.Asked) {
	for {
		got := c.try(ctx, request{a.Key, a.Show, a.Quantity})
		c.mu.Lock()
		a.Answers = append(a.Answers, got)
		c.mu.Unlock()
		if got.Final() || !pause(ctx, askAgain/2+rand.N(askAgain)) {
			return
		}
	}
}

func (c *client) try(ctx context.Context, r request) (got proof.Answer) {
	defer func() { got.At = time.Now() }()
	// The reader's type is hidden: the library would send a body that it could read again by itself when a connection breaks, and
	// nobody would know.
	body := fmt.Sprintf(`{"userId":%q,"showId":%d,"quantity":%d}`, r.key, r.show, r.quantity)
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.address+"/orders", io.NopCloser(strings.NewReader(body)))
	if err != nil {
		return proof.Answer{Said: err.Error()}
	}
	post.ContentLength = int64(len(body))
	post.Header.Set("Content-Type", "application/json")
	post.Header.Set("Idempotency-Key", r.key)
	response, err := c.http.Do(post)
	if err != nil {
		return proof.Answer{Said: err.Error()}
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return proof.Answer{Said: err.Error()}
	}
	told := struct{ OrderID, Available int64 }{Available: -1}
	if err := json.Unmarshal(raw, &told); err != nil {
		return proof.Answer{Status: response.StatusCode, Said: fmt.Sprintf("%s: %v", raw, err)}
	}
	return proof.Answer{Status: response.StatusCode, Order: told.OrderID, Available: told.Available, Said: string(raw)}
}

// since counts the requests that were begun and accepted after a time, and returns the order accepted first of these.
func (c *client) since(from time.Time) (n int, order int64, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.all) - 1; i >= 0 && c.all[i].Began.After(from.Add(-time.Second)); i-- { // nearly in the order of their beginnings
		if got := c.all[i].Accepted(); got.Order != 0 && c.all[i].Began.After(from) {
			n++
			if order == 0 || got.At.Before(at) {
				order, at = got.Order, got.At
			}
		}
	}
	return n, order, at
}

// pause returns false when ctx ends before d is over.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func TestTheClientAsksUntilItIsTold(t *testing.T) {
	tries := 0
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if want := `{"userId":"k1","showId":3,"quantity":2}`; err != nil || string(body) != want || r.Header.Get("Idempotency-Key") != "k1" {
			t.Errorf("it sent %s, %v", body, err)
		}
		tries++
		switch tries {
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"error":"unavailable"}`) // a client that has gone has its own test
		case 1, 3: // the second time on a connection that had served before
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, `{"status":"accepted","orderId":7}`)
		}
	}))
	defer api.Close()
	began := time.Now()
	c := newClient(strings.TrimPrefix(api.URL, "http://"))
	a := c.order(t.Context(), request{"k1", 3, 2})
	var statuses []int
	for _, got := range a.Answers {
		statuses = append(statuses, got.Status)
	}
	if diff := cmp.Diff([]int{0, 503, 0, 202}, statuses); diff != "" {
		t.Errorf("the answers, want and got:\n%s", diff)
	}
	if n, order, at := c.since(began); n != 1 || order != 7 || at != a.Answers[3].At {
		t.Errorf("since it began %d were accepted, the first was %d at %s", n, order, at)
	}
	if n, _, _ := c.since(a.Answers[3].At); n != 0 {
		t.Errorf("%d were accepted after the last", n)
	}
}
