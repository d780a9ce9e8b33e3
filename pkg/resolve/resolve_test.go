package resolve

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func TestALostQuestionIsAskedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, asked := time.Now(), 0
		got, err := ask(t.Context(), "db", func(ctx context.Context, host string) ([]string, error) {
			if asked++; time.Since(began) < 600*time.Millisecond {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return []string{host + "'s"}, nil
		})
		if err != nil || len(got) != 1 || got[0] != "db's" || asked != 4 || time.Since(began) != 953125*time.Microsecond {
			t.Errorf("%q, %v after %d questions, %s", got, err, asked, time.Since(began))
		}
	})
}

func TestAnAnswerThatThereIsNoneCounts(t *testing.T) {
	none := &net.DNSError{Err: "no such host", Name: "db", IsNotFound: true}
	asked := 0
	if _, err := ask(t.Context(), "db", func(context.Context, string) ([]string, error) { asked++; return nil, none }); !errors.Is(err, none) || asked != 1 {
		t.Errorf("%v after %d questions", err, asked)
	}
}

func TestItIsAskedUntilTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := ask(ctx, "db", func(ctx context.Context, _ string) ([]string, error) { <-ctx.Done(); return nil, ctx.Err() })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

func TestDial(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Dial(t.Context(), "tcp", net.JoinHostPort("localhost", port)) // whose first address may be IPv6
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(conn.Close(), listener.Close()); err != nil {
		t.Fatal(err)
	}
	var refused *net.OpError
	if _, err := Dial(t.Context(), "tcp", net.JoinHostPort("localhost", port)); !errors.As(err, &refused) {
		t.Error(err)
	}
	if _, err := Dial(t.Context(), "tcp", "localhost"); err == nil {
		t.Error("an address without a port was dialed")
	}
}
