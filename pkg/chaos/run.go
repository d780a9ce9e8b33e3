package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"platformctl/pkg/fault"
	"platformctl/pkg/proof"
)

// Chaos makes a plan's faults under load, heals each, and verifies when all is quiet again. That its World can is asked for before.
type Chaos struct {
	Plan     Plan
	World    World
	Journal  *Journal
	Platform proof.Platform
	Load     proof.Load // at World.Show; Chaos says how long it lasts
	Told     func() (*proof.History, error)
	Quiet    time.Duration                        // that orders may take to end after the load
	Struck   func(Outcome)                        // is told of each fault when it has been recovered from
	Waiting  func(orders, events, messages int64) // is told, once, what is waited for after the load
}

// Outcome is a fault and what came of it.
type Outcome struct {
	Fault
	Began     time.Duration `json:"beganNanoseconds"`     // of the load
	Lasted    time.Duration `json:"lastedNanoseconds"`    // until it was healed
	Seen      string        `json:"seen"`                 // what showed that it took effect; "" where nothing did
	Accepted  int64         `json:"accepted"`             // orders, from its beginning until it was recovered from
	Recovered time.Duration `json:"recoveredNanoseconds"` // from the heal until an order that was placed after it had ended
}

// Result is what a chaos found.
type Result struct {
	Plan     Plan             `json:"plan"`
	Outcomes []Outcome        `json:"outcomes"`
	Answers  proof.Answers    `json:"answers"`
	Ends     map[string]int64 `json:"ends"`            // the clients' orders, by their states
	Doubt    int64            `json:"doubt"`           // clients that were never told
	Calm     Calm             `json:"calm"`            // POST without a fault
	Report   proof.Report     `json:"verify"`          // at the end
	Lasted   time.Duration    `json:"tookNanoseconds"` // the load
}

// Liveness is how long the platform may take to be itself again after a fault was healed.
const Liveness = 180 * time.Second

// healing is how long a heal may take, also when nobody wants to wait any more.
const healing = 2 * time.Minute

// Run does it all. An interrupt heals what was begun. That an invariant is broken is in the result and is no error; a platform
// that does not recover is one.
func (c Chaos) Run(ctx context.Context) (r Result, err error) {
	r.Plan = c.Plan
	enough := make(chan struct{})
	c.Load.Show, c.Load.Persist, c.Load.History, c.Load.Until = c.World.Show, true, c.World.Record, enough
	c.Load.Duration = 24 * time.Hour
	type loaded struct {
		answers proof.Answers
		err     error
	}
	over := make(chan loaded, 1)
	began := time.Now()
	go func() {
		a, err := c.Load.Run(ctx)
		over <- loaded{a, err}
	}()
	calm := &calmness{began: began, rate: c.Load.Rate}
	r.Outcomes, err = c.faults(ctx, began, calm)
	close(enough)
	load := <-over
	if err = errors.Join(err, load.err); err != nil {
		return r, err
	}
	r.Answers, r.Lasted = load.answers, time.Since(began)
	if c.Platform.History, err = c.Told(); err != nil {
		return r, err
	}
	r.Calm = calm.of(c.Platform.History)
	if r.Report, err = proof.Verify(ctx, c.Platform, c.Quiet, c.Waiting); err != nil {
		return r, err
	}
	facts, err := c.Platform.Look(ctx, time.Time{})
	if err != nil {
		return r, err
	}
	r.Ends = map[string]int64{}
	for _, row := range facts.Rows {
		r.Ends[row.Status]++
	}
	for _, a := range c.Platform.History.Asked {
		if n := len(a.Answers); n == 0 || !a.Answers[n-1].Final() {
			r.Doubt++
		}
	}
	return r, nil
}

// faults makes one after another.
func (c Chaos) faults(ctx context.Context, began time.Time, calm *calmness) (all []Outcome, err error) {
	draw := rand.New(rand.NewPCG(c.Plan.Seed, 1))
	for _, f := range c.Plan.Faults {
		if err := wait(ctx, time.Until(began.Add(f.At))); err != nil {
			return all, err
		}
		calm.ends()
		o := Outcome{Fault: f, Began: time.Since(began)}
		before := c.World.Record.Accepted()
		if f.outage() {
			c.World.Record.Broker(false)
		}
		o.Seen, err = c.one(ctx, f, draw)
		healed := time.Now()
		o.Lasted = healed.Sub(began) - o.Began
		if err != nil {
			return all, fmt.Errorf("fault %d, %s: %w", f.N, f, err)
		}
		if err := c.recovered(ctx); err != nil {
			return all, fmt.Errorf("after fault %d, %s: %w", f.N, f, err)
		}
		if f.outage() {
			c.World.Record.Broker(true)
		}
		o.Recovered, o.Accepted = time.Since(healed), c.World.Record.Accepted()-before
		all = append(all, o)
		c.Struck(o)
		calm.begins()
	}
	return all, wait(ctx, time.Until(began.Add(c.Plan.Duration)))
}

