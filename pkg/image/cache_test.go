package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain lets the test's own program be the other process that uses the cache.
func TestMain(m *testing.M) {
	if dir := os.Getenv("IMAGE_TEST_MAKE_IN"); dir != "" {
		_, err := NewCache(dir).Make(context.Background(), "thing", func(_ context.Context, work string) (Made, error) {
			if err := os.WriteFile(filepath.Join(work, "half"), []byte("half"), 0o644); err != nil {
				return Made{}, err
			}
			fmt.Println("at work")
			_, err := io.Copy(io.Discard, os.Stdin) // until it is killed
			return Made{}, err
		})
		fmt.Println("ended:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestCacheMakesOnce(t *testing.T) {
	dir := t.TempDir()
	var made atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			// A cache of one's own is as good as a process of one's own: the lock belongs to the opened file.
			e, err := NewCache(dir).Make(t.Context(), "thing", maker(&made, "content"))
			if err != nil || content(t, e.Archive()) != "content" {
				t.Errorf("made %+v, %v", e, err)
			}
		})
	}
	all.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("it was made %d times", n)
	}
	onlyFiles(t, dir, "thing.json", "thing.lock", "thing.tar")
}

func TestCacheGoesOnAfterAKilledProcess(t *testing.T) {
	dir := t.TempDir()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "IMAGE_TEST_MAKE_IN="+dir)
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "at work\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var made atomic.Int32
	if _, err := NewCache(dir).Make(soon, "thing", maker(&made, "content")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another makes it: %v", err)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := other.Wait(); err == nil {
		t.Error("the other process ended well")
	}
	if err := stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	_, err = NewCache(dir).Make(t.Context(), "thing", func(ctx context.Context, work string) (Made, error) {
		if left, err := os.ReadDir(work); err != nil || len(left) > 0 {
			t.Errorf("the work folder holds %v, %v", left, err)
		}
		return maker(&made, "content")(ctx, work)
	})
	if err != nil || made.Load() != 1 {
		t.Errorf("made %d times, %v", made.Load(), err)
	}
	onlyFiles(t, dir, "thing.json", "thing.lock", "thing.tar")
}

func TestCacheNoticesDamage(t *testing.T) {
	for what, damage := range map[string]func(t *testing.T, e CacheEntry){
		"cut short": func(t *testing.T, e CacheEntry) { must(t, os.Truncate(e.Path, e.Size-1)) },
		"other bytes": func(t *testing.T, e CacheEntry) {
			write(t, e.Path, "CONTENT")
			must(t, os.Chtimes(e.Path, time.Now(), time.Now().Add(time.Hour)))
		},
		"gone":        func(t *testing.T, e CacheEntry) { must(t, os.Remove(e.Path)) },
		"half a note": func(t *testing.T, e CacheEntry) { must(t, os.Truncate(noteOf(e.Path), 20)) },
		"no note":     func(t *testing.T, e CacheEntry) { must(t, os.Remove(noteOf(e.Path))) },
		"other bytes and the same time": func(t *testing.T, e CacheEntry) {
			info, err := os.Stat(e.Path)
			must(t, err)
			write(t, e.Path, "CONTENT")
			must(t, os.Chtimes(e.Path, info.ModTime(), info.ModTime()))
			// Nothing but reading finds this; who reads is told, and the next run makes it again.
			r, err := e.Archive().Open()
			must(t, err)
			if _, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("read to its end: %v", err)
			}
			must(t, r.Close())
		},
	} {
		t.Run(what, func(t *testing.T) {
			c := NewCache(t.TempDir())
			var made atomic.Int32
			e, err := c.Make(t.Context(), "thing", maker(&made, "content"))
			must(t, err)
			damage(t, e)
			if _, ok, err := c.Get("thing"); ok || err != nil {
				t.Errorf("it is still there, %v", err)
			}
			e, err = c.Make(t.Context(), "thing", maker(&made, "content"))
			if err != nil || made.Load() != 2 || content(t, e.Archive()) != "content" {
				t.Errorf("made %d times: %+v, %v", made.Load(), e, err)
			}
		})
	}
}

