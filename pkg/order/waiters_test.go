package order_test

import (
	"log/slog"
	"testing"
	"time"

	"platformctl/pkg/order"
	"platformctl/pkg/postgres/postgrestest"
)

// Who waits at one replica for an order is told when another one ends it, and nobody else is.
func TestOrdersThatEndElsewhere(t *testing.T) {
	t.Parallel()
	s := newService(t, postgrestest.New(t), "", options{noRelay: true})
	here, there := s.post(t, like).accepted(t), s.post(t, like).accepted(t)
	waiters := &order.Waiters{} // another replica's
	go func() {
		if err := waiters.Watch(t.Context(), s.store, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	}()
	ended, leave := waiters.Wait(there)
	defer leave()
	other, leaveOther := waiters.Wait(here)
	defer leaveOther()
	if _, err := s.store.Settle(t.Context(), []int32{there}, []int32{there}, order.Arrival{At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("nobody is told that the order has ended")
	}
	select {
	case <-other:
		t.Error("an order that is PENDING was told to have ended")
	default:
	}
}
