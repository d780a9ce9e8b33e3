package order_test

import (
	"testing"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/order"
	"platformctl/pkg/postgres"
	"platformctl/pkg/postgres/postgrestest"
)

// A snapshot of another database brings orders whose ids this service holds in hand, and holds that lapsed long ago.
func TestAllTablesAreReplacedUnderTheService(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	if a := s.insist(t, like, "first"); a.String() != `202 {"status":"accepted","orderId":1}` {
		t.Fatal(a)
	}
	tx, err := s.db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`SET LOCAL session_replication_role = replica`,
		`TRUNCATE orders, inventory_reservations, show_seats, outbox, order_keys`,
		`INSERT INTO orders (id, user_id, show_id, quantity, status, ended_at) SELECT i, 'u', 1, 1, 'CONFIRMED', now() FROM generate_series(1, 99) i`,
		`INSERT INTO orders (id, user_id, show_id, quantity, created_at) VALUES (100, 'u', 1, 1, now() - interval '3 hours')`,
		`INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) SELECT 1, id, 1, 'COMMITTED', now() FROM orders WHERE id < 100`,
		`INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) VALUES (1, 100, 1, 'RESERVED', now() - interval '2 hours')`,
		`INSERT INTO show_seats SELECT id, capacity, CASE id WHEN 1 THEN 100 ELSE 0 END FROM shows`,
		`SELECT setval('orders_id_seq', 100)`,
	} {
		if _, err := tx.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := s.insist(t, like, "second"); a.String() != `202 {"status":"accepted","orderId":101}` {
		t.Errorf("an order after that: %s", a)
	}
	until(t, "the hold that lapsed long ago is ended", func() bool {
		return number(t, s.db, `SELECT count(*) FROM orders WHERE id = 100 AND status = 'CANCELLED'`) == 1
	})
	counted(t, s.db)
	if n := orders(t, s); n != 101 {
		t.Errorf("%d orders are there", n)
	}
}

// A batch whose answer was lost is known by its orders: others' orders may have come to have the same ids.
func TestARepeatedBatchIsKnownByItsOrders(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	ids, err := s.store.ReserveIDs(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Pool.Exec(t.Context(), `INSERT INTO orders (id, user_id, show_id, quantity) VALUES ($1, 'another', 3, 120)`, ids[0]); err != nil {
		t.Fatal(err)
	}
	batch := []order.Request{
		{ID: ids[0], User: contract.UserID("1"), Show: 3, Quantity: 120, CreatedAt: time.Now()},
		{ID: ids[1], User: contract.UserID("2"), Show: 3, Quantity: 2, CreatedAt: time.Now()},
	}
	if outcomes, err := s.store.Accept(t.Context(), batch, true); !postgres.IsDuplicate(err, "orders") {
		t.Errorf("%+v %v", outcomes, err)
	}
	if _, err := s.db.Pool.Exec(t.Context(), `DELETE FROM orders`); err != nil {
		t.Fatal(err)
	}
	// Whoever was refused by the first try is refused by the second, though the seats have come back meanwhile.
	for _, repeated := range []bool{false, true} {
		outcomes, err := s.store.Accept(t.Context(), batch, repeated)
		if err != nil || !outcomes[0].Accepted || outcomes[0].ID != ids[0] || outcomes[1].Accepted || outcomes[1].Available >= 2 {
			t.Errorf("repeated %t: %+v %v", repeated, outcomes, err)
		}
		if _, err := s.store.Settle(t.Context(), ids[:1], nil, order.Arrival{At: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	counted(t, s.db)
}
