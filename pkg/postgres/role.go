package postgres

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// roleLock is the advisory lock under which roles are made; the number only has to differ from those of the migrations and the intake.
const roleLock = 720_517_003

// EnsureRole makes a role that may log in with the password, or gives an existing one that password. The server is sent
// only a SCRAM verifier, so the password stands in no log and in no list of statements.
func EnsureRole(ctx context.Context, conn *pgx.Conn, name, password string) error {
	verifier, err := scramVerifier(password)
	if err != nil {
		return fmt.Errorf("make the verifier of role %s: %w", name, err)
	}
	ensure := func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, roleLock); err != nil {
			return err
		}
		var statement string
		if err := tx.QueryRow(ctx, `SELECT format(
			CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = $1) THEN 'ALTER ROLE %I LOGIN PASSWORD %L' ELSE 'CREATE ROLE %I LOGIN PASSWORD %L' END,
			$1::text, $2::text)`, name, verifier).Scan(&statement); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, statement)
		return err
	}
	for range roleTries {
		if err = pgx.BeginFunc(ctx, conn, ensure); !outrun(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("make role %s: %w", name, err)
	}
	return nil
}

// roleTries is how often somebody may be quicker who makes the same role from another database: roles are the whole server's,
// and an advisory lock is its database's alone.
const roleTries = 10

// outrun tells whether a role was not made because somebody else made or changed it in the same moment.
func outrun(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) &&
		(pg.Code == "23505" || pg.Code == "42710" || pg.Code == "XX000" && pg.Message == "tuple concurrently updated")
}

const scramIterations = 4096 // PostgreSQL's own default

// scramVerifier is what PostgreSQL keeps of a password (RFC 5803). The generated passwords are ASCII, which SASLprep leaves
// as it is.
func scramVerifier(password string) (string, error) {
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	salted, err := pbkdf2.Key(sha256.New, password, salt, scramIterations, sha256.Size)
	if err != nil {
		return "", err
	}
	mac := func(message string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(message))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", scramIterations, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}
