package outbox

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"platformctl/pkg/postgres"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// The commit does not wait for the disk: rows that a crash of the server brings back are sent again, and who gets an event twice
// takes it once. The history has what was confirmed: the row itself is gone. Where the correlation id is no order's, it has nothing to tell.
const deleteRows = `
WITH gone AS (
	DELETE FROM outbox WHERE id = ANY($1) RETURNING correlation_id, routing_key, created_at
)
INSERT INTO order_events (order_id, hop, pod, began)
SELECT correlation_id::int4, 'sent ' || routing_key, split_part($2, '/', 1), created_at
FROM gone, (SELECT set_config('synchronous_commit', 'off', true)) AS unhurried
WHERE CASE WHEN correlation_id ~ '^[0-9]{1,10}$' THEN correlation_id::int8 <= 2147483647 ELSE false END`

// forget deletes confirmed events and tells whether it could. While the database is away it tries again; the window then
// fills and the relay pauses by itself.
func (r *Relay) forget(ctx context.Context, events []Event) bool {
	if len(events) == 0 {
		return true
	}
	ids := make([]int64, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		_, err := r.DB.Exec(ctx, deleteRows, ids, r.Name)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return false
		}
		r.Log.WarnContext(ctx, "confirmed events could not be deleted, trying again", "events", len(ids), "error", err.Error())
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
	r.tell(ctx, events)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		delete(r.held, id)
	}
	if len(r.beyond) > 0 && len(r.held) < memory/2 {
		nudge(r.room)
	}
	if len(r.held) == 0 && r.empty != nil {
		close(r.empty)
		r.empty = nil
	}
	return true
}

// tell writes a line an event where somebody wants to see each.
func (r *Relay) tell(ctx context.Context, confirmed []Event) {
	if !r.Log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	for _, e := range confirmed {
		r.Log.DebugContext(ctx, "event confirmed", "correlation", e.CorrelationID, "message", e.MessageID, "trace", e.Trace, "key", e.Key)
	}
}

// sweep takes over our service's events whose lease has lapsed: those of a process that died, those that did not fit into memory, and, as
// a renewal, our own that are still on their way.
func (r *Relay) sweep(ctx context.Context) {
	var pauses postgres.Pauses
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		look := false
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			look = true
		case <-r.room:
		}
		for more := true; more && r.Held() < memory/2; {
			more = r.recall(ctx)
		}
		if look {
			due.Reset(pauses.After(r.takeAllOver(ctx), sweepPause))
		}
	}
}

// Only rows that are still ours: a lapsed lease may have given them to another relay.
const recallRows = `
UPDATE outbox SET lease_until = now() + $3 WHERE id = ANY($1) AND relay = $2
RETURNING id, message_id, correlation_id, routing_key, payload, coalesce(traceparent, ''), created_at`

// recall reads some of the rows that did not fit into memory, and tells whether there may be more.
func (r *Relay) recall(ctx context.Context) (more bool) {
	r.mu.Lock()
	ids := r.beyond[:min(len(r.beyond), sweepLimit)]
	r.beyond = r.beyond[len(ids):]
	r.mu.Unlock()
	if len(ids) == 0 {
		return false
	}
	events, err := r.events(ctx, recallRows, ids, r.Name, Lease)
	if err != nil { // they are swept when their lease has lapsed
		if ctx.Err() == nil {
			r.Log.WarnContext(ctx, "events of the outbox could not be read again", "events", len(ids), "error", err.Error())
		}
		return false
	}
	slices.SortFunc(events, func(a, b Event) int { return cmp.Compare(a.ID, b.ID) })
	r.hold(events)
	return true
}

// takeAllOver takes over as much as there is room for, and returns how long it took to see that there is no more.
func (r *Relay) takeAllOver(ctx context.Context) (took time.Duration) {
	for full := true; full && r.Held() < memory/2; {
		began := time.Now()
		events, err := r.takeOver(ctx)
		if err != nil && ctx.Err() == nil {
			r.Log.WarnContext(ctx, "the outbox could not be swept", "error", err.Error())
		}
		if full = len(events) == sweepLimit; !full && err == nil {
			took = time.Since(began)
		}
		if len(events) > 0 {
			r.hold(events)
		}
	}
	return took
}

// No cursor over ids: rows commit in another order than their ids were given out. A lease that ends much later than any that is given now is of
// a time when the database's clock was ahead.
const takeOverRows = `
WITH due AS (
	SELECT id FROM outbox WHERE (lease_until IS NULL OR lease_until < now() OR lease_until > now() + 10 * $3::interval) AND routing_key = ANY($4)
	ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE outbox o SET relay = $2, lease_until = now() + $3::interval
FROM due WHERE o.id = due.id
RETURNING o.id, o.message_id, o.correlation_id, o.routing_key, o.payload, coalesce(o.traceparent, ''), o.created_at`

func (r *Relay) takeOver(ctx context.Context) ([]Event, error) {
	return r.events(ctx, takeOverRows, sweepLimit, r.Name, Lease, r.Keys)
}

func (r *Relay) events(ctx context.Context, sql string, args ...any) ([]Event, error) {
	rows, err := r.DB.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Event, err error) {
		err = row.Scan(&e.ID, &e.MessageID, &e.CorrelationID, &e.Key, &e.Payload, &e.Trace, &e.CreatedAt)
		return e, err
	})
}

const lengthAndAge = `SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM outbox`

// Length is the number of events in the table, of all relays, and the age of the oldest.
func (r *Relay) Length(ctx context.Context) (events int64, oldest time.Duration, err error) {
	var seconds float64
	if err := r.DB.QueryRow(ctx, lengthAndAge).Scan(&events, &seconds); err != nil {
		return 0, 0, fmt.Errorf("measure the outbox: %w", err)
	}
	return events, time.Duration(seconds * float64(time.Second)), nil
}

// length is what Length returns.
type length struct {
	events int64
	oldest time.Duration
}

const scrapeTimeout = time.Second

// Describe implements prometheus.Collector.
func (r *Relay) Describe(out chan<- *prometheus.Desc) {
	out <- lengthDesc
	out <- oldestDesc
	out <- heldDesc
}

// Collect implements prometheus.Collector; what the database does not tell in a second is left out.
func (r *Relay) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(heldDesc, prometheus.GaugeValue, float64(r.Held()))
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	l, err := r.scraped.Get(ctx)
	if err != nil {
		return
	}
	out <- prometheus.MustNewConstMetric(lengthDesc, prometheus.GaugeValue, float64(l.events))
	out <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, l.oldest.Seconds())
}

var (
	lengthDesc = prometheus.NewDesc("outbox_events", "Events in the outbox, of all services.", nil, nil)
	oldestDesc = prometheus.NewDesc("outbox_oldest_seconds", "Age of the oldest event in the outbox.", nil, nil)
	heldDesc   = prometheus.NewDesc("outbox_held_events", "Events in this process's memory, waiting or unconfirmed.", nil, nil)
)
