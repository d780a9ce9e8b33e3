package order_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"platformctl/pkg/order"
	"platformctl/pkg/postgres"
	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit/rabbittest"

	"github.com/jackc/pgx/v5/pgxpool"
)

var passwords = order.Passwords{OrderAPI: postgrestest.RolePassword, PaymentService: postgrestest.RolePassword}

func migrate(t *testing.T, url string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return order.Migrate(ctx, url, passwords, slog.New(slog.DiscardHandler))
}

const oldRows = `
INSERT INTO orders (user_id, show_id, quantity, status) SELECT 'u' || i, 1 + i % 3, 2, (ARRAY['PENDING','CONFIRMED','CANCELLED'])[1 + i % 3] FROM generate_series(1, 60) i;
INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at)
SELECT show_id, id, quantity, CASE status WHEN 'PENDING' THEN 'RESERVED' WHEN 'CONFIRMED' THEN 'COMMITTED' ELSE 'RELEASED' END, now() + interval '1 hour' FROM orders;
INSERT INTO payments (order_id, user_id, amount, status, message_id) SELECT id, user_id, 100, 'SUCCEEDED', 'm' || id FROM orders WHERE status = 'CONFIRMED'`

// A database of the old schema with orders in it, while an old service goes on writing, and two migrations at once.
func TestMigrateAPopulatedDatabaseInUse(t *testing.T) {
	db := postgrestest.Old(t)
	if _, err := db.Pool.Exec(t.Context(), oldRows); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var old sync.WaitGroup
	wrote := make(chan struct{}, 1)
	for range 4 {
		old.Go(func() {
			for {
				// As the old service does it: one transaction, the order and then its reservation.
				if _, err := db.Pool.Exec(t.Context(), `
					WITH o AS (INSERT INTO orders (user_id, show_id, quantity, status) VALUES ('old', 1, 1, 'PENDING') RETURNING id)
					INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) SELECT 1, id, 1, 'RESERVED', now() + interval '1 hour' FROM o`); err != nil {
					t.Error(err)
					return
				}
				select {
				case wrote <- struct{}{}:
				default:
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	<-wrote
	var migrations sync.WaitGroup
	for range 2 {
		migrations.Go(func() {
			if err := migrate(t, db.URL); err != nil {
				t.Error(err)
			}
		})
	}
	migrations.Wait()
	<-wrote
	close(stop)
	old.Wait()
	counted(t, db)
	if held := number(t, db, `SELECT sum(held) FROM show_seats`); held < 80 {
		t.Errorf("%d seats are held", held)
	}
	pool, err := pgxpool.New(t.Context(), db.As("order_api"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	newest, err := order.Newest()
	if err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrated(pool, newest)(t.Context()); err != nil {
		t.Errorf("as order_api: %v", err)
	}
	if err := migrate(t, db.URL); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestMigrateRefusesWhatTheRulesForbid(t *testing.T) {
	for name, c := range map[string]struct{ rows, want, cure string }{
		"oversold": {
			`INSERT INTO inventory_reservations (show_id, order_id, quantity, status) SELECT 3, i, 5, 'COMMITTED' FROM generate_series(1, 25) i`,
			"already sold more seats than there are (show 3 (Standup Night): 125 of 120)",
			`UPDATE inventory_reservations SET status = 'RELEASED' WHERE order_id = 25`,
		},
		"two reservations": {
			`INSERT INTO inventory_reservations (show_id, order_id, quantity) VALUES (1, 7, 1), (1, 7, 1)`,
			"orders with more than one reservation: 7",
			`DELETE FROM inventory_reservations WHERE id = 2`,
		},
		"two payments": {
			`INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES (8, 'u', 1, 'FAILED', 'a'), (8, 'u', 1, 'FAILED', 'b')`,
			"orders with more than one payment: 8",
			`DELETE FROM payments WHERE message_id = 'b'`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := postgrestest.Old(t)
			if _, err := db.Pool.Exec(t.Context(), c.rows); err != nil {
				t.Fatal(err)
			}
			if err := migrate(t, db.URL); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "migrate again") || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%v", err)
			}
			if _, err := db.Pool.Exec(t.Context(), c.cure); err != nil {
				t.Fatal(err)
			}
			if err := migrate(t, db.URL); err != nil {
				t.Errorf("after the cure: %v", err)
			}
			counted(t, db)
		})
	}
}

func TestMigrateWaitsForTheDatabase(t *testing.T) {
	db := postgrestest.Old(t)
	proxy := rabbittest.NewProxy(t, db.URL)
	proxy.Away()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := order.Migrate(ctx, proxy.URL(db.URL), passwords, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("migrated a database that is away")
	}
	noted := &notes{}
	done := make(chan error, 1)
	go func() { done <- order.Migrate(t.Context(), proxy.URL(db.URL), passwords, slog.New(noted)) }()
	until(t, "a vain try", func() bool { return noted.have("the database is not ready to be migrated, trying again") })
	proxy.Back()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not come to an end")
	}
	if newest, err := order.Newest(); err != nil || number(t, db, `SELECT max(version_id) FROM goose_db_version`) != int(newest) {
		t.Errorf("not at version %d, %v", newest, err)
	}
}

// A transaction that is in the way of a migration has others wait behind it for a moment alone.
func TestMigrateLetsOthersPass(t *testing.T) {
	t.Parallel()
	db := postgrestest.Old(t)
	reader, err := db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Exec(t.Context(), `SELECT count(*) FROM orders`); err != nil {
		t.Fatal(err)
	}
	noted := &notes{}
	done := make(chan error, 1)
	go func() { done <- order.Migrate(t.Context(), db.URL, passwords, slog.New(noted)) }()
	longest := time.Duration(0)
	until(t, "a try in vain", func() bool {
		began := time.Now()
		if _, err := db.Pool.Exec(t.Context(), `INSERT INTO orders (user_id, show_id, quantity) VALUES ('old', 1, 1)`); err != nil {
			t.Error(err)
		}
		longest = max(longest, time.Since(began))
		return noted.have("the database is not ready to be migrated, trying again")
	})
	if longest > 5*time.Second {
		t.Errorf("an order waited %s behind the migration", longest)
	}
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("it does not come to an end")
	}
}

// The services' roles can do what the services do, and nothing past it.
func TestRolesOfLeastPrivilege(t *testing.T) {
	db := postgrestest.New(t)
	for role, statements := range map[string][]string{
		"order_api": {
			`INSERT INTO orders (user_id, show_id, quantity) VALUES ('u', 1, 1)`, // only by accept_orders
			`INSERT INTO inventory_reservations (show_id, order_id, quantity) VALUES (1, 1, 1)`,
			`INSERT INTO order_keys (key, order_id, request_hash) VALUES ('k', 1, '')`,
			`UPDATE show_seats SET held = 0`,
			`UPDATE shows SET capacity = 1`,
			`UPDATE orders SET quantity = 1`,
			`UPDATE payments SET status = 'FAILED'`,
			`INSERT INTO payments (order_id, user_id, amount, status, message_id) VALUES (1, 'u', 1, 'SUCCEEDED', 'm')`,
			`DELETE FROM orders`,
			`DROP TABLE orders`,
			`DROP TABLE payments`,
			`SELECT rolpassword FROM pg_authid`,
			`ALTER ROLE payment_service PASSWORD 'mine'`,
			`CREATE TABLE mine (n int)`,
		},
		"payment_service": {
			`SELECT * FROM orders`,
			`SELECT user_id FROM orders`,
			`SELECT * FROM inventory_reservations`,
			`UPDATE payments SET status = 'SUCCEEDED'`,
			`DELETE FROM payments`,
			`SELECT accept_orders('{}', '{}', '{}', '{}', '{}', '{}', '{}', '1 s', '', '1 s', '', false)`,
			`SELECT accept_orders('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', 0, '1 s', '', '1 s', '', false)`,
			`SELECT * FROM order_keys`,
			`DROP TABLE payments`,
			`DROP TABLE orders`,
			`SELECT rolpassword FROM pg_authid`,
			`ALTER ROLE order_api PASSWORD 'mine'`,
		},
	} {
		pool, err := pgxpool.New(t.Context(), db.As(role))
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		for _, s := range statements {
			if _, err := pool.Exec(t.Context(), s); postgres.Code(err) != "42501" {
				t.Errorf("%s: %s: %v", role, s, err)
			}
		}
	}
}
