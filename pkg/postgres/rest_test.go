package postgres_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"platformctl/pkg/postgres"
)

func TestRestIsAShareWithinBounds(t *testing.T) {
	for _, c := range []struct{ took, least, want time.Duration }{
		{0, time.Second, time.Second},
		{10 * time.Millisecond, time.Second, time.Second},
		{100 * time.Millisecond, time.Second, 2 * time.Second},
		{time.Minute, time.Second, 10 * time.Second},
		{time.Second, time.Minute, time.Minute},
	} {
		if got := postgres.Rest(c.took, c.least); got != c.want {
			t.Errorf("after %s, at least %s: %s, not %s", c.took, c.least, got, c.want)
		}
	}
}

func TestWhatIsDearIsToldAgainForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cost, reads := time.Millisecond, 0
		broken := errors.New("away")
		var fails error
		spared := postgres.Spare(func(context.Context) (int, error) {
			<-time.After(cost) // on the test's own clock
			reads++
			return reads, fails
		})
		get := func(want int, wantErr error) {
			t.Helper()
			if n, err := spared.Get(t.Context()); n != want || !errors.Is(err, wantErr) {
				t.Errorf("%d, %v instead of %d, %v", n, err, want, wantErr)
			}
		}
		get(1, nil)
		get(2, nil) // cheap: anew
		cost = 100 * time.Millisecond
		get(3, nil)
		get(3, nil)
		<-time.After(1999 * time.Millisecond)
		get(3, nil)
		<-time.After(2 * time.Millisecond)
		fails = broken
		get(4, broken) // a failure is nobody's answer
		get(5, broken)
		fails = nil
		get(6, nil)

		// All who ask at once share one read, and who does not wait for it leaves.
		<-time.After(time.Minute)
		done := make(chan int)
		for range 3 {
			go func() {
				n, err := spared.Get(t.Context())
				if err != nil {
					t.Error(err)
				}
				done <- n
			}()
		}
		synctest.Wait()
		left, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := spared.Get(left); !errors.Is(err, context.Canceled) {
			t.Errorf("who had left got %v", err)
		}
		for range 3 {
			if n := <-done; n != 7 {
				t.Errorf("one got read %d", n)
			}
		}
	})
}
