//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// order is an order as GET /orders/{id} and `platformctl order -o json` show it.
type order struct {
	OrderID       int        `json:"orderId"`
	ShowID        int        `json:"showId"`
	Quantity      int        `json:"quantity"`
	Status        string     `json:"status"`
	PaymentStatus *string    `json:"paymentStatus"`
	Amount        *int       `json:"amount"`
	CreatedAt     time.Time  `json:"createdAt"`
	EndedAt       *time.Time `json:"endedAt"`
}

// orderFields are all the fields of an order, sorted.
var orderFields = []string{"amount", "createdAt", "endedAt", "orderId", "paymentStatus", "quantity", "showId", "status"}

// whole says what is wrong with an order that is said to have ended, or "".
func (o order) whole() string {
	switch {
	case o.PaymentStatus == nil || o.Amount == nil || o.EndedAt == nil:
		return fmt.Sprintf("order %d has ended and lacks paymentStatus, amount or endedAt: %+v", o.OrderID, o)
	case o.Status == "CONFIRMED" && *o.PaymentStatus == "SUCCEEDED", o.Status == "CANCELLED" && *o.PaymentStatus == "FAILED":
	default:
		return fmt.Sprintf("order %d ended %s with a payment that %s", o.OrderID, o.Status, *o.PaymentStatus)
	}
	if o.EndedAt.Before(o.CreatedAt) {
		return fmt.Sprintf("order %d ended at %s, before it was made at %s", o.OrderID, o.EndedAt, o.CreatedAt)
	}
	return ""
}

// answer is what the API said.
type answer struct {
	status int
	body   string
	header http.Header
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, strings.TrimSpace(a.body)) }

// client is a connection-keeping HTTP client of the API.
func client() *http.Client {
	return &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
}

// post sends a body to POST /orders.
func post(ctx context.Context, c *http.Client, body []byte) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/orders", bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	return send(c, request)
}

func get(ctx context.Context, c *http.Client, url string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	return send(c, request)
}

func send(c *http.Client, request *http.Request) (a answer, err error) {
	response, err := c.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, string(body), response.Header}, err
}

// accepted is the id of the order that a 202 tells of.
func accepted(a answer) (id int, err error) {
	var said struct {
		Status  string `json:"status"`
		OrderID int    `json:"orderId"`
	}
	if err := json.Unmarshal([]byte(a.body), &said); err != nil {
		return 0, fmt.Errorf("%s: %w", a, err)
	}
	if a.status != http.StatusAccepted || said.Status != "accepted" || said.OrderID < 1 {
		return 0, fmt.Errorf("%s is not the answer to an accepted order", a)
	}
	return said.OrderID, nil
}

// noStock is the number of seats that a 409 says are left.
func noStock(a answer) (available int, err error) {
	var said struct {
		Error     string          `json:"error"`
		Available json.RawMessage `json:"available"`
	}
	if err := json.Unmarshal([]byte(a.body), &said); err != nil {
		return 0, fmt.Errorf("%s: %w", a, err)
	}
	if a.status != http.StatusConflict || said.Error != "not_enough_stock" {
		return 0, fmt.Errorf("%s is not the answer to a show without seats", a)
	}
	if available, err = strconv.Atoi(string(said.Available)); err != nil {
		return 0, fmt.Errorf("available is not a number: %s", a)
	}
	return available, nil
}

