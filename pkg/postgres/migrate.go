package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"

	"platformctl/pkg/resolve"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib" // goose speaks database/sql
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Migrate brings the database at the URL to the newest of the numbered *.sql files in migrations. It holds an advisory lock
// meanwhile, so that of several at once one works and the others find it done. Each file is a transaction.
func Migrate(ctx context.Context, url string, migrations fs.FS, log *slog.Logger) (err error) {
	config, err := connConfig(url)
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()
	// Asks each second, for five minutes.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return fmt.Errorf("make the migrations' lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations, goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true), goose.WithSlog(log))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	done, err := provider.Up(ctx)
	for _, m := range done {
		log.InfoContext(ctx, "migrated", "version", m.Source.Version, "duration", m.Duration.String())
	}
	if err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}

// Connect opens one connection, for what is done once.
func Connect(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := connConfig(url)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return conn, nil
}

func connConfig(url string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	// A server that was just replaced may leave a dial without an answer, for minutes if nobody bounds it.
	config.ConnectTimeout, config.LookupFunc = connectTimeout, resolve.Host
	return config, nil
}

// Querier is a connection, a pool or a transaction.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Migrated makes a check that the database has a version, or a newer one. It is asked until it once was so.
func Migrated(db Querier, needed int64) func(context.Context) error {
	var seen atomic.Bool
	return func(ctx context.Context) error {
		if seen.Load() {
			return nil
		}
		version, err := Version(ctx, db)
		if err != nil {
			return err
		}
		if version < needed {
			return fmt.Errorf("the database is at version %d and must be migrated to %d", version, needed)
		}
		seen.Store(true)
		return nil
	}
}

// Version is the number of the newest migration that the database has; 0 where it has none.
func Version(ctx context.Context, db Querier) (int64, error) {
	var version int64
	err := db.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&version)
	if Code(err) == "42P01" { // the table is not there
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the database's version: %w", err)
	}
	return version, nil
}
