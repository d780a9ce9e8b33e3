package snapshot

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"platformctl/pkg/fault"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Database is where the platform's database is reached, as a superuser: it alone may load rows past the triggers, which would
// count them once more. Many rows take another way, compressed and as files beside the server, by Exec: the way to a pod costs
// more than reading or loading them.
type Database struct {
	Dial                     func(ctx context.Context) (net.Conn, error)
	User, Password, Database string
	Exec                     Exec
}

const (
	// intakeLock is the advisory lock that whoever takes orders shares since the migration of this number.
	intakeLock   = 720517001
	pausedSince  = 7
	lockPatience = 10 * time.Second // for locks; only a person's own transaction holds any of them for long
	// silence is how long the server keeps a session whose platformctl is gone, and with it the intake's pause.
	silence = 2 * time.Minute
	// large is from how many rows on it pays to take a table's indexes away and make them anew.
	large = 5000
)

// session is one connection to the database.
type session struct{ conn *pgx.Conn }

func (d Database) connect(ctx context.Context) (*session, error) {
	config, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, err
	}
	// What pgx reads from the environment of who runs platformctl is not meant for this.
	config.Host, config.Port, config.User, config.Password, config.Database = "localhost", 5432, d.User, d.Password, d.Database
	config.Fallbacks, config.TLSConfig = nil, nil
	config.RuntimeParams = map[string]string{
		"application_name":                    "platformctl snapshot",
		"search_path":                         "public",
		"lock_timeout":                        fmt.Sprint(lockPatience.Milliseconds()),
		"statement_timeout":                   "0",
		"idle_session_timeout":                fmt.Sprint(silence.Milliseconds()),
		"idle_in_transaction_session_timeout": fmt.Sprint(silence.Milliseconds()),
	}
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return d.Dial(ctx) }
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return &session{conn}, nil
}

// close ends the session, and with it whatever it holds.
func (s *session) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return s.conn.Close(ctx)
}

func (s *session) do(ctx context.Context, what, statement string) error {
	if _, err := s.conn.Exec(ctx, statement); err != nil {
		return failed(what, err)
	}
	return nil
}

