package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"platformctl/pkg/postgres"
	"platformctl/pkg/postgres/postgrestest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"
)

func TestErrorClasses(t *testing.T) {
	db := postgrestest.New(t)
	for statement, data := range map[string]bool{
		`SELECT 1/0`: true,
		`INSERT INTO show_seats (show_id, capacity) VALUES (1, 1)`:    true, // unique
		`UPDATE show_seats SET held = capacity + 1 WHERE show_id = 1`: true, // check
		`SELECT 99999999999::int4`:                                    true,
		`SELECT * FROM no_such_table`:                                 false,
		`SELECT pg_terminate_backend(pg_backend_pid())`:               false,
	} {
		_, err := db.Pool.Exec(t.Context(), statement)
		if err == nil || postgres.IsDataError(err) != data {
			t.Errorf("%s: %v, data error %t", statement, err, !data)
		}
	}
}

func TestRetryEndsBySuccessDataOrContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("away")
		broken := fmt.Errorf("insert: %w", &pgconn.PgError{Code: "23505"})
		for name, c := range map[string]struct {
			answers []error // then nil
			want    error
			told    int
		}{
			"success":       {nil, nil, 0},
			"success later": {[]error{away, away, away}, nil, 3},
			"data":          {[]error{away, broken}, broken, 1},
		} {
			told, calls := 0, 0
			err := postgres.Retry(t.Context(), func(error) { told++ }, func(context.Context) error {
				if calls++; calls > len(c.answers) {
					return nil
				}
				return c.answers[calls-1]
			})
			if !errors.Is(err, c.want) || told != c.told {
				t.Errorf("%s: %v, told %d times", name, err, told)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		calls := 0
		err := postgres.Retry(ctx, nil, func(context.Context) error { calls++; return away })
		if !errors.Is(err, away) || calls < 150 || calls > 600 {
			t.Errorf("for a minute: %v after %d calls", err, calls)
		}
	})
}

func TestEachGoodFindsTheBadOnesAndKeepsTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := make([]int, rapid.IntRange(0, 40).Draw(t, "items"))
		for i := range items {
			items[i] = i
		}
		isBad := rapid.SliceOfN(rapid.Bool(), len(items), len(items)).Draw(t, "bad")
		var good, bad []int
		err := postgres.EachGood(items, func(part []int) error {
			for _, i := range part {
				if isBad[i] {
					return &pgconn.PgError{Code: "22003"}
				}
			}
			good = append(good, part...)
			return nil
		}, func(i int, err error) { bad = append(bad, i) })
		if err != nil || len(good)+len(bad) != len(items) || !slices.IsSorted(good) || !slices.IsSorted(bad) {
			t.Fatalf("good %v, bad %v, %v", good, bad, err)
		}
		for _, i := range bad {
			if !isBad[i] {
				t.Fatalf("%d was not bad", i)
			}
		}
	})
	away := errors.New("away")
	if err := postgres.EachGood([]int{1, 2}, func([]int) error { return away }, func(int, error) { t.Error("blamed an item for the server") }); !errors.Is(err, away) {
		t.Error(err)
	}
}

func TestRolesGetTheirPasswords(t *testing.T) {
	db := postgrestest.New(t)
	conn, err := db.Pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, role := range postgrestest.Roles() {
		if err := postgres.EnsureRole(t.Context(), conn.Conn(), role, postgrestest.RolePassword); err != nil {
			t.Fatal(err)
		}
		own, err := pgx.Connect(t.Context(), db.As(role))
		if err != nil {
			t.Fatalf("log in as %s: %v", role, err)
		}
		var name string
		if err := own.QueryRow(t.Context(), `SELECT current_user`).Scan(&name); err != nil || name != role {
			t.Errorf("logged in as %q, %v", name, err)
		}
		if err := own.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A batch of orders in hand holds the intake's lock, and a snapshot holds it against all of them: a rollout, which makes the roles, waits
// for neither.
func TestRolesDoNotWaitForOrders(t *testing.T) {
	db := postgrestest.New(t)
	order, err := db.Pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = order.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := order.Exec(t.Context(), `SELECT pg_advisory_xact_lock(720517001)`); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := postgres.EnsureRole(ctx, conn, postgrestest.Roles()[0], postgrestest.RolePassword); err != nil {
		t.Error(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A transaction that somebody forgot, whoever it is, does not hold its locks for long: our own sessions are not the only ones.
func TestTheServerEndsForgottenTransactions(t *testing.T) {
	conn, err := pgx.Connect(t.Context(), postgrestest.New(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"idle_in_transaction_session_timeout": "1min", "tcp_user_timeout": "30000", "tcp_keepalives_idle": "15"} {
		var got string
		if err := conn.QueryRow(t.Context(), `SELECT current_setting($1)`, name).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, want %s (%v)", name, got, want, err)
		}
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// Roles are the whole server's: whoever makes them from another database must wait, not fail.
func TestRolesAreMadeFromTwoDatabasesAtOnce(t *testing.T) {
	databases := []postgrestest.Database{postgrestest.New(t), postgrestest.New(t)}
	for round := range 100 {
		role := fmt.Sprintf("test_race_%d_%d", os.Getpid(), round)
		var makers errgroup.Group
		for _, db := range databases {
			conn, err := pgx.Connect(t.Context(), db.URL)
			if err != nil {
				t.Fatal(err)
			}
			makers.Go(func() error {
				return errors.Join(
					postgres.EnsureRole(t.Context(), conn, role, "first"),
					postgres.EnsureRole(t.Context(), conn, role, "second"),
					conn.Close(t.Context()))
			})
		}
		if err := makers.Wait(); err != nil {
			t.Error(err)
		}
		if _, err := databases[0].Pool.Exec(t.Context(), "DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	}
}

// That it helps is what chaos shows, where packets are dropped; here it is that both sides have it.
func TestAServerThatIsSilentIsGivenUp(t *testing.T) {
	db := postgrestest.New(t)
	pool, err := postgres.Open(db.URL, "silence", 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	var theirs string
	if err := pool.QueryRow(t.Context(), "SHOW tcp_user_timeout").Scan(&theirs); err != nil || theirs != "5000" {
		t.Errorf("the server gives its client %q to acknowledge (%v)", theirs, err)
	}
	if runtime.GOOS != "linux" {
		return
	}
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	raw, err := conn.Conn().PgConn().Conn().(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const userTimeout = 18
	if e := raw.Control(func(fd uintptr) {
		if ours, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout); err != nil || ours != 5000 {
			t.Errorf("the client gives the server %d ms to acknowledge (%v)", ours, err)
		}
	}); e != nil {
		t.Error(e)
	}
}

func TestMigrationsAtOnceRunOnce(t *testing.T) {
	db := postgrestest.Old(t)
	migrations := fstest.MapFS{
		"00001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE a (n int);\nINSERT INTO a VALUES (1);\nSELECT pg_sleep(0.3);\n")},
		"00002_b.sql": {Data: []byte("-- +goose Up\nINSERT INTO a VALUES (2);\n")},
	}
	if v, err := postgres.Version(t.Context(), db.Pool); err != nil || v != 0 {
		t.Errorf("before: version %d, %v", v, err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := postgres.Migrate(t.Context(), db.URL, migrations, slog.New(slog.DiscardHandler)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var rows int
	if err := db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM a`).Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows, %v", rows, err)
	}
	if v, err := postgres.Version(t.Context(), db.Pool); err != nil || v != 2 {
		t.Errorf("after: version %d, %v", v, err)
	}
}
