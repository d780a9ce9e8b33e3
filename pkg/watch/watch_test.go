package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"platformctl/pkg/fault"
)

func TestSettled(t *testing.T) {
	for name, test := range map[string]struct {
		every time.Duration // between changes
		times int
		want  time.Duration
	}{
		"one change":                          {0, 0, quiet},
		"three in a row":                      {150 * time.Millisecond, 2, 300*time.Millisecond + quiet},
		"a second one that is another change": {quiet + time.Millisecond, 1, quiet},
		"changes that do not end":             {50 * time.Millisecond, 1000, most},
	} {
		synctest.Test(t, func(t *testing.T) {
			changed := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var changing sync.WaitGroup
			changing.Go(func() {
				for range test.times {
					time.Sleep(test.every)
					select {
					case changed <- struct{}{}:
					case <-ctx.Done():
						return
					}
				}
			})
			began := time.Now()
			if err := settled(ctx, changed); err != nil || time.Since(began) != test.want {
				t.Errorf("%s: settled after %s with %v, want %s", name, time.Since(began), err, test.want)
			}
			cancel()
			changing.Wait()
		})
	}
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		if err := settled(ctx, nil); !errors.Is(err, gone) {
			t.Errorf("settled = %v", err)
		}
	})
}

// folder is a real folder that is watched.
type folder struct {
	t   *testing.T
	dir string
	w   *Watcher
}

func watched(t *testing.T) *folder {
	t.Helper()
	w, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &folder{t, t.TempDir(), w}
	f.must(w.Folders([]string{f.dir}))
	return f
}

func (f *folder) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) write(name string) {
	f.t.Helper()
	f.must(os.WriteFile(f.path(name), []byte(name), 0o644))
}

// hears fails unless a change is heard of.
func (f *folder) hears(what string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	if err := f.w.Next(ctx); err != nil {
		f.t.Fatalf("%s was not heard of: %v", what, err)
	}
}

// silent fails if a change is heard of. What the kernel tells, it tells in order: so it is enough to hear of nothing before
// a change that is made now.
func (f *folder) silent(what string) {
	f.t.Helper()
	select {
	case <-f.w.changed:
		f.t.Errorf("%s was heard of", what)
	case <-time.After(50 * time.Millisecond):
	}
}

func TestWhatEditorsDoIsHeard(t *testing.T) {
	f := watched(t)
	f.write("a.go")
	f.hears("a new file")
	f.write("a.go")
	f.hears("a file written in place")
	f.write("a.go.new")
	f.must(os.Rename(f.path("a.go.new"), f.path("a.go")))
	f.hears("a file put in the place of another")
	f.write("a.go")
	f.hears("writing that one")
	f.must(os.Remove(f.path("a.go")))
	f.hears("a file that is removed")
}

func TestFoldersComeAndGo(t *testing.T) {
	f := watched(t)
	all := []string{f.dir, f.path("sub")}
	f.must(f.w.Folders(all)) // sub is not there yet
	f.must(os.Mkdir(f.path("sub"), 0o755))
	f.hears("a new folder")
	f.must(f.w.Folders(all))
	f.write("sub/a.go")
	f.hears("a file in the new folder")
	// As a branch that is checked out does it.
	f.must(os.RemoveAll(f.path("sub")))
	f.must(os.Mkdir(f.path("sub"), 0o755))
	f.hears("a folder made anew")
	f.must(f.w.Folders(all))
	f.write("sub/a.go")
	f.hears("a file in the folder made anew")
	f.must(os.Rename(f.path("sub"), f.path("old")))
	f.must(os.Mkdir(f.path("sub"), 0o755))
	f.hears("a folder in the place of another")
	f.must(f.w.Folders(all))
	f.write("sub/a.go")
	f.hears("a file in the folder in its place")
	f.must(f.w.Folders([]string{f.dir}))
	f.write("sub/b.go")
	f.silent("a file in a folder that is not watched any more")
	f.write("b.go")
	f.hears("a file in the one that is")
}

func TestNoWatchesLeft(t *testing.T) {
	if err := limited(fmt.Errorf("watch x: %w", syscall.ENOSPC)); fault.CodeOf(err) != fault.CodeUnfit || fault.CureOf(err) == "" {
		t.Errorf("got %v", err)
	}
	if err := limited(syscall.EACCES); fault.CodeOf(err) != fault.CodeFailed {
		t.Errorf("got %v", err)
	}
}