// failed wraps an error of the database with what was attempted.
func failed(what string, err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "55P03" {
		return fault.TimedOut(`platformctl psql -c "SELECT pid, application_name, query FROM pg_stat_activity WHERE state <> 'idle'"`,
			"%s: another session held its locks for %s: %w", what, lockPatience, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// pause has new orders wait from now on, until resume or the session's end.
func (s *session) pause(ctx context.Context) error {
	return s.do(ctx, "pause the intake of orders", fmt.Sprintf("SELECT pg_advisory_lock(%d)", intakeLock))
}

func (s *session) resume(ctx context.Context) error {
	return s.do(ctx, "let orders in again", fmt.Sprintf("SELECT pg_advisory_unlock(%d)", intakeLock))
}

// moving counts what is on its way as far as the database knows: events to be sent, and orders without an end, some of which
// may have none because their events are dead letters.
const moving = `
SELECT (SELECT count(*) FROM outbox),
	(SELECT count(*) FROM inventory_reservations r JOIN orders o ON o.id = r.order_id WHERE r.status = 'RESERVED' AND o.status = 'PENDING')`

func (s *session) moving(ctx context.Context) (events, orders int64, err error) {
	if err := s.conn.QueryRow(ctx, moving).Scan(&events, &orders); err != nil {
		return 0, 0, failed("see what is on its way", err)
	}
	return events, orders, nil
}

// hold begins a transaction in which nothing can enter the outbox, nor leave it, and whose snapshot is of that moment. It tells
// whether the outbox is empty; where it is not, the transaction is over.
func (s *session) hold(ctx context.Context) (empty bool, err error) {
	const what = "hold the outbox still"
	for _, statement := range []string{
		"BEGIN ISOLATION LEVEL REPEATABLE READ",
		"SAVEPOINT held", // a lock can be given back before the transaction ends
		"LOCK TABLE outbox IN SHARE MODE",
	} {
		if err := s.do(ctx, what, statement); err != nil {
			return false, err
		}
	}
	var events int64 // the first statement that reads: the snapshot is taken behind the lock
	if err := s.conn.QueryRow(ctx, "SELECT count(*) FROM outbox").Scan(&events); err != nil {
		return false, failed(what, err)
	}
	if events > 0 {
		return false, s.release(ctx)
	}
	return true, nil
}

// release ends hold's transaction.
func (s *session) release(ctx context.Context) error {
	return s.do(ctx, "end the transaction", "ROLLBACK")
}

// letGo gives the outbox back; the transaction goes on with its snapshot.
func (s *session) letGo(ctx context.Context) error {
	return s.do(ctx, "let go of the outbox", "ROLLBACK TO SAVEPOINT held")
}

// All tables but that of the migrations, which is the program's and not the data's.
const listTables = `
SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum), array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'goose_db_version'
	AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
GROUP BY c.relname ORDER BY c.relname`

func (s *session) tables(ctx context.Context) ([]Table, error) {
	rows, err := s.conn.Query(ctx, listTables)
	if err != nil {
		return nil, failed("list the tables", err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t Table, err error) {
		var columns, types []string
		err = row.Scan(&t.Name, &columns, &types)
		for i := range columns {
			t.Columns = append(t.Columns, Column{columns[i], types[i]})
		}
		return t, err
	})
	if err != nil {
		return nil, failed("list the tables", err)
	}
	return tables, nil
}

const readAbout = `
SELECT current_setting('server_version'),
	(SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied),
	(SELECT count(*) FROM orders), (SELECT count(*) FROM orders WHERE status = 'PENDING'),
	(SELECT coalesce(json_object_agg(sequencename, last_value), '{}') FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL
		AND sequencename <> 'goose_db_version_id_seq')`

// about fills in what a manifest says of the database.
func (s *session) about(ctx context.Context, m *Manifest) (err error) {
	if err := s.conn.QueryRow(ctx, readAbout).Scan(&m.Server, &m.Schema, &m.Orders, &m.Pending, &m.Sequences); err != nil {
		return failed("read the database's version", err)
	}
	m.Tables, err = s.tables(ctx)
	return err
}

// snapshotUntouched begins a transaction of one snapshot and tells whether nothing was ever ordered in it, so that nothing is on
// its way either. Where something was, the transaction is over.
func (s *session) snapshotUntouched(ctx context.Context) (bool, error) {
	if err := s.do(ctx, "look for orders", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return false, err
	}
	var any bool
	const ask = `SELECT EXISTS (SELECT FROM orders) OR EXISTS (SELECT FROM payments) OR EXISTS (SELECT FROM inventory_reservations) OR EXISTS (SELECT FROM outbox)`
	if err := s.conn.QueryRow(ctx, ask).Scan(&any); err != nil {
		return false, failed("look for orders", err)
	}
	if any {
		return false, s.release(ctx)
	}
	return true, nil
}

// checkPause is a fault where whoever takes orders does not know the lock yet.
func (s *session) checkPause(ctx context.Context) error {
	var m Manifest
	if err := s.about(ctx, &m); err != nil {
		return err
	}
	if m.Schema < pausedSince {
		return fault.Unfit("platformctl up", "the database is at schema version %d, in which the intake of orders can not be paused", m.Schema)
	}
	return nil
}

func (t Table) copies(direction string, options ...string) string {
	columns := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		columns[i] = quoted(c.Name)
	}
	return fmt.Sprintf("COPY %s (%s) %s (%s)", quoted(t.Name), strings.Join(columns, ", "), direction, strings.Join(append(options, "FORMAT binary"), ", "))
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// few is how many bytes of rows go through the connection: of tables as they are, and of a snapshot.
const few, fewPacked = 2 << 20, 256 << 10

// beside is the folder for files beside the server. One platformctl at a time uses it.
const beside = "/tmp/platformctl-snapshot"

// many tells whether the tables are worth the way by files.
func (s *session) many(ctx context.Context) (bool, error) {
	var bytes int64
	const ask = `SELECT coalesce(sum(pg_relation_size(oid)), 0)::int8 FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'`
	if err := s.conn.QueryRow(ctx, ask).Scan(&bytes); err != nil {
		return false, failed("measure the tables", err)
	}
	return bytes > few, nil
}

// export writes a table's rows, packed, and returns their number.
func (s *session) export(ctx context.Context, t Table, to io.Writer) (int64, error) {
	pack, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		return 0, err
	}
	tag, err := s.conn.PgConn().CopyTo(ctx, pack, t.copies("TO STDOUT"))
	if err == nil {
		err = pack.Close()
	}
	if err != nil {
		return 0, failed("read table "+t.Name, err)
	}
	return tag.RowsAffected(), nil
}

// exportBeside appends a table's rows, packed, to a file beside the server and their end in it to another. The first table's
// begin the files.
func (s *session) exportBeside(ctx context.Context, t Table, first bool) (int64, error) {
	begin := ""
	if first {
		begin = "mkdir -p " + beside + " && rm -f " + beside + "/out " + beside + "/ends && "
	}
	tag, err := s.conn.Exec(ctx, t.copies("TO PROGRAM '"+begin+"cd "+beside+" && gzip -n1 >>out && wc -c <out >>ends'"))
	if err != nil {
		return 0, failed("read table "+t.Name, err)
	}
	return tag.RowsAffected(), nil
}

// fetch reads what exportBeside wrote for so many tables and hands it to take, table by table.
func (d Database) fetch(ctx context.Context, tables int, take func(i int, rows io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	read, write := io.Pipe()
	over := make(chan error, 1)
	go func() {
		err := d.Exec(ctx, nil, write, "sh", "-c", `cd "$0" && cat ends out && rm out ends`, beside)
		_ = write.CloseWithError(err) // always nil
		over <- err
	}()
	err := func() error {
		from := bufio.NewReaderSize(read, 1<<16)
		ends := make([]int64, tables)
		for i := range ends {
			line, err := from.ReadString('\n')
			if err == nil {
				ends[i], err = strconv.ParseInt(strings.TrimSpace(line), 10, 64)
			}
			if err != nil {
				return err
			}
		}
		begin := int64(0)
		for i, end := range ends {
			if err := take(i, io.LimitReader(from, end-begin)); err != nil {
				return err
			}
			begin = end
		}
		if n, err := io.Copy(io.Discard, from); err != nil || n > 0 {
			return errors.Join(err, fmt.Errorf("%d bytes too many", n))
		}
		return nil
	}()
	_ = read.CloseWithError(err) // always nil
	if err = errors.Join(err, <-over); err != nil {
		return fmt.Errorf("fetch the tables: %w", err)
	}
	return nil
}

// bring writes the rows of a snapshot's tables to a file beside the server.
func (d Database) bring(ctx context.Context, rows io.Reader) error {
	if err := d.Exec(ctx, rows, io.Discard, "sh", "-c", `mkdir -p "$0" && cat >"$0/in"`, beside); err != nil {
		return fmt.Errorf("bring the tables: %w", err)
	}
	return nil
}

// replace begins a transaction and in it replaces what is in the tables by the data, which is nil where bring has brought it; the
// caller commits, or ends the session.
func (s *session) replace(ctx context.Context, m Manifest, data io.Reader) error {
	var all []string
	for _, t := range m.Tables {
		all = append(all, quoted(t.Name))
	}
	for _, statement := range []string{
		"BEGIN",
		// No triggers: the seat counters are among the data. What is loaded was whole when it was saved.
		"SET LOCAL session_replication_role = replica",
		"SET LOCAL maintenance_work_mem = '64MB'",
		"SET LOCAL synchronous_commit = on",
		"TRUNCATE " + strings.Join(all, ", "),
	} {
		if err := s.do(ctx, "empty the tables", statement); err != nil {
			return err
		}
	}
	begin := int64(0)
	for i, t := range m.Tables {
		var again []string
		if t.Rows >= large {
			var err error
			if again, err = s.dropIndexes(ctx, t.Name); err != nil {
				return err
			}
		}
		tag, err := s.load(ctx, t, m.Format > plain, begin, data, i == len(m.Tables)-1)
		if err != nil {
			return failed("load table "+t.Name, err)
		}
		begin += t.Bytes
		if n := tag.RowsAffected(); n != t.Rows {
			return fmt.Errorf("load table %s: %d rows came and should be %d", t.Name, n, t.Rows)
		}
		for _, statement := range again {
			if err := s.do(ctx, "index table "+t.Name, statement); err != nil {
				return err
			}
		}
	}
	// An id that was given out once, here or where the snapshot is from, is never given out again.
	for name, last := range m.Sequences {
		if _, err := s.conn.Exec(ctx, `
			SELECT setval($1::text::regclass, $2::int8) FROM pg_sequences
			WHERE schemaname = 'public' AND sequencename = $3 AND coalesce(last_value, 0) < $2::int8`, quoted(name), last, name); err != nil {
			return failed("set sequence "+name, err)
		}
	}
	return nil
}

// load loads a table's rows from the data, or where that is nil from the file beside the server, in which they begin at a byte. The
// last one's end is the file's too. The rows are frozen, which a table that this transaction has emptied allows: none of them is
// written once more, by who reads it first or by a vacuum.
func (s *session) load(ctx context.Context, t Table, packed bool, begin int64, data io.Reader, last bool) (pgconn.CommandTag, error) {
	if data == nil {
		words := fmt.Sprintf("cd %s && tail -c +%d in | head -c %d", beside, begin+1, t.Bytes)
		if packed {
			words += " | gzip -dc"
		}
		if last {
			words += " && rm in"
		}
		return s.conn.Exec(ctx, t.copies("FROM PROGRAM '"+words+"'", "FREEZE"))
	}
	part := io.LimitReader(data, t.Bytes)
	if !packed {
		return s.conn.PgConn().CopyFrom(ctx, part, t.copies("FROM STDIN", "FREEZE"))
	}
	rows, err := gzip.NewReader(part)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := s.conn.PgConn().CopyFrom(ctx, rows, t.copies("FROM STDIN", "FREEZE"))
	if err == nil {
		_, err = io.Copy(io.Discard, part) // the next one's rows begin behind it
	}
	return tag, err
}

// Indexes that a constraint of another table leans on stay.
const listIndexes = `
SELECT c.relname, pg_get_indexdef(i.indexrelid), k.conname, pg_get_constraintdef(k.oid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid
WHERE i.indrelid = $1::text::regclass AND NOT EXISTS (SELECT FROM pg_constraint f WHERE f.conindid = i.indexrelid AND f.contype = 'f')
ORDER BY c.relname`

// dropIndexes takes a table's indexes away and returns the statements that make them again: many rows are indexed in a fraction
// of the time once they are all there.
func (s *session) dropIndexes(ctx context.Context, table string) (again []string, err error) {
	what := "index table " + table
	rows, err := s.conn.Query(ctx, listIndexes, quoted(table))
	if err != nil {
		return nil, failed(what, err)
	}
	var drop []string
	var index, definition string
	var constraint, claim *string
	if _, err := pgx.ForEachRow(rows, []any{&index, &definition, &constraint, &claim}, func() error {
		if constraint != nil {
			drop = append(drop, fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s", quoted(table), quoted(*constraint)))
			again = append(again, fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s", quoted(table), quoted(*constraint), *claim))
			return nil
		}
		drop = append(drop, "DROP INDEX "+quoted(index))
		again = append(again, definition)
		return nil
	}); err != nil {
		return nil, failed(what, err)
	}
	for _, statement := range drop {
		if err := s.do(ctx, what, statement); err != nil {
			return nil, err
		}
	}
	return again, nil
}

func (s *session) commit(ctx context.Context) error { return s.do(ctx, "commit", "COMMIT") }
