package payment

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"math"
	"time"
)

// Gateway is a simulated one. It decides by the order's id alone, so that asking again gives the same answer.
type Gateway struct {
	FailureRate float64       // the part of the orders whose payment fails, from 0 to 1
	Delay       time.Duration // how long a payment takes
}

// Charge takes the payments of orders, all at once. Its error is ctx's.
func (g Gateway) Charge(ctx context.Context, orders []int32) ([]Status, error) {
	if g.Delay > 0 && len(orders) > 0 {
		timer := time.NewTimer(g.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	statuses := make([]Status, len(orders))
	for i, id := range orders {
		statuses[i] = Succeeded
		if chance(id) < g.FailureRate {
			statuses[i] = Failed
		}
	}
	return statuses, nil
}

// chance is a number from 0 to just below 1 that belongs to an order. That of order 1 is far from 0, so that the first order
// of a new platform succeeds at the default rate.
func chance(order int32) float64 {
	h := fnv.New64a()
	var id [4]byte
	binary.BigEndian.PutUint32(id[:], uint32(order))
	h.Write(id[:])
	// The last bytes of FNV's input reach its upper bits too little: spread them.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (math.MaxUint64>>11 + 1)
}