// one makes a fault and heals it, also where it failed, and where nobody wants to wait any more.
func (c Chaos) one(ctx context.Context, f Fault, draw *rand.Rand) (seen string, err error) {
	if err := c.Journal.begin(f); err != nil {
		return "", err
	}
	seen, err = c.World.strike(ctx, f, draw)
	mending, cancel := context.WithTimeout(context.WithoutCancel(ctx), healing)
	defer cancel()
	for {
		failed := c.World.heal(mending, f)
		if failed == nil {
			return seen, errors.Join(err, c.Journal.Healed())
		}
		if wait(mending, time.Second) != nil {
			return seen, errors.Join(err, failed)
		}
	}
}

// backOff is how often it is looked for pods that wait to be started: each look costs the node half a second of CPU.
const backOff = 5 * time.Second

// backedOff deletes the pods that Kubernetes would start only in a while, because they ended so often.
const backedOff = kubectl + ` get pods -A -o jsonpath='{range .items[*]}{.metadata.namespace} {.metadata.name} {.status.containerStatuses[*].state.waiting.reason}{"\n"}{end}' |
while read -r namespace name reason; do
	case $reason in *CrashLoopBackOff*) ` + kubectl + ` delete pod -n "$namespace" "$name" --wait=false ;; esac
done`

// recovered returns when an order that was placed from now on has ended.
func (c Chaos) recovered(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, Liveness, fault.TimedOut("platformctl status\nplatformctl logs order payment", "no order went its way for %s", Liveness))
	defer cancel()
	key := c.World.Record.Ask(c.World.Show, 1)
	order, last := int64(0), time.Now()
	for {
		var err error
		if order == 0 {
			order, err = c.place(ctx, key)
		} else {
			var status string
			if status, err = c.status(ctx, order); err == nil && status != "PENDING" {
				return nil
			}
		}
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if time.Since(last) > backOff {
			if _, err := c.World.Shell(ctx, backedOff); err != nil && ctx.Err() != nil {
				return errors.Join(context.Cause(ctx), err) // an API server that does not answer yet is asked again
			}
			last = time.Now()
		}
		if err := wait(ctx, lookAgain); err != nil {
			return err
		}
	}
}

// place asks once for an order; 0 is that it was not accepted yet.
func (c Chaos) place(ctx context.Context, key string) (order int64, err error) {
	answer := proof.Answer{Available: -1}
	defer func() { c.World.Record.Answer(key, answer) }()
	body := fmt.Sprintf(`{"userId":%q,"showId":%d,"quantity":1}`, key, c.World.Show)
	raw, status, err := c.http(ctx, http.MethodPost, "/orders", body, key)
	if err != nil {
		answer.Said = err.Error()
		return 0, err
	}
	var told struct{ OrderID int64 }
	if err := json.Unmarshal(raw, &told); err != nil {
		answer.Said = string(raw[:min(len(raw), 200)])
	}
	answer.Status, answer.Order = status, told.OrderID
	return told.OrderID, nil
}

func (c Chaos) status(ctx context.Context, order int64) (string, error) {
	raw, status, err := c.http(ctx, http.MethodGet, fmt.Sprintf("/orders/%d?wait=2s", order), "", "")
	if err != nil || status != http.StatusOK {
		return "PENDING", err
	}
	var told struct{ Status string }
	return told.Status, json.Unmarshal(raw, &told)
}

const (
	answerTime = 5 * time.Second
	answerSize = 1 << 16
)

// http sends one request on a connection of its own, for the one before may have been to a pod that is gone.
func (c Chaos) http(ctx context.Context, method, path, body, key string) (raw []byte, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	// The reader's type is hidden: the library would send a body that it could read again by itself, and nobody would know.
	request, err := http.NewRequestWithContext(ctx, method, "http://"+c.Load.Address+path, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		return nil, 0, err
	}
	request.ContentLength, request.Close = int64(len(body)), true
	if body == "" {
		request.Body = http.NoBody
	}
	if key != "" {
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	raw, err = io.ReadAll(io.LimitReader(response.Body, answerSize))
	return bytes.TrimSpace(raw), response.StatusCode, err
}
