package postgres_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"platformctl/pkg/postgres"
)

func TestPausesAreAShareWithinBounds(t *testing.T) {
	var p postgres.Pauses
	for i, c := range []struct{ took, least, want time.Duration }{
		{10 * time.Millisecond, time.Second, time.Second},
		{200 * time.Millisecond, time.Second, time.Second}, // once: it may have waited for something else
		{100 * time.Millisecond, time.Second, 2 * time.Second},
		{time.Minute, time.Second, 2 * time.Second},
		{time.Minute, time.Second, 10 * time.Second},
		{time.Minute, time.Minute, time.Minute},
		{0, time.Second, time.Second},
	} {
		if got := p.After(c.took, c.least); got != c.want {
			t.Errorf("look %d, of %s: %s, not %s", i, c.took, got, c.want)
		}
	}
}

// read counts how often it was done, on the clock of the test's bubble.
type read struct {
	cost  time.Duration
	times int
	err   error
}

func (r *read) do(context.Context) (int, error) {
	<-time.After(r.cost)
	r.times++
	return r.times, r.err
}

func TestWhatIsDearIsToldAgainForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := read{cost: 40 * time.Millisecond}
		throttled := postgres.Throttle(r.do)
		get := func(want int, wantErr error) {
			t.Helper()
			if n, err := throttled.Get(t.Context()); n != want || !errors.Is(err, wantErr) {
				t.Errorf("%d, %v instead of %d, %v", n, err, want, wantErr)
			}
		}
		get(1, nil)
		get(2, nil) // cheap: anew
		r.cost = 100 * time.Millisecond
		get(3, nil)
		get(4, nil) // dear once is not dear
		get(4, nil)
		<-time.After(1999 * time.Millisecond)
		get(4, nil)
		<-time.After(2 * time.Millisecond)
		r.err = errors.New("away")
		get(5, r.err) // a failure is nobody's answer
		get(6, r.err)
		r.err = nil
		get(7, nil)
	})
}

// Who comes while somebody reads gets what is read after that, one read for all of them: what they did before they asked is in it.
func TestAReadIsForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := read{cost: 10 * time.Millisecond}
		throttled := postgres.Throttle(r.do)
		got := make(chan int, 10)
		ask := func() {
			n, err := throttled.Get(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- n
		}
		go ask()
		<-time.After(time.Millisecond)
		for range 5 {
			go ask()
		}
		synctest.Wait()
		left, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := throttled.Get(left); !errors.Is(err, context.Canceled) {
			t.Errorf("who had left got %v", err)
		}
		if n := <-got; n != 1 {
			t.Errorf("the first got read %d", n)
		}
		for range 5 {
			if n := <-got; n != 2 {
				t.Errorf("who came later got read %d", n)
			}
		}
	})
}
