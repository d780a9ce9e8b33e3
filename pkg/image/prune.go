package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Unused tells what Prune would remove: all entries that keep does not want, and what killed runs left behind, as an entry
// without a reference.
func (c *Cache) Unused(keep func(key string) bool) ([]CacheEntry, error) {
	all, err := c.List()
	if err != nil {
		return nil, err
	}
	var unused []CacheEntry
	for _, e := range all {
		if !keep(e.Key) {
			unused = append(unused, e)
		}
	}
	left, err := filepath.Glob(filepath.Join(c.dir, "*.work"))
	if err != nil {
		return nil, fmt.Errorf("list the cache: %w", err)
	}
	for _, dir := range left {
		size, err := sizeOf(dir)
		if err != nil {
			return nil, fmt.Errorf("measure what an earlier run left: %w", err)
		}
		unused = append(unused, CacheEntry{Key: strings.TrimSuffix(filepath.Base(dir), ".work"), Path: dir, Size: size})
	}
	return unused, nil
}

// busyFor is how long Prune waits for who is at work under a key.
const busyFor = 200 * time.Millisecond

// Prune removes entries that Unused told of, and returns those that are gone. What somebody is just working on stays.
func (c *Cache) Prune(ctx context.Context, unused []CacheEntry) ([]CacheEntry, error) {
	var gone []CacheEntry
	for _, e := range unused {
		mine, cancel := context.WithTimeout(ctx, busyFor)
		var err error
		if strings.HasSuffix(e.Path, ".work") {
			err = c.sweep(mine, e)
		} else {
			err = c.Remove(mine, e.Key)
		}
		busy := mine.Err() != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded)
		cancel()
		if busy {
			continue
		}
		if err != nil {
			return gone, err
		}
		gone = append(gone, e)
	}
	return gone, nil
}

// sweep removes a work folder that nobody works in.
func (c *Cache) sweep(ctx context.Context, e CacheEntry) (err error) {
	unlock, err := c.lock(ctx, e.Key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := os.RemoveAll(e.Path); err != nil {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	return nil
}

func sizeOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody is at work there
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}
