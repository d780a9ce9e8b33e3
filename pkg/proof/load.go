package proof

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Load is orders to place at the API, all alike.
type Load struct {
	Address   string // host:port, on loopback
	Container bool   // the address may be that of a container of this machine, too
	Show      int64
	Quantity  int64
	Clients   int             // connections, which are kept
	Rate      float64         // orders a second, whatever the answers take; 0: each client orders again when it has its answer
	Duration  time.Duration   // orders are begun for this long
	Orders    int64           // at most so many are begun; 0 is no bound
	Persist   bool            // an order that gets 503, or has a key and gets no answer, is sent again, while Duration lasts
	Until     <-chan struct{} // orders are begun until it is closed, and those in hand are sent again for a while yet; nil is no such bound
	History   *Recorder       // gives each order a key, and is told of it; nil: orders have none
}

// Answers is how the API took a load. Latencies are from when an order was due (with a rate) or sent (without one) to its
// answer: what a client could not send in time because others were not answered counts, too.
type Answers struct {
	Sent     int64            `json:"sent"`
	Unsent   int64            `json:"unsent,omitempty"` // were due, and no client had come to send them some time after the end
	Took     time.Duration    `json:"tookNanoseconds"`  // from the first order to the last answer
	Statuses map[int]int64    `json:"statuses"`
	Failures map[string]int64 `json:"failures,omitempty"` // no answer, by reason; whether the order was taken is not known
	Accepted Latency          `json:"accepted"`           // of the 202s
	Others   Latency          `json:"others"`             // of all other answers
}

// PerSecond is the accepted orders a second.
func (a Answers) PerSecond() float64 { return rate(a.Accepted.Count, a.Took) }

func rate(n int64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return float64(n) / took.Seconds()
}

// Latency is a distribution, exact.
type Latency struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50Milliseconds"`
	P99   float64 `json:"p99Milliseconds"`
	P999  float64 `json:"p999Milliseconds"`
	Max   float64 `json:"maxMilliseconds"`
}

const (
	answerTimeout = 10 * time.Second
	lastAnswer    = time.Second      // when nobody waits for the load any more
	afterwards    = 15 * time.Second // for orders in hand, once Until is closed
	answerLimit   = 1 << 20
	idle          = 500 * time.Millisecond // from then on it is looked whether the server has closed a connection
)

// errLeft is told of an order that was not answered when the load was ended.
var errLeft = errors.New("nobody waits for the answer any more")

