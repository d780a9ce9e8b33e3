package proof

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/postgres/postgrestest"

	"github.com/jackc/pgx/v5/pgxpool"
)

// owner is the test's database by simple queries, as psql makes them.
type owner struct {
	connection
	pool *pgxpool.Pool
}

func (o owner) Do(ctx context.Context, statement string) ([]byte, error) {
	conn, err := o.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	results, err := conn.Conn().PgConn().Exec(ctx, statement).ReadAll()
	if err != nil {
		return nil, err
	}
	var lines [][]byte
	for _, r := range results {
		for _, row := range r.Rows {
			lines = append(lines, row[0])
		}
	}
	return bytes.Join(lines, []byte("\n")), nil
}

// An API that takes each order and ends it at once, with its rows.
const endedOrder = `
WITH o AS (INSERT INTO orders (user_id, show_id, quantity, status, ended_at) SELECT 'bench', max(id), 1, 'CONFIRMED', now() FROM shows RETURNING *),
r AS (INSERT INTO inventory_reservations (show_id, order_id, quantity, status) SELECT show_id, id, 1, 'COMMITTED' FROM o),
e AS (INSERT INTO order_events (order_id, hop, pod) SELECT id, 'accepted', 'p' FROM o),
k AS (INSERT INTO order_keys (key, order_id, request_hash) SELECT 'k' || id, id, '' FROM o)
INSERT INTO payments (order_id, user_id, amount, status, message_id) SELECT id, 'bench', 50, 'SUCCEEDED', 'm' || id FROM o`

func TestBenchLeavesNothingBehindUnlessSomethingIsBroken(t *testing.T) {
	for _, c := range []struct {
		name          string
		keep, damaged bool
		left          int // orders of the bench
	}{{"all is well", false, false, 0}, {"to be kept", true, false, 20}, {"broken", false, true, 20}} {
		t.Run(c.name, func(t *testing.T) {
			db := postgrestest.New(t)
			database := owner{connection{db.Pool}, db.Pool}
			database.do(t, life...)
			database.do(t, `UPDATE orders SET id = id + 1000000`, `UPDATE inventory_reservations SET order_id = order_id + 1000000`, `UPDATE payments SET order_id = order_id + 1000000, message_id = 'order.created:' || order_id + 1000000`)
			if c.damaged {
				database.do(t, `DELETE FROM payments WHERE order_id = 1000001`)
			}
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, err := db.Pool.Exec(r.Context(), endedOrder); err != nil {
					t.Error(err)
				}
				w.WriteHeader(http.StatusAccepted)
			}))
			defer api.Close()
			r, err := Bench{
				Platform: Platform{Database: database, Broker: resting{}}, Database: database, Keep: c.keep, Meter: Meter{Proc: t.TempDir()}, Say: func(string) {},
				Load: Load{Address: strings.TrimPrefix(api.URL, "http://"), Quantity: 1, Clients: 2, Duration: time.Minute, Orders: 20},
			}.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if r.Answers.Accepted.Count != 20 || r.Ends.Orders != 20 || r.Ends.Ended != 20 || r.Ends.Unsettled != 0 || r.CPU != nil || r.Report.Holds == c.damaged {
				t.Errorf("%+v", r)
			}
			var shows, orders, reservations, payments, events, held int
			if err := db.Pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM shows WHERE venue = 'platformctl bench'), (SELECT count(*) FROM orders WHERE user_id = 'bench'),
				(SELECT count(*) FROM inventory_reservations), (SELECT count(*) FROM payments WHERE user_id = 'bench'), (SELECT count(*) FROM order_events), (SELECT held FROM show_seats WHERE show_id = 1)`).
				Scan(&shows, &orders, &reservations, &payments, &events, &held); err != nil {
				t.Fatal(err)
			}
			if shows != c.left/20 || orders != c.left || reservations != 4+c.left || payments != c.left || events != c.left || held != 2 {
				t.Errorf("left are %d shows, %d orders, %d reservations, %d payments, %d events; %d are held in show 1", shows, orders, reservations, payments, events, held)
			}
			after, err := Verify(t.Context(), Platform{Database: database, Broker: resting{}}, 0, func(int64, int64, int64) {})
			if err != nil || after.Holds == c.damaged {
				t.Errorf("%+v %v", after, err)
			}
		})
	}
}
