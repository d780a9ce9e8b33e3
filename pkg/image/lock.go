package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lock lets one process at a time make or remove what is under key. The kernel drops it with its holder, however that
// one ends. The lock's file stays: whoever removed it could remove one that another has just taken.
func (c *Cache) lock(ctx context.Context, key string) (unlock func() error, err error) {
	at, err := c.path(key, ".lock")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the cache's folder: %w", err)
	}
	file, err := os.OpenFile(at, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s in the cache: %w", key, err)
	}
	// A lock that is waited for in the kernel cannot be given up on Ctrl-C, so we ask ten times a second.
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s in the cache: %w", key, err), file.Close())
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for another process that makes %s: %w", key, context.Cause(ctx)), file.Close())
		}
	}
}