func TestTouchedFileIsStillGood(t *testing.T) {
	c := NewCache(t.TempDir())
	var made atomic.Int32
	e, err := c.Make(t.Context(), "thing", maker(&made, "content"))
	must(t, err)
	must(t, os.Chtimes(e.Path, time.Now(), time.Now().Add(time.Hour)))
	if _, ok, err := c.Get("thing"); !ok || err != nil {
		t.Errorf("found %v, %v", ok, err)
	}
}

func TestFailedMakerLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	broken := errors.New("no mirror")
	_, err := NewCache(dir).Make(t.Context(), "thing", func(_ context.Context, work string) (Made, error) {
		write(t, filepath.Join(work, "half"), "half")
		return Made{}, broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	onlyFiles(t, dir, "thing.lock")
}

func TestCacheListsTrimsAndRemoves(t *testing.T) {
	dir := t.TempDir()
	c := NewCache(dir)
	if all, err := c.List(); len(all) > 0 || err != nil {
		t.Errorf("an empty cache lists %v, %v", all, err)
	}
	began := time.Now().Add(-time.Second)
	for i, key := range []string{"node-old", "node-middle", "node-new", "node-root-old"} {
		_, err := c.Make(t.Context(), key, func(_ context.Context, work string) (Made, error) {
			write(t, filepath.Join(work, "f"), strings.Repeat("x", 10-i))
			return Made{Path: filepath.Join(work, "f"), Ref: "test.local/node:1", ID: "sha256:" + key}, nil
		})
		must(t, err)
		at := time.Now().Add(time.Duration(i-10) * time.Hour)
		must(t, os.Chtimes(filepath.Join(dir, key+".json"), at, at))
	}
	all, err := c.List()
	must(t, err)
	var seen []string
	for _, e := range all {
		seen = append(seen, fmt.Sprint(e.Key, " ", e.Size, " ", e.ID))
	}
	if diff := cmp.Diff([]string{"node-old 10 sha256:node-old", "node-middle 9 sha256:node-middle", "node-new 8 sha256:node-new", "node-root-old 7 sha256:node-root-old"}, seen); diff != "" {
		t.Errorf("the list (-want +got):\n%s", diff)
	}
	e, ok, err := c.Get("node-old") // now the last one used
	if !ok || err != nil || e.Used.Before(began) {
		t.Errorf("got %v %+v, %v", ok, e, err)
	}
	must(t, c.Trim(t.Context(), "node", 2))
	onlyFiles(t, dir, "node-middle.lock", "node-new.json", "node-new.lock", "node-new.tar", "node-old.json", "node-old.lock", "node-old.tar",
		"node-root-old.json", "node-root-old.lock", "node-root-old.tar")
	must(t, c.Remove(t.Context(), "node-new"))
	must(t, c.Remove(t.Context(), "never-was"))
	if _, ok, err := c.Get("node-new"); ok || err != nil {
		t.Errorf("removed, and found: %v, %v", ok, err)
	}
}

func TestKeysAreNames(t *testing.T) {
	c := NewCache(t.TempDir())
	for _, key := range []string{"", "../escape", "a/b", ".hidden", "Upper"} {
		if _, _, err := c.Get(key); err == nil {
			t.Errorf("%q was taken", key)
		}
		if err := c.Work(t.Context(), key, func(string) error { return nil }); err == nil {
			t.Errorf("%q was worked under", key)
		}
	}
}

// maker makes a file and counts how often.
func maker(made *atomic.Int32, content string) func(context.Context, string) (Made, error) {
	return func(_ context.Context, work string) (Made, error) {
		made.Add(1)
		file := filepath.Join(work, "file")
		return Made{Path: file, Ref: "a/b:1", ID: "sha256:1"}, os.WriteFile(file, []byte(content), 0o644)
	}
}

func content(t *testing.T, a Archive) string {
	t.Helper()
	r, err := a.Open()
	must(t, err)
	text, err := io.ReadAll(r)
	must(t, err)
	must(t, r.Close())
	return string(text)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func onlyFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the cache holds (-want +got):\n%s", diff)
	}
}
