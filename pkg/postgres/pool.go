// Package postgres is what both services need of PostgreSQL: a pool, migrations, roles, and the classes of its errors.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"time"

	"platformctl/pkg/resolve"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	connectTimeout = 3 * time.Second
	// statementTimeout bounds a statement at the server too, so that one whose client gave up does not run on.
	statementTimeout = 10 * time.Second
	connectionCheck  = time.Second
	// silence is how long a server may leave what was sent unacknowledged. TCP by itself asks at ever longer intervals, and
	// notices the end of a cut of twelve seconds another twelve seconds later.
	silence = 5 * time.Second
)

// Open makes a pool for a postgres:// URL. It does not connect: a database that is away is met by the first statement.
// The caller closes the pool.
func Open(url, application string, size int) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read the database's address: %w", err)
	}
	config.MaxConns = int32(size)
	config.MaxConnIdleTime = 5 * time.Minute
	config.ConnConfig.ConnectTimeout = connectTimeout
	config.ConnConfig.LookupFunc, config.ConnConfig.DialFunc = resolve.Host, dialer().DialContext
	params := config.ConnConfig.RuntimeParams
	params["application_name"] = application
	params["statement_timeout"] = fmt.Sprint(statementTimeout.Milliseconds())
	params["idle_in_transaction_session_timeout"] = fmt.Sprint(statementTimeout.Milliseconds())
	// A statement that waits for a lock ends soon after its client has gone, rather than taking effect unseen.
	params["client_connection_check_interval"] = fmt.Sprint(connectionCheck.Milliseconds())
	// Each table that grows has the index that a service asks for. Without this a statement prepared while a table was empty, or thought
	// to be, reads all of it until it is analyzed again: a minute, in which each batch costs more than the one before.
	params["enable_seqscan"] = "off"
	// What looks at much does it in the background: it shall not take every core from the batches.
	params["max_parallel_workers_per_gather"] = "0"
	params["tcp_user_timeout"] = fmt.Sprint(silence.Milliseconds()) // the server's side of dialer
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("make the database pool: %w", err)
	}
	return pool, nil
}

// dialer makes connections that end when their server is silent: what is sent must be acknowledged in time, and where an answer
// is waited for, probes must be. A server that is slow, or stopped, is not silent: its kernel acknowledges.
func dialer() *net.Dialer {
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence, Interval: time.Second, Count: 3},
		Control: func(_, _ string, raw syscall.RawConn) error {
			if runtime.GOOS != "linux" {
				return nil // only tests run elsewhere
			}
			var failed error
			err := raw.Control(func(fd uintptr) {
				failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(silence.Milliseconds()))
			})
			return errors.Join(err, failed)
		},
	}
}

// tcpUserTimeout is Linux's TCP_USER_TIMEOUT, which package syscall does not name.
const tcpUserTimeout = 18

// Metrics are the pool's gauges, and how often and how long its connections were waited for.
func Metrics(pool *pgxpool.Pool) []prometheus.Collector {
	counter := func(name, help string, value func(*pgxpool.Stat) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return value(pool.Stat()) })
	}
	gauge := func(name, help string, value func(*pgxpool.Stat) int32) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value(pool.Stat())) })
	}
	return []prometheus.Collector{
		gauge("postgres_pool_connections", "Connections of the pool, in use and idle.", (*pgxpool.Stat).TotalConns),
		gauge("postgres_pool_connections_in_use", "Connections of the pool that are in use.", (*pgxpool.Stat).AcquiredConns),
		gauge("postgres_pool_connections_max", "The most connections that the pool opens.", (*pgxpool.Stat).MaxConns),
		counter("postgres_pool_waits_total", "How often no connection was free.", func(s *pgxpool.Stat) float64 { return float64(s.EmptyAcquireCount()) }),
		counter("postgres_pool_wait_seconds_total", "How long was waited for a connection while none was free.", func(s *pgxpool.Stat) float64 { return s.EmptyAcquireWaitTime().Seconds() }),
	}
}
