package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"platformctl/e2e/lab"
	"platformctl/pkg/proof"
)

// grown measures intake on large tables, and beneath a snapshot that is held open, each against what it is on empty tables just before:
// a machine changes within minutes.
func (b *bench) grown(ctx context.Context, t *table) error {
	for range b.rounds {
		for _, row := range []struct {
			what, reach string
			measure     func(context.Context) (measured, error)
		}{
			{"the same as with 64 clients, on 1 M orders", "≥ 0.9 of empty", b.onMany},
			{fmt.Sprintf("the same, a snapshot held open for %d s", b.long), "≥ 0.8 of empty", b.beneathASnapshot},
		} {
			base, err := b.intake(ctx, 64, true, false)
			if err != nil {
				return err
			}
			if err := b.empty(ctx); err != nil {
				return err
			}
			m, err := row.measure(ctx)
			if err != nil {
				return err
			}
			t.add(row.what, row.reach, m.against(base))
		}
	}
	return nil
}

// onMany measures intake on a million orders that have ended, over a day.
func (b *bench) onMany(ctx context.Context) (m measured, err error) {
	const fill = `INSERT INTO orders (user_id, show_id, quantity, status, ended_at) SELECT 'fill', 1, 1, 'CONFIRMED', now() FROM generate_series(1, 1000000);
INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) SELECT 1, id, 1, 'COMMITTED', now() - row_number() OVER (ORDER BY id) * interval '86.4 ms' FROM orders;
INSERT INTO payments (order_id, user_id, amount, status, message_id) SELECT id, 'fill', 50, 'SUCCEEDED', 'order.created:' || id FROM orders;
INSERT INTO order_events (order_id, hop, pod) SELECT id, hop, 'fill' FROM orders, unnest(ARRAY['accepted', 'sent order.created', 'payment_succeeded', 'sent payment.succeeded', 'confirmed']) AS hop`
	// What is measured are large tables, and not autovacuum, which would come within a minute for what was just loaded.
	for _, step := range []string{fill, "VACUUM ANALYZE orders, inventory_reservations, payments, order_events", "CHECKPOINT"} {
		if _, err := b.lab.Database().Do(ctx, step); err != nil {
			return m, err
		}
	}
	return b.intake(ctx, 64, false, false)
}

const (
	holdASnapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM shows; SELECT pg_sleep(600)"
	itsHolders    = "FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
)

// beneathASnapshot measures intake while an old snapshot keeps every dead row.
func (b *bench) beneathASnapshot(ctx context.Context) (m measured, err error) {
	held, release := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := b.lab.Exec(lab.PostgreSQL)(held, "psql", "-q", "-U", "postgres", "-d", "postgresdb", "-c", holdASnapshot)
		ended <- err
	}()
	defer func() {
		release()
		<-ended // it was stopped: that is no error
		_, e := b.lab.Database().Do(context.WithoutCancel(ctx), "SELECT pg_terminate_backend(pid) "+itsHolders)
		err = errors.Join(err, e)
	}()
	holds := func() (bool, error) {
		n, err := b.lab.Database().Do(ctx, "SELECT count(*) "+itsHolders+" AND backend_xmin IS NOT NULL")
		return string(n) == "1", err
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for there := false; !there; {
		select {
		case <-again.C:
		case err := <-ended:
			ended <- err
			return m, fmt.Errorf("hold a snapshot open: %w", err)
		}
		if there, err = holds(); err != nil {
			return m, err
		}
	}
	if m, err = b.intakeFor(ctx, 64, time.Duration(b.long)*time.Second); err != nil {
		return m, err
	}
	if there, err := holds(); err != nil || !there {
		return m, errors.Join(errors.New("the snapshot did not last as long as the measurement"), err)
	}
	return m, nil
}

// intakeFor measures intake for longer than what nobody takes away may grow: events are thrown away now and then. Rows that a
// snapshot keeps stay in orders, reservations and counters.
func (b *bench) intakeFor(ctx context.Context, clients int, long time.Duration) (m measured, err error) {
	var all measured
	for left := long; left > 0; left -= time.Duration(b.seconds) * time.Second {
		if _, err := b.lab.Database().Do(ctx, "TRUNCATE outbox"); err != nil {
			return m, err
		}
		if m, err = b.intake(ctx, clients, false, false); err != nil {
			return m, err
		}
		all.answers.Took += m.answers.Took
		all.answers.Accepted.Count += m.answers.Accepted.Count
	}
	// Latencies and CPU are those of the last part, behind whose orders all others lie.
	m.perSecond = proof.Answers{Took: all.answers.Took, Accepted: all.answers.Accepted}.PerSecond()
	return m, nil
}
