package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"
)

// Cache keeps files that took long to make, each under a key that says everything that went into it. Several processes
// may use one at once: who wants what another is just making waits for it.
//
// A folder of it holds, for each key, KEY.tar (the file), KEY.json (what it should be), KEY.lock, and while it is being
// made KEY.work (a folder).
type Cache struct {
	dir string
}

// NewCache returns the cache in the folder dir, which is made when something is first put into it.
func NewCache(dir string) *Cache { return &Cache{dir: dir} }

// Made is what a maker hands to the cache: a file in its work folder, and for an image what Archive says of it.
type Made struct {
	Path string
	Ref  string
	ID   string
}

// Entry of a cache.
type CacheEntry struct {
	Key  string
	Ref  string    // of an image; "" for a part of one
	ID   string    // of an image
	Path string    // the file; it must not be changed
	Size int64     // in bytes
	Used time.Time // when it was last asked for
	Sum  string    // the file's SHA-256, in hex
}

// Archive is the entry as an image.
func (e CacheEntry) Archive() Archive {
	return Archive{Path: e.Path, Ref: e.Ref, ID: e.ID, Size: e.Size, sum: e.Sum}
}

// record is what KEY.json holds. As long as the file's size and time of change are those of the day it was checked, it is
// believed without being read again.
type record struct {
	Ref     string    `json:"ref,omitempty"`
	ID      string    `json:"id,omitempty"`
	Size    int64     `json:"size"`
	Sum     string    `json:"sha256"`
	Changed time.Time `json:"changed"`
}

var keys = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)

func (c *Cache) path(key, suffix string) (string, error) {
	if !keys.MatchString(key) {
		return "", fmt.Errorf("%q is no key for a cache", key)
	}
	return filepath.Join(c.dir, key+suffix), nil
}

// Get returns what is under key and notes that it was used; false where there is nothing, or something damaged.
func (c *Cache) Get(key string) (CacheEntry, bool, error) {
	e, ok, err := c.look(key)
	if err != nil || !ok {
		return CacheEntry{}, false, err
	}
	note, err := c.path(key, ".json")
	if err != nil {
		return CacheEntry{}, false, err
	}
	now := time.Now()
	if err := os.Chtimes(note, now, now); err != nil && !errors.Is(err, fs.ErrPermission) {
		return CacheEntry{}, false, fmt.Errorf("note the use of %s: %w", key, err)
	}
	e.Used = now
	return e, true, nil
}

// look is Get without noting the use.
func (c *Cache) look(key string) (CacheEntry, bool, error) {
	note, err := c.path(key, ".json")
	if err != nil {
		return CacheEntry{}, false, err
	}
	file := strings.TrimSuffix(note, ".json") + ".tar"
	text, err := os.ReadFile(note)
	if errors.Is(err, fs.ErrNotExist) {
		return CacheEntry{}, false, nil
	}
	if err != nil {
		return CacheEntry{}, false, fmt.Errorf("look into the cache: %w", err)
	}
	var r record
	if json.Unmarshal(text, &r) != nil {
		return CacheEntry{}, false, nil // half a note is none: the file is made again
	}
	now, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return CacheEntry{}, false, nil
	}
	if err != nil {
		return CacheEntry{}, false, fmt.Errorf("look into the cache: %w", err)
	}
	if now.Size() != r.Size {
		return CacheEntry{}, false, nil
	}
	if !now.ModTime().Equal(r.Changed) {
		switch sum, err := hashOf(file); {
		case err != nil:
			return CacheEntry{}, false, fmt.Errorf("look into the cache: %w", err)
		case sum != r.Sum:
			return CacheEntry{}, false, nil
		}
	}
	used, err := os.Stat(note)
	if err != nil {
		return CacheEntry{}, false, fmt.Errorf("look into the cache: %w", err)
	}
	return CacheEntry{Key: key, Ref: r.Ref, ID: r.ID, Path: file, Size: r.Size, Used: used.ModTime(), Sum: r.Sum}, true, nil
}

