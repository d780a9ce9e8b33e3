package order_test

import (
	"fmt"
	"net/http"
	"testing"

	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit/rabbittest"
)

// What was last seen empty is cheapest read whole, and a statement keeps that plan while the table grows.
func TestTablesLastSeenEmptyAreReadByTheirIndexes(t *testing.T) {
	t.Parallel()
	db, vhost := postgrestest.New(t), rabbittest.VHost(t)
	if _, err := db.Pool.Exec(t.Context(), `VACUUM (ANALYZE) orders, inventory_reservations, outbox, order_events, order_keys`); err != nil {
		t.Fatal(err)
	}
	s := newService(t, db, vhost, options{})
	oldPaymentService(t, vhost, func(int32) bool { return true })
	const rounds = 50
	for i := range rounds {
		s.ended(t, s.insist(t, like, fmt.Sprint(i)).accepted(t))
	}
	if a := s.get(t, "/orders"); a.code != http.StatusOK {
		t.Fatal(a)
	}
	until(t, "an empty outbox", func() bool { return s.relay.Held() == 0 })
	s.stop()
	s.store.DB.Close() // a session tells what it read at its end
	until(t, "the end of the service's sessions", func() bool {
		return number(t, db, `SELECT count(*) FROM pg_stat_activity WHERE usename = 'order_api' AND datname = current_database()`) == 0
	})
	const counters = `SELECT coalesce(sum(%s), 0)::int FROM pg_stat_user_tables WHERE relname IN ('orders', 'inventory_reservations', 'outbox', 'order_events', 'order_keys')`
	if n := number(t, db, fmt.Sprintf(counters, "idx_scan")); n < rounds {
		t.Errorf("an index was used %d times", n)
	}
	if n := number(t, db, fmt.Sprintf(counters, "seq_tup_read")); n != 0 {
		t.Errorf("%d rows were read of whole tables", n)
	}
}
