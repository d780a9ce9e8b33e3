// Package watch hears of changes in folders. What has changed it does not say: who is told looks at what is there, and so
// misses nothing that happened while nobody listened.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"platformctl/pkg/fault"
)

const (
	// quiet is how long nothing must change before a change counts: an editor saves in several steps, a branch in many.
	quiet = 200 * time.Millisecond
	// most is how long that is waited for: what changes all the time is told all the same.
	most = 2 * time.Second
)

// Watcher hears of changes in folders. Its methods are called by one goroutine at a time.
type Watcher struct {
	kernel  *fsnotify.Watcher
	changed chan struct{} // holds one: something changed since it was last taken
	broken  chan error    // holds one
	ended   chan struct{}
}

// New returns a watcher of no folders. Who calls it closes it.
func New() (*Watcher, error) {
	kernel, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, limited(fmt.Errorf("watch folders: %w", err))
	}
	w := &Watcher{kernel: kernel, changed: make(chan struct{}, 1), broken: make(chan error, 1), ended: make(chan struct{})}
	go w.listen()
	return w, nil
}

// Close ends the watching.
func (w *Watcher) Close() error {
	err := w.kernel.Close()
	<-w.ended
	return err
}

func (w *Watcher) listen() {
	defer close(w.ended)
	for {
		select {
		case e, open := <-w.kernel.Events:
			if !open {
				return
			}
			if e.Op == fsnotify.Chmod {
				continue // also what indexers and backups do; the content is the same
			}
		case err, open := <-w.kernel.Errors:
			if !open {
				return
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) { // too many at once are a change, too
				select {
				case w.broken <- fmt.Errorf("watch folders: %w", err):
				default:
				}
				continue
			}
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// Folders has these watched, each without what is below it, and no others. One that is not there is left out: who wants to
// hear when it comes watches the folder above it, and calls Folders again.
func (w *Watcher) Folders(paths []string) error {
	for _, old := range w.kernel.WatchList() {
		if slices.Contains(paths, old) {
			continue
		}
		if err := w.kernel.Remove(old); err != nil && !errors.Is(err, fsnotify.ErrNonExistentWatch) {
			return fmt.Errorf("stop watching %s: %w", old, err)
		}
	}
	for _, path := range paths {
		// Again also for one that is watched: another folder may be in its place.
		if err := w.kernel.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return limited(fmt.Errorf("watch %s: %w", path, err))
		}
	}
	return nil
}

// Next returns when something has changed since it last returned, and then nothing more for a moment. Its error is ctx's
// cause, or what keeps the kernel from watching.
func (w *Watcher) Next(ctx context.Context) error {
	select {
	case <-w.changed:
		return settled(ctx, w.changed)
	case err := <-w.broken:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settled returns when no change has come for a moment, or when they do not end.
func settled(ctx context.Context, changed <-chan struct{}) error {
	calm, late := time.NewTimer(quiet), time.NewTimer(most)
	defer calm.Stop()
	defer late.Stop()
	for {
		select {
		case <-changed:
			calm.Reset(quiet)
		case <-calm.C:
			return nil
		case <-late.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// limited adds the cure where the kernel's limits are too low.
func limited(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) {
		return fault.Unfit("platformctl doctor --fix   # raises the limits of inotify", "%w", err)
	}
	return err
}
