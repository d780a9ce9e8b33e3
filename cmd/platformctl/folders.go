package main

import (
	"fmt"
	"path/filepath"

	"github.com/adrg/xdg"
)

// folders are where the caches of all clusters lie, and their state.
func folders(getenv func(string) string) (cache, state string, err error) {
	cache, state = getenv("PLATFORMCTL_CACHE"), getenv("PLATFORMCTL_STATE")
	if cache == "" {
		cache = filepath.Join(xdg.CacheHome, "platformctl")
	}
	if state == "" {
		state = filepath.Join(xdg.StateHome, "platformctl")
	}
	for _, dir := range []*string{&cache, &state} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return "", "", fmt.Errorf("find the folders of caches and state: %w", err)
		}
	}
	return cache, state, nil
}
