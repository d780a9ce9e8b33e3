package proof

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Owner is the database for who may change it. Do returns the first column of what the statement returns, a line a row.
type Owner interface {
	Database
	Do(ctx context.Context, statement string) ([]byte, error)
}

// Bench puts load on a platform, waits for the last order to end, and verifies.
type Bench struct {
	Platform Platform
	Database Owner // for a show of its own and what is read of its orders
	Load     Load  // Show 0: a show is made for it
	Meter    Meter
	Settle   time.Duration            // how long the orders may take to end after the last answer
	Keep     bool                     // the show that was made stays, with its orders; so it does where Load has a History
	Told     func() (*History, error) // reads what Load's History has written; nil where there is none
	Say      func(string)
}

// BenchResult is what a bench measured.
type BenchResult struct {
	Clients  int           `json:"clients"`
	Rate     float64       `json:"rate,omitempty"` // that was asked for
	Duration time.Duration `json:"durationNanoseconds"`
	Show     int64         `json:"show"`
	Answers  Answers       `json:"answers"`
	Ends     Ends          `json:"ends"`
	CPU      *CPU          `json:"cpu,omitempty"` // while the load lasted; nil where it cannot be measured
	Report   Report        `json:"verify"`
	Stays    error         `json:"-"` // why the show that was made could not be deleted
}

// Ends is how the bench's orders ended, from their rows.
type Ends struct {
	Orders    int64   `json:"orders"`
	Ended     int64   `json:"ended"`
	PerSecond float64 `json:"perSecond"` // ended orders, from the first that was taken to the last end
	Unsettled int64   `json:"unsettled"` // had not ended when the load was over
	P50       float64 `json:"p50Milliseconds"`
	P99       float64 `json:"p99Milliseconds"` // from the row to the end, by the database's clock
}

// benchVenue marks a show of ours.
const benchVenue = "platformctl bench"

const makeShow = `INSERT INTO shows (name, venue, starts_at, capacity) VALUES ('bench ' || to_char(now(), 'YYYY-MM-DD HH24:MI:SS'), '` + benchVenue + `', now() + interval '1 year', 2000000000) RETURNING id`

// What belongs to the show goes with it, in one transaction. Nothing of it is on its way any more.
const dropShow = `
WITH gone AS (DELETE FROM orders WHERE show_id = %[1]d RETURNING id),
paid AS (DELETE FROM payments WHERE order_id IN (SELECT id FROM gone)),
history AS (DELETE FROM order_events WHERE order_id IN (SELECT id FROM gone)),
keys AS (DELETE FROM order_keys WHERE order_id IN (SELECT id FROM gone))
DELETE FROM inventory_reservations WHERE show_id = %[1]d;
DELETE FROM shows WHERE id = %[1]d AND venue = '` + benchVenue + `'`

const readEnds = `
SELECT json_build_object('orders', count(*), 'ended', count(ended_at),
	'perSecond', coalesce(count(ended_at) / nullif(extract(epoch FROM max(ended_at) - min(created_at)), 0), 0),
	'unsettled', count(*) FILTER (WHERE created_at <= %[2]s AND (ended_at IS NULL OR ended_at > %[2]s)),
	'p50Milliseconds', coalesce(1000 * extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY ended_at - created_at)), 0),
	'p99Milliseconds', coalesce(1000 * extract(epoch FROM percentile_disc(0.99) WITHIN GROUP (ORDER BY ended_at - created_at)), 0))
FROM orders WHERE show_id = %[1]d AND created_at >= %[3]s`

// Run does it all. The show that it made goes again with its orders if nothing is broken; else they stay, as evidence. A
// broken invariant is in the result and is no error.
func (b Bench) Run(ctx context.Context) (BenchResult, error) {
	r := BenchResult{Clients: b.Load.Clients, Rate: b.Load.Rate, Duration: b.Load.Duration, Show: b.Load.Show}
	own := b.Load.Show == 0
	if own {
		show, err := NewShow(ctx, b.Database)
		if err != nil {
			return r, err
		}
		b.Load.Show, r.Show = show, show
	}
	began := time.Now()
	from, metered := b.mark()
	var err error
	if r.Answers, err = b.Load.Run(ctx); err != nil {
		return r, err
	}
	ended := time.Now()
	if to, ok := b.mark(); ok && metered {
		cpu := b.Meter.Between(from, to)
		r.CPU = &cpu
	}
	if b.Told != nil {
		if b.Platform.History, err = b.Told(); err != nil {
			return r, err
		}
	}
	if r.Report, err = Verify(ctx, b.Platform, b.Settle, func(orders, events, messages int64) {
		b.Say(fmt.Sprintf("waiting for what is on its way: %d pending orders, %d events, %d messages", orders, events, messages))
	}); err != nil {
		return r, err
	}
	raw, err := b.Database.JSON(ctx, fmt.Sprintf(readEnds, b.Load.Show, timestamp(ended), timestamp(began)))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(raw, &r.Ends); err != nil {
		return r, fmt.Errorf("read how the orders ended: %w", err)
	}
	if own && !b.Keep && b.Told == nil && r.Report.Holds {
		r.Stays = DropShow(ctx, b.Database, b.Load.Show)
	}
	return r, nil
}

// NewShow makes a show for a load, which nobody sells out.
func NewShow(ctx context.Context, database Owner) (int64, error) {
	out, err := database.Do(ctx, makeShow)
	if err != nil {
		return 0, fmt.Errorf("make a show for the bench: %w", err)
	}
	show, err := strconv.ParseInt(string(out), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("make a show for the bench: %w", err)
	}
	return show, nil
}

// DropShow deletes a show of NewShow with its orders, of which nothing may be on its way.
func DropShow(ctx context.Context, database Owner, show int64) error {
	if _, err := database.Do(ctx, fmt.Sprintf(dropShow, show)); err != nil {
		return fmt.Errorf("delete the bench's show %d: %w", show, err)
	}
	return nil
}

// mark reads the CPU's accounts; without them the rest is measured all the same.
func (b Bench) mark() (Mark, bool) {
	mark, err := b.Meter.Mark()
	if err != nil {
		b.Say(err.Error())
	}
	return mark, err == nil
}
