package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Code is the SQLSTATE that the server answered, or "" where err is not the server's.
func Code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// IsDataError tells whether the statement's data is at fault (SQLSTATE 22xxx, 23xxx): it fails again however often it is
// tried. Of all other errors none says that: the server may be away, restarting, full, or not migrated yet.
func IsDataError(err error) bool {
	code := Code(err)
	return len(code) == 5 && (code[:2] == "22" || code[:2] == "23")
}

// IsDuplicate tells whether the server refused a row of one of the tables because another has its key already.
func IsDuplicate(err error, tables ...string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" && slices.Contains(tables, pg.TableName)
}

const (
	firstPause = 20 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// Retry calls do until it succeeds, fails by its data, or ctx ends, with growing pauses between the calls. failed, which may
// be nil, is told of each error that is going to be retried. The error is do's last one.
func Retry(ctx context.Context, failed func(error), do func(context.Context) error) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := do(ctx)
		if err == nil || IsDataError(err) || ctx.Err() != nil {
			return err
		}
		if failed != nil {
			failed(err)
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// EachGood gives items to do, all in one call. Where that fails by its data, it halves them until the ones at fault stand
// alone; these go to bad, with the error, and the others take effect. Any other error ends it, and it may then be called
// again with the same items, if do bears repetition.
func EachGood[T any](items []T, do func([]T) error, bad func(T, error)) error {
	if len(items) == 0 {
		return nil
	}
	err := do(items)
	switch {
	case err == nil:
		return nil
	case !IsDataError(err):
		return err
	case len(items) == 1:
		bad(items[0], err)
		return nil
	}
	half := len(items) / 2
	if err := EachGood(items[:half], do, bad); err != nil {
		return err
	}
	return EachGood(items[half:], do, bad)
}
