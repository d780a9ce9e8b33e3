package inspect

import (
	"context"
	"errors"
	"net"
	"strconv"
	"testing"

	"platformctl/pkg/postgres/postgrestest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestTablesAreOnlyRead(t *testing.T) {
	db := postgrestest.New(t)
	config, err := pgx.ParseConfig(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	where := Tables{User: config.User, Password: config.Password, Database: config.Database, Dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))))
	}}
	r, err := where.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	document, err := r.JSON(t.Context(), "SELECT json_agg(s.id ORDER BY s.id) FROM (SELECT generate_series(1, 3) AS id) s")
	if err != nil || string(document) != "[1, 2, 3]" {
		t.Errorf("%s, %v", document, err)
	}
	_, err = r.JSON(t.Context(), "CREATE TABLE t ()")
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "25006" { // read_only_sql_transaction
		t.Errorf("%v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.JSON(t.Context(), "SELECT 1"); err == nil {
		t.Error("a closed connection answers")
	}
	where.Password = "another"
	if _, err := where.Open(t.Context()); err == nil {
		t.Error("any password will do")
	}
}
