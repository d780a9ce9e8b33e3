package order

import (
	"context"
	"sync"
	"time"
)

// Order ids are taken from the sequence in blocks, for each costs a commit. What a service that ends has not used is lost,
// so the blocks are small until they are used up within a second.
const leastIDs, mostIDs = 32, 4096

// ids hands out order ids from blocks of the sequence.
type ids struct {
	reserve func(ctx context.Context, n int) ([]int32, error)

	mu    sync.Mutex
	free  []int32   // the next one first
	block int       // how many were reserved last
	at    time.Time // and when
}

func (s *ids) take(ctx context.Context, n int) ([]int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if missing := n - len(s.free); missing > 0 {
		s.block *= 2
		if now := time.Now(); now.Sub(s.at) > time.Second {
			s.block = leastIDs
		}
		s.block = min(s.block, mostIDs)
		fresh, err := s.reserve(ctx, max(missing, s.block))
		if err != nil {
			return nil, err
		}
		s.free, s.at = append(s.free, fresh...), time.Now()
	}
	taken := s.free[:n:n]
	s.free = s.free[n:]
	return taken, nil
}

// forget gives up what is left of the blocks.
func (s *ids) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = nil
}

// giveBack takes ids that certainly stand in no table.
func (s *ids) giveBack(unused []int32) {
	if len(unused) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(unused, s.free...)
}