// Make returns what is under key and, where there is nothing or it is damaged, has it made first in a work folder as Work
// gives it. While another process makes the same, Make waits for that one.
func (c *Cache) Make(ctx context.Context, key string, maker func(ctx context.Context, work string) (Made, error)) (CacheEntry, error) {
	e, ok, err := c.Get(key)
	if err != nil || ok {
		return e, err
	}
	err = c.Work(ctx, key, func(work string) error {
		// Another process may have made it while we waited for our turn.
		if e, ok, err = c.Get(key); err != nil || ok {
			return err
		}
		made, err := maker(ctx, work)
		if err != nil {
			return err
		}
		if err := c.put(key, made); err != nil {
			return fmt.Errorf("put %s into the cache: %w", key, err)
		}
		e, ok, err = c.Get(key)
		if err == nil && !ok {
			err = fmt.Errorf("%s vanished from the cache just after it was put there", key)
		}
		return err
	})
	return e, err
}

// Work calls use with an empty folder on the cache's own disk, while nobody else works under the same key: it waits for
// its turn. The folder is removed after use, however it ended, and what a killed run left of it is removed before.
func (c *Cache) Work(ctx context.Context, key string, use func(work string) error) (err error) {
	unlock, err := c.lock(ctx, key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	work, err := c.path(key, ".work")
	if err != nil {
		return err
	}
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	defer func() {
		if gone := os.RemoveAll(work); gone != nil {
			err = errors.Join(err, fmt.Errorf("remove the work folder: %w", gone))
		}
	}()
	if err := os.Mkdir(work, 0o755); err != nil {
		return fmt.Errorf("make a work folder: %w", err)
	}
	return use(work)
}

// put moves the file in and writes its note last: without a note there is no entry.
func (c *Cache) put(key string, made Made) error {
	file, err := c.path(key, ".tar")
	if err != nil {
		return err
	}
	if err := forget(file); err != nil {
		return err
	}
	sum, err := hashOf(made.Path)
	if err != nil {
		return err
	}
	if err := os.Rename(made.Path, file); err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	text, err := json.Marshal(record{Ref: made.Ref, ID: made.ID, Size: info.Size(), Sum: sum, Changed: info.ModTime()})
	if err != nil {
		return err
	}
	draft := noteOf(file) + ".new"
	if err := os.WriteFile(draft, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(draft, noteOf(file))
}

// List tells what is in the cache, the largest first; damaged entries are not in it.
func (c *Cache) List() ([]CacheEntry, error) {
	notes, err := filepath.Glob(filepath.Join(c.dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list the cache: %w", err)
	}
	var all []CacheEntry
	for _, note := range notes {
		e, ok, err := c.look(strings.TrimSuffix(filepath.Base(note), ".json"))
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, e)
		}
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].Size != all[j].Size {
			return all[i].Size > all[j].Size
		}
		return all[i].Key < all[j].Key
	})
	return all, nil
}

// Trim removes what is under the keys NAME-HASH, a hash having no dash, save the few that were last used.
func (c *Cache) Trim(ctx context.Context, name string, few int) error {
	all, err := c.List()
	if err != nil {
		return err
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Used.After(all[j].Used) })
	for _, e := range all {
		hash, ok := strings.CutPrefix(e.Key, name+"-")
		if !ok || strings.Contains(hash, "-") {
			continue
		}
		if few--; few >= 0 {
			continue
		}
		if err := c.Remove(ctx, e.Key); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes what is under key out of the cache; nothing there is no error. It waits for who is just making it. A
// reader that has it open keeps what it has.
func (c *Cache) Remove(ctx context.Context, key string) (err error) {
	file, err := c.path(key, ".tar")
	if err != nil {
		return err
	}
	unlock, err := c.lock(ctx, key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := forget(file); err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s from the cache: %w", key, err)
	}
	return nil
}

// noteOf is where the note of a cached file is.
func noteOf(file string) string { return strings.TrimSuffix(file, ".tar") + ".json" }

// forget removes the note of a cached file, so that it counts as not there.
func forget(file string) error {
	if err := os.Remove(noteOf(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget %s: %w", file, err)
	}
	return nil
}

func hashOf(file string) (_ string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
