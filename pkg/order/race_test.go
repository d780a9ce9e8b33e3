package order_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"platformctl/pkg/contract"
	"platformctl/pkg/order"
	"platformctl/pkg/postgres/postgrestest"
)

// Three replicas race for one large hall, with orders of all sizes, until not a single seat is left: exactly what there was is
// sold.
func TestThreeReplicasSellEverySeatOnce(t *testing.T) {
	t.Parallel()
	const seats, clients = 30_001, 96
	db := postgrestest.New(t)
	if _, err := db.Pool.Exec(t.Context(), `UPDATE shows SET capacity = $1 WHERE id = 1`, seats); err != nil {
		t.Fatal(err)
	}
	var replicas []*service
	for range 3 {
		replicas = append(replicas, newService(t, db, "", options{noRelay: true}))
	}
	var sold, taken atomic.Int64
	// buy orders until quantity seats are not left any more.
	buy := func(intake *order.Intake, client int, quantity int32) error {
		for {
			outcome, err := intake.Submit(order.Request{User: contract.UserID(fmt.Sprint(client + 1)), Show: 1, Quantity: quantity}, func() bool { return false })
			switch {
			case errors.Is(err, order.ErrBusy):
			case err != nil:
				return err
			case !outcome.Accepted:
				return nil
			default:
				sold.Add(int64(quantity))
				taken.Add(1)
			}
		}
	}
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			// First as many at once as it likes, then ever fewer, for what is left between the large orders.
			for quantity := int32(1 + client%4); quantity > 0; quantity-- {
				if err := buy(replicas[client%3].intake, client, quantity); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if sold.Load() != seats {
		t.Errorf("%d seats of %d were sold", sold.Load(), seats)
	}
	if held := number(t, db, `SELECT held FROM show_seats WHERE show_id = 1`); held != seats {
		t.Errorf("%d seats are held", held)
	}
	if n := orders(t, replicas[0]); int64(n) != taken.Load() {
		t.Errorf("%d orders are in the table, and %d were accepted", n, taken.Load())
	}
	counted(t, db)
}