// Run places the orders and returns when the last is answered. A client that gets 503 waits as long as the answer says, if
// there is no rate to keep. The error is that of a load that cannot be, or ctx's.
func (l Load) Run(ctx context.Context) (Answers, error) {
	host, _, err := net.SplitHostPort(l.Address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() && !(l.Container && ip.IsPrivate()) {
		return Answers{}, fmt.Errorf("put load on %s: it is no address on loopback", l.Address)
	}
	clients := make([]*client, l.Clients)
	began := time.Now()
	next := l.turns(began)
	var all sync.WaitGroup
	for i := range clients {
		clients[i] = &client{load: l, request: l.request(""), end: began.Add(l.Duration), statuses: map[int]int64{}, failures: map[string]int64{}}
		all.Go(func() { clients[i].run(ctx, next) })
	}
	all.Wait()
	if ctx.Err() != nil {
		return Answers{}, context.Cause(ctx)
	}
	if l.History != nil && l.History.Err() != nil {
		return Answers{}, l.History.Err()
	}
	a := sum(clients, time.Since(began))
	if l.Rate > 0 && !l.over() {
		a.Unsent = max(0, l.due()-a.Sent)
	}
	return a, nil
}

// due is how many orders a rate asks for: those that turns has begin before the end.
func (l Load) due() int64 {
	due, seconds := math.Ceil(l.Rate*l.Duration.Seconds()), l.Duration.Seconds()
	for due > 0 && (due-1)/l.Rate >= seconds { // the product was rounded
		due--
	}
	if l.Orders > 0 {
		due = min(due, float64(l.Orders))
	}
	return int64(min(due, 1<<53))
}

// request is an order as it goes over the line. With a key, that is also its user.
func (l Load) request(key string) []byte {
	user, header := "bench", ""
	if key != "" {
		user, header = key, "Idempotency-Key: "+key+"\r\n"
	}
	body := fmt.Sprintf(`{"userId":%q,"showId":%d,"quantity":%d}`, user, l.Show, l.Quantity)
	return fmt.Appendf(nil, "POST /orders HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", l.Address, header, len(body), body)
}

// turns tells a client when its next order is due, or that there are no more.
func (l Load) turns(began time.Time) func() (due time.Time, ok bool) {
	var taken atomic.Int64
	end := began.Add(l.Duration)
	return func() (time.Time, bool) {
		n := taken.Add(1)
		due := time.Now()
		if due.After(end.Add(answerTimeout)) { // clients are so far behind the rate that it would go on for long
			return due, false
		}
		if l.Rate > 0 {
			after := float64(n-1) / l.Rate
			if after >= l.Duration.Seconds() { // it may be more than a time.Duration can be
				return end, false
			}
			due = began.Add(time.Duration(after * float64(time.Second)))
		}
		return due, due.Before(end) && (l.Orders == 0 || n <= l.Orders) && !l.over()
	}
}

// over tells whether Until is closed.
func (l Load) over() bool {
	select {
	case <-l.Until:
		return true
	default:
		return false
	}
}

// client is one connection. HTTP by hand costs a third of what net/http does, on a machine that the services share.
type client struct {
	load    Load
	key     string // of the order in hand, where there is a history
	request []byte
	end     time.Time // no order is begun from then on
	rest    time.Time // nor before this, as a 503 said
	last    time.Time // nor sent again from then on, since Until was closed

	conn     net.Conn
	leave    func() bool // conn's end with the load's context
	in       *bufio.Reader
	body     []byte    // of the last answer, where there is a history
	renew    time.Time // when the connection wants a new deadline
	used     time.Time // when it was asked something last
	sent     int64
	statuses map[int]int64
	failures map[string]int64
	accepted []uint32 // microseconds
	others   []uint32
}

func (c *client) run(ctx context.Context, next func() (time.Time, bool)) {
	defer c.hangUp()
	var due time.Time
	for again := false; ctx.Err() == nil; {
		if !again {
			var ok bool
			if due, ok = next(); !ok {
				return
			}
			if c.rest.After(due) {
				due = c.rest
			}
			if !due.Before(c.end) || !wait(ctx, time.Until(due)) {
				return
			}
			c.sent++
			if !c.begin() {
				return
			}
		}
		status, retry, err := c.order(ctx)
		if err != nil && ctx.Err() != nil {
			err = errLeft
		}
		c.tell(status, err)
		if err != nil {
			c.hangUp()
			c.failures[reason(err)]++
			if !wait(ctx, c.pause()) { // nobody listens, for now
				return
			}
			again = c.key != "" && c.persists()
			continue
		}
		again = false
		took := uint32(min(time.Since(due).Microseconds(), 1<<31))
		c.statuses[status]++
		if status == http.StatusAccepted {
			c.accepted = append(c.accepted, took)
			continue
		}
		c.others = append(c.others, took)
		switch {
		case c.load.Persist:
			if !wait(ctx, retry) {
				return
			}
			again = status == http.StatusServiceUnavailable && c.persists()
		case c.load.Rate == 0:
			c.rest = time.Now().Add(retry)
		}
	}
}

// pause lies behind an order without an answer. Who asks again and again leaves the machine to those who come up.
func (c *client) pause() time.Duration {
	if c.key != "" && c.persists() {
		return 100 * time.Millisecond
	}
	return 10 * time.Millisecond
}

// persists tells whether the order in hand may be sent again. When no more are begun, who was not told yet still asks: the last
// fault of a chaos leaves clients that wait for an answer that was lost.
func (c *client) persists() bool {
	now := time.Now()
	if c.load.over() {
		if c.last.IsZero() {
			c.last = now.Add(afterwards)
		}
		if !now.Before(c.last) {
			return false
		}
	}
	return c.load.Persist && now.Before(c.end)
}

// begin gives the next order its key. Where that cannot be written down, nothing more is asked for.
func (c *client) begin() bool {
	if c.load.History == nil {
		return true
	}
	c.key = c.load.History.Ask(c.load.Show, c.load.Quantity)
	c.request = c.load.request(c.key)
	return c.load.History.Err() == nil
}

// tell has the history know how a try ended.
func (c *client) tell(status int, err error) {
	if c.key == "" {
		return
	}
	got := Answer{Status: status, Available: -1}
	if err != nil {
		got.Status, got.Said = 0, reason(err)
	} else {
		told := struct{ OrderID, Available int64 }{Available: -1}
		if json.Unmarshal(c.body, &told) != nil || status != http.StatusAccepted && status != http.StatusConflict {
			got.Said = string(c.body[:min(len(c.body), 200)])
		}
		got.Order, got.Available = told.OrderID, told.Available
	}
	c.load.History.Answer(c.key, got)
}

// wait returns false when ctx ends before d is over.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func sum(clients []*client, took time.Duration) Answers {
	a := Answers{Took: took, Statuses: map[int]int64{}, Failures: map[string]int64{}}
	var accepted, others []uint32
	for _, c := range clients {
		a.Sent += c.sent
		for status, n := range c.statuses {
			a.Statuses[status] += n
		}
		for why, n := range c.failures {
			a.Failures[why] += n
		}
		accepted, others = append(accepted, c.accepted...), append(others, c.others...)
	}
	a.Accepted, a.Others = latency(accepted), latency(others)
	return a
}

func latency(micros []uint32) Latency {
	if len(micros) == 0 {
		return Latency{}
	}
	slices.Sort(micros)
	at := func(part float64) float64 {
		i := int(part * float64(len(micros)))
		return float64(micros[min(i, len(micros)-1)]) / 1000
	}
	return Latency{Count: int64(len(micros)), P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: at(1)}
}
