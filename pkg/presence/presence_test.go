package presence_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/presence"

	"github.com/jackc/pgx/v5/pgxpool"
)

const patience = 30 * time.Second

func TestASessionIsNotedFromItsBeginningToItsEnd(t *testing.T) {
	db := postgrestest.New(t)
	if _, err := db.Pool.Exec(t.Context(), "INSERT INTO consumer_sessions (id, queue, pod, began, seen) VALUES ('old', 'q', 'p', now() - interval '40 days', now() - interval '31 days'), ('young', 'q', 'p', now() - interval '40 days', now() - interval '29 days')"); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"order_api", "payment_service"} {
		pool, err := pgxpool.New(t.Context(), db.As(role))
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		note := presence.Note{DB: pool, Queue: "q of " + role, Pod: "pod-1", Log: slog.New(slog.DiscardHandler)}
		life, end := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() { note.Session(life); close(over) }()
		sees := func(ended bool) {
			t.Helper()
			for began := time.Now(); ; {
				var n int
				if err := db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM consumer_sessions WHERE queue = $1 AND pod = 'pod-1' AND began <= seen AND (ended IS NOT NULL) = $2", note.Queue, ended).Scan(&n); err != nil {
					t.Fatal(err)
				}
				if n == 1 {
					return
				}
				if time.Since(began) > patience {
					t.Fatalf("there are %d sessions of %s, ended %v", n, role, ended)
				}
			}
		}
		sees(false)
		end()
		<-over
		sees(true)
	}
	var left []string
	if err := db.Pool.QueryRow(t.Context(), "SELECT array_agg(id ORDER BY id) FROM consumer_sessions WHERE queue = 'q'").Scan(&left); err != nil || len(left) != 1 || left[0] != "young" {
		t.Errorf("%q, %v", left, err)
	}
}
