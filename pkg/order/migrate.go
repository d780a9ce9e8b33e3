package order

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"platformctl/pkg/postgres"
)

//go:embed schema/*.sql
var files embed.FS

// The roles as which the services run.
const (
	RoleOrderAPI       = "order_api"
	RolePaymentService = "payment_service"
)

// Passwords are those of the services' roles.
type Passwords struct{ OrderAPI, PaymentService string }

// Migrate makes the services' roles and brings the schema up, with the database owner's rights. Until ctx ends it tries
// again while the database is not up yet or another transaction is in the way. It is safe to repeat, and to run twice at once.
func Migrate(ctx context.Context, url string, passwords Passwords, log *slog.Logger) error {
	said := ""
	failed := func(err error) {
		if said != err.Error() { // once, not at each try
			said = err.Error()
			log.WarnContext(ctx, "the database is not ready to be migrated, trying again", "error", said)
		}
	}
	var refused error
	err := postgres.Retry(ctx, failed, func(ctx context.Context) error {
		err := migrate(ctx, url, passwords, log)
		if final(err) {
			refused, err = err, nil
		}
		if postgres.Code(err) == lockNotAvailable {
			select {
			case <-time.After(leave):
			case <-ctx.Done():
			}
		}
		return err
	})
	return errors.Join(refused, err)
}

const (
	// Whoever comes while a migration waits for a table waits behind it. So it waits for a second, and then leaves the table to
	// the others for a while.
	lockNotAvailable = "55P03"
	leave            = 3 * time.Second
)

func migrate(ctx context.Context, url string, passwords Passwords, log *slog.Logger) error {
	conn, err := postgres.Connect(ctx, url)
	if err != nil {
		return err
	}
	err = errors.Join(
		postgres.EnsureRole(ctx, conn, RoleOrderAPI, passwords.OrderAPI),
		postgres.EnsureRole(ctx, conn, RolePaymentService, passwords.PaymentService),
		conn.Close(ctx))
	if err != nil {
		return err
	}
	schema, err := fs.Sub(files, "schema")
	if err != nil {
		return err
	}
	return postgres.Migrate(ctx, url, schema, log)
}

// final tells whether the server answered with something that waiting does not cure. A wrong password and a missing
// database may be cured: they are what a database answers that is being set up.
func final(err error) bool {
	code := postgres.Code(err)
	if code == "" {
		return false
	}
	for _, class := range []string{"08", "28", "3D", "40", "53", "55", "57", "XX"} {
		if strings.HasPrefix(code, class) {
			return false
		}
	}
	return true
}

// Newest is the number of the newest migration of this build.
func Newest() (int64, error) {
	names, err := fs.Glob(files, "schema/*.sql")
	if err != nil || len(names) == 0 {
		return 0, errors.Join(err, errors.New("this build has no migrations"))
	}
	var version int64
	if _, err := fmt.Sscanf(names[len(names)-1], "schema/%d_", &version); err != nil {
		return 0, fmt.Errorf("read the number of %s: %w", names[len(names)-1], err)
	}
	return version, nil
}