// places places an order by HTTP and returns its id.
func (s *scenario) places(show, quantity int) int {
	s.t.Helper()
	a, err := post(s.ctx, client(), wanted(show, quantity))
	if err != nil {
		s.t.Fatal(err)
	}
	id, err := accepted(a)
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func wanted(show, quantity int) []byte {
	return fmt.Appendf(nil, `{"userId":123,"showId":%d,"quantity":%d}`, show, quantity)
}

// ended follows an order by HTTP to its end.
func (s *scenario) ended(id int) order {
	s.t.Helper()
	var o order
	c := client()
	s.until(30*time.Second, func() string {
		a, err := get(s.ctx, c, api+"/orders/"+strconv.Itoa(id))
		switch {
		case err != nil:
			return err.Error()
		case a.status != http.StatusOK:
			return a.String()
		}
		if err := json.Unmarshal([]byte(a.body), &o); err != nil {
			return err.Error()
		}
		if o.Status == "PENDING" {
			return a.String()
		}
		return ""
	})
	if amiss := o.whole(); amiss != "" {
		s.t.Error(amiss)
	}
	return o
}

// allEnd waits until every one of the orders has ended, as the database has it, each exactly once and with its seats settled.
func (s *scenario) allEnd(ids []int) {
	s.t.Helper()
	if len(ids) == 0 {
		s.t.Fatal("no order was accepted")
	}
	slices.Sort(ids)
	for i := 1; i < len(ids); i++ {
		if ids[i] == ids[i-1] {
			s.t.Fatalf("the order id %d was given twice", ids[i])
		}
	}
	list := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(ids)), ","), "[]")
	s.until(60*time.Second, func() string {
		open := s.sql("SELECT id FROM orders WHERE status = 'PENDING' AND id IN (" + list + ")")
		if len(open) == 0 {
			return ""
		}
		return fmt.Sprintf("%d of %d accepted orders have not ended: %.20q", len(open), len(ids), open)
	})
	if n := s.counts("SELECT count(*) FROM orders WHERE status IN ('CONFIRMED', 'CANCELLED') AND id IN (" + list + ")"); n != len(ids) {
		s.t.Errorf("%d orders were accepted, and %d of them are in the database with an end", len(ids), n)
	}
	s.consistent()
}

// consistent holds orders, payments and reservations against each other.
func (s *scenario) consistent() {
	s.t.Helper()
	for what, query := range map[string]string{
		"confirmed orders without exactly one payment that succeeded and seats that are theirs": `
			SELECT o.id FROM orders o WHERE o.status = 'CONFIRMED' AND NOT (
				(SELECT count(*) FROM payments p WHERE p.order_id = o.id AND p.status = 'SUCCEEDED') = 1 AND
				(SELECT count(*) FROM inventory_reservations r WHERE r.order_id = o.id AND r.status = 'COMMITTED' AND r.quantity = o.quantity) = 1)`,
		"cancelled orders that hold seats": `
			SELECT r.order_id FROM inventory_reservations r JOIN orders o ON o.id = r.order_id
			WHERE o.status = 'CANCELLED' AND r.status IN ('RESERVED', 'COMMITTED')`,
		"orders paid for twice": `SELECT order_id FROM payments GROUP BY order_id HAVING count(*) > 1`,
		"shows with more seats held than they have": `
			SELECT s.id FROM shows s JOIN inventory_reservations r ON r.show_id = s.id AND r.status IN ('RESERVED', 'COMMITTED')
			GROUP BY s.id, s.capacity HAVING sum(r.quantity) > s.capacity`,
	} {
		if bad := s.sql(query); len(bad) > 0 {
			s.t.Errorf("%s: %.20q", what, bad)
		}
	}
}

// crowd is clients who place orders while something else happens.
type crowd struct {
	dismiss func() // ends their work and waits for them
	all     sync.WaitGroup

	mu  sync.Mutex
	ids []int
	not map[string]int // answers other than 202, by what they were
}

// crowd sets some clients to work, with a pause between the orders of each. A client sends what next returns, until that is
// nil or the crowd is dismissed, which happens at the latest when the scenario or step that called it ends.
func (s *scenario) crowd(clients int, pause time.Duration, next func(client int) (body []byte)) *crowd {
	ctx, cancel := context.WithCancel(s.ctx)
	c := &crowd{not: map[string]int{}}
	connection := client()
	for i := range clients {
		c.all.Go(func() {
			for body := next(i); body != nil && ctx.Err() == nil; body = next(i) {
				a, err := post(ctx, connection, body)
				if ctx.Err() != nil {
					return
				}
				wait := pause
				if !c.count(a, err) {
					wait = max(wait, 100*time.Millisecond) // as clients do who were turned away
				}
				select {
				case <-time.After(wait):
				case <-ctx.Done():
				}
			}
		})
	}
	c.dismiss = sync.OnceFunc(func() {
		cancel()
		c.all.Wait()
	})
	s.t.Cleanup(c.dismiss)
	return c
}

// count notes an answer, and tells whether the API was there to give one.
func (c *crowd) count(a answer, err error) (served bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, refused := accepted(a)
	switch {
	case err != nil:
		c.not["no answer"]++
		return false
	case refused == nil:
		c.ids = append(c.ids, id)
		return true
	}
	c.not[a.String()]++
	return a.status != http.StatusServiceUnavailable
}

// orders are the ids of all that were accepted so far.
func (c *crowd) orders() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ids)
}

// refusals are the answers other than 202 so far.
func (c *crowd) refusals() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.not)
}
