// Package postgrestest gives each test a database of its own on the test servers: a copy of a template that is made once from
// the checkout's frozen tables and numbered migrations.
package postgrestest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"platformctl/pkg/postgres"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.yaml.in/yaml/v3"
)

// Variable holds the postgres:// URL of a superuser on the test servers.
const Variable = "PLATFORMCTL_TEST_POSTGRES"

// NeedsServers is how a test fails that finds no servers.
const NeedsServers = "needs the test servers: run `make test`, or `bin/platformctl servers -- go test ./pkg/...`"

// RolePassword is the password of the services' roles on the test servers.
const RolePassword = "test"

// Roles are the services' roles, which the migrations expect.
func Roles() []string { return []string{"order_api", "payment_service"} }

// Database is a test's own.
type Database struct {
	URL  string        // as the superuser
	Pool *pgxpool.Pool // as the superuser; closed after the test
}

// As is the database's URL for one of Roles.
func (d Database) As(role string) string {
	u := must(url.Parse(d.URL))
	u.User = url.UserPassword(role, RolePassword)
	return u.String()
}

// New makes a migrated database with the three shows. It is dropped after the test.
func New(t testing.TB) Database {
	t.Helper()
	return create(t, true)
}

// Old makes a database as the frozen scripts leave it, before any migration.
func Old(t testing.TB) Database {
	t.Helper()
	return create(t, false)
}

// templateLock is the advisory lock under which a template is made.
const templateLock = 720_517_002

func create(t testing.TB, migrated bool) Database {
	t.Helper()
	server := os.Getenv(Variable)
	if server == "" {
		t.Fatal(NeedsServers)
	}
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := frozen(filepath.Join(root, "values", "dev", "postgresql.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var migrations fs.FS
	if migrated {
		migrations = os.DirFS(filepath.Join(root, "pkg", "order", "schema"))
	}
	// The test's own context is over before the clean-up.
	ctx := context.WithoutCancel(t.Context())
	admin, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatalf("%s: %v", NeedsServers, err)
	}
	t.Cleanup(func() {
		if err := admin.Close(ctx); err != nil {
			t.Errorf("close the test servers' connection: %v", err)
		}
	})
	template, err := prepare(ctx, admin, server, scripts, migrations)
	if err != nil {
		t.Fatalf("make the template database: %v", err)
	}
	name := "test_" + strings.ToLower(rand.Text()[:12])
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatalf("make the test's database: %v", err)
	}
	address := withDatabase(server, name)
	pool, err := pgxpool.New(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pool.Close()
		if _, err := admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return Database{URL: address, Pool: pool}
}

// prepare returns the name of the template, which depends on its contents, and makes it if it is not there.
func prepare(ctx context.Context, admin *pgx.Conn, server string, scripts []string, migrations fs.FS) (name string, err error) {
	sum := sha256.New()
	for _, s := range scripts {
		fmt.Fprintf(sum, "%d %s", len(s), s)
	}
	if migrations != nil {
		files, err := fs.Glob(migrations, "*.sql")
		if err != nil || len(files) == 0 {
			return "", errors.Join(err, errors.New("there are no migrations in pkg/order/schema"))
		}
		for _, f := range files {
			text, err := fs.ReadFile(migrations, f)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%s %d %s", f, len(text), text)
		}
	}
	name = fmt.Sprintf("template_%x", sum.Sum(nil)[:8])
	if _, err := admin.Exec(ctx, `SELECT pg_advisory_lock($1)`, templateLock); err != nil {
		return "", err
	}
	defer func() {
		_, e := admin.Exec(ctx, `SELECT pg_advisory_unlock($1)`, templateLock)
		err = errors.Join(err, e)
	}()
	var there bool
	if err := admin.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&there); err != nil || there {
		return name, err
	}
	// Made under another name, so that a half-made one is never taken for the template.
	draft := name + "_draft"
	for _, statement := range []string{"DROP DATABASE IF EXISTS " + draft + " WITH (FORCE)", "CREATE DATABASE " + draft} {
		if _, err := admin.Exec(ctx, statement); err != nil {
			return "", err
		}
	}
	if err := fill(ctx, withDatabase(server, draft), scripts, migrations); err != nil {
		return "", err
	}
	_, err = admin.Exec(ctx, "ALTER DATABASE "+draft+" RENAME TO "+name)
	return name, err
}

func fill(ctx context.Context, address string, scripts []string, migrations fs.FS) error {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	for _, s := range scripts {
		if _, err = conn.Exec(ctx, s); err != nil {
			break
		}
	}
	if err == nil && migrations != nil {
		for _, role := range Roles() {
			err = errors.Join(err, postgres.EnsureRole(ctx, conn, role, RolePassword))
		}
	}
	if err = errors.Join(err, conn.Close(ctx)); err != nil || migrations == nil {
		return err
	}
	return postgres.Migrate(ctx, address, migrations, slog.New(slog.DiscardHandler))
}

// frozen reads the initdb scripts of a values file, in the order of their names.
func frozen(path string) ([]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var values struct {
		Primary struct {
			InitDB struct {
				Scripts map[string]string `yaml:"scripts"`
			} `yaml:"initdb"`
		} `yaml:"primary"`
	}
	if err := yaml.Unmarshal(raw, &values); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	scripts := values.Primary.InitDB.Scripts
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(scripts)) {
		if !strings.HasSuffix(name, ".sql") {
			return nil, fmt.Errorf("%s: the script %s is not SQL", path, name)
		}
		texts = append(texts, scripts[name])
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("%s has no primary.initdb.scripts", path)
	}
	return texts, nil
}

// checkout is the folder with our go.mod, found upward.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		raw, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(raw), "module platformctl\n") {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no checkout of platformctl found upward")
		}
		dir = parent
	}
}

func withDatabase(address, name string) string {
	u := must(url.Parse(address))
	u.Path = "/" + name
	return u.String()
}

func must(u *url.URL, err error) *url.URL {
	if err != nil {
		panic(fmt.Sprintf("%s is not a URL: %v", Variable, err))
	}
	return u
}
