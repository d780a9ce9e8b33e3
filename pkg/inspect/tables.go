package inspect

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
)

// Tables are where the platform's database is reached, to be read.
type Tables struct {
	Dial                     func(ctx context.Context) (net.Conn, error)
	User, Password, Database string
}

// Open makes a connection, which the caller closes. It can change nothing.
func (t Tables) Open(ctx context.Context) (*Reader, error) {
	config, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, err
	}
	// What pgx reads from the environment of who runs platformctl is not meant for this.
	config.Host, config.Port, config.User, config.Password, config.Database = "localhost", 5432, t.User, t.Password, t.Database
	config.Fallbacks, config.TLSConfig = nil, nil
	config.RuntimeParams = map[string]string{"application_name": "platformctl", "search_path": "public", "default_transaction_read_only": "on"}
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return t.Dial(ctx) }
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // one round trip a statement
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return &Reader{conn}, nil
}

// Reader is a connection to the database. One goroutine uses it.
type Reader struct{ conn *pgx.Conn }

// JSON implements Database.
func (r *Reader) JSON(ctx context.Context, statement string) (document []byte, err error) {
	if err := r.conn.QueryRow(ctx, statement).Scan(&document); err != nil {
		return nil, fmt.Errorf("ask the database: %w", err)
	}
	return document, nil
}

// closeTime is how long the goodbye may take.
const closeTime = time.Second

// Close ends the connection.
func (r *Reader) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return r.conn.Close(ctx)
}
