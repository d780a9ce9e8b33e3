package order_test

import (
	"fmt"
	"testing"
	"time"

	"platformctl/pkg/order"
	"platformctl/pkg/postgres/postgrestest"
)

// A show may be taken away while seats of it are held. Such a hold ends as others do, and where it cannot, the others do.
func TestHoldsOfAShowThatIsNoMore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, show, want string }{
		{"deleted", ``, "EXPIRED, faulty 0"},
		{"made anew", `INSERT INTO shows (id, name, venue, starts_at, capacity) VALUES (4, 'again', 'v', now(), 1)`, "RESERVED, faulty 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, postgrestest.New(t), "", options{noRelay: true})
			s.stop() // its own sweeper would be first
			for _, statement := range []string{
				`INSERT INTO shows (id, name, venue, starts_at, capacity) VALUES (4, 'gone', 'v', now(), 10)`,
				`INSERT INTO inventory_reservations (show_id, order_id, quantity, expires_at) VALUES (4, 1000, 2, now() - interval '1 hour')`,
				`DELETE FROM shows WHERE id = 4`,
				c.show,
			} {
				if _, err := s.db.Pool.Exec(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			}
			ids := lapse(t, s.db, `SELECT i * interval '1 min' FROM generate_series(1, 3) i`)
			lapsed, err := s.store.Expire(t.Context(), time.Time{}, 100)
			if err != nil || len(lapsed.Orders) != len(ids) {
				t.Errorf("%d of %d orders lapsed: %v", len(lapsed.Orders), len(ids), err)
			}
			var state string
			if err := s.db.Pool.QueryRow(t.Context(), `SELECT status FROM inventory_reservations WHERE show_id = 4`).Scan(&state); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%s, faulty %d", state, len(lapsed.Faulty)); got != c.want {
				t.Errorf("%s: %v", got, lapsed.Faulty)
			}
		})
	}
}

// An old service ends an order and leaves its reservation as it was. Where that is committed while the hold is looked at, the seats of
// one that was confirmed stay sold, and those of the other come back.
func TestAHoldWhoseOrderEndsMeanwhile(t *testing.T) {
	t.Parallel()
	for status, hold := range map[string]string{"CONFIRMED": "RESERVED", "CANCELLED": "EXPIRED"} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			endsMeanwhile(t, status, hold)
		})
	}
}

func endsMeanwhile(t *testing.T, status, hold string) {
	t.Helper()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	s.stop()
	id := lapse(t, s.db, `SELECT interval '1 min'`)[0]
	old, err := s.db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Exec(t.Context(), `UPDATE orders SET status = $2 WHERE id = $1`, id, status); err != nil {
		t.Fatal(err)
	}
	type found struct {
		order.Lapsed
		error
	}
	expired := make(chan found, 1)
	go func() {
		lapsed, err := s.store.Expire(t.Context(), time.Time{}, 100)
		expired <- found{lapsed, err}
	}()
	until(t, "the order is waited for", func() bool {
		return number(t, s.db, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
	})
	if err := old.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f := <-expired; f.error != nil || len(f.Orders)+len(f.Paid) > 0 {
		t.Errorf("%+v", f)
	}
	if got := stateOf(t, s.db, id); got != (state{status, hold, false}) {
		t.Errorf("%+v", got)
	}
	counted(t, s.db)
}
