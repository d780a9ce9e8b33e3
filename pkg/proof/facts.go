package proof

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"platformctl/pkg/contract"
)

// Database answers a statement that makes one JSON document in one row of one column.
type Database interface {
	JSON(ctx context.Context, statement string) ([]byte, error)
}

// Broker lists the queues, exact at the moment of asking, and reads the dead letters, which stay where they are.
type Broker interface {
	Queues(ctx context.Context) ([]Queue, error)
	Letters(ctx context.Context) ([]Letter, error)
}

// Platform is what is read of a running platform.
type Platform struct {
	Database Database
	Broker   Broker
	History  *History // of clients; nil where there is none
}

//go:embed facts.sql
var readFacts string

// candidates is how many orders are looked for among the dead letters.
const candidates = 10_000

// Look reads everything. A zero since is the moment of the look.
func (p Platform) Look(ctx context.Context, since time.Time) (Facts, error) {
	// The broker before the rest: what has left its queues by then has had its effect in the database. And the outbox before the broker:
	// what goes from the one to the other meanwhile is in neither.
	leaving, err := p.leaving(ctx, since)
	if err != nil {
		return Facts{}, err
	}
	queues, err := p.Broker.Queues(ctx)
	if err != nil {
		return Facts{}, err
	}
	var letters []Letter
	if messages(queues, contract.QueueDeadLetters) > 0 {
		if letters, err = p.Broker.Letters(ctx); err != nil {
			return Facts{}, err
		}
	}
	statement := strings.NewReplacer(
		"{since}", timestamp(since), "{most}", strconv.Itoa(most), "{users}", ofRuns(p.History), "{candidates}", strconv.Itoa(candidates),
	).Replace(readFacts)
	raw, err := p.Database.JSON(ctx, statement)
	if err != nil {
		return Facts{}, err
	}
	var found Facts
	if err := json.Unmarshal(raw, &found); err != nil {
		return Facts{}, fmt.Errorf("read what the database answered: %w", err)
	}
	if found.At.IsZero() || found.Since.IsZero() {
		return Facts{}, errors.New("read what the database answered: there is no time in it")
	}
	found.Leaving, found.Queues, found.Letters, found.History = leaving, queues, letters, p.History
	return found, nil
}

const readLeaving = `
SELECT coalesce(json_agg(message_id), '[]') FROM (SELECT message_id FROM outbox WHERE created_at <= coalesce(%[1]s, now()) ORDER BY id LIMIT %[2]d) t`

func (p Platform) leaving(ctx context.Context, since time.Time) (messages []string, err error) {
	raw, err := p.Database.JSON(ctx, fmt.Sprintf(readLeaving, timestamp(since), candidates))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &messages); err != nil {
		return nil, fmt.Errorf("read what the database answered: %w", err)
	}
	return messages, nil
}

// ofRuns is the condition on an order to be one of a history's runs.
func ofRuns(h *History) string {
	if h == nil {
		return "false"
	}
	var any []string
	for _, run := range h.Runs {
		any = append(any, "starts_with(o.user_id, '"+run+"-')")
	}
	return "(" + strings.Join(any, " OR ") + ")"
}

// It reads all orders: an index of those that wait would have each that ends written anew into all indexes.
const readMotion = `
SELECT json_build_object('at', now(),
	'orders', count(*) FILTER (WHERE status = 'PENDING' AND created_at <= coalesce(%[1]s, now())),
	'refunds', CASE WHEN count(*) FILTER (WHERE status = 'PENDING' AND created_at <= coalesce(%[1]s, now())) > 0 THEN 0 ELSE (
		SELECT count(*) FROM payments p JOIN orders o ON o.id = p.order_id JOIN inventory_reservations r ON r.order_id = p.order_id
		WHERE p.status = 'SUCCEEDED' AND NOT p.refund_due AND o.status = 'CANCELLED' AND r.status = 'EXPIRED' AND p.created_at <= coalesce(%[1]s, now())) END,
	'flowing', coalesce(max(created_at) > %[1]s, false),
	'outbox', (SELECT count(*) FROM outbox WHERE created_at <= coalesce(%[1]s, now())))
FROM orders`

// moving is what is on its way.
type moving struct {
	At      time.Time `json:"at"`
	Orders  int64     `json:"orders"`
	Refunds int64     `json:"refunds"` // paid after their end, and not marked yet to be paid back; 0 where orders are PENDING
	Outbox  int64     `json:"outbox"`
	Flowing bool      `json:"flowing"` // orders came after the time that is asked for
	queues  int64     // messages; not counted while they may be of orders that came later
}

func (m moving) rests() bool {
	return m.Orders == 0 && m.Refunds == 0 && m.Outbox == 0 && m.queues == 0
}

func (p Platform) motion(ctx context.Context, since time.Time) (m moving, err error) {
	raw, err := p.Database.JSON(ctx, fmt.Sprintf(readMotion, timestamp(since)))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("read what the database answered: %w", err)
	}
	if m.Orders > 0 || m.Refunds > 0 || m.Outbox > 0 || m.Flowing {
		return m, nil
	}
	queues, err := p.Broker.Queues(ctx)
	if err != nil {
		return m, err
	}
	m.queues = inQueues(queues)
	return m, nil
}

// timestamp is t as SQL.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return "NULL::timestamptz"
	}
	return "'" + t.UTC().Format("2006-01-02T15:04:05.999999Z") + "'::timestamptz"
}
