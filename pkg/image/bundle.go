package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// bundleVersion is that of a bundle's form: a tar whose first file is contents, and then a file for each entry, in that order.
const bundleVersion = 1

const contentsName = "contents.json"

type contents struct {
	Version int       `json:"version"`
	Made    time.Time `json:"made"`
	Entries []bundled `json:"entries"`
}

type bundled struct {
	Key  string `json:"key"`
	Ref  string `json:"ref,omitempty"`
	ID   string `json:"id,omitempty"`
	Size int64  `json:"size"`
	Sum  string `json:"sha256"`
}

// ErrBundle says that a file is no bundle, or is not as it was written. Nothing was taken from it.
var ErrBundle = errors.New("it is no whole bundle of images")

// Export writes what is under the keys into a file, which is there, whole, when there is no error, and else not at all.
func (c *Cache) Export(ctx context.Context, file string, keys []string, note func(Note)) (err error) {
	var all contents
	var from []string
	total := int64(0)
	for _, key := range keys {
		e, ok, err := c.Get(key)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%s is not in the cache", key)
		}
		all.Entries = append(all.Entries, bundled{e.Key, e.Ref, e.ID, e.Size, e.Sum})
		from = append(from, e.Path)
		total += e.Size
	}
	all.Version, all.Made = bundleVersion, time.Now().UTC()
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	// Aside, so that a full disk leaves what was there before.
	draft, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(draft.Name()))
		}
	}()
	err = writeBundle(ctx, draft, text, all, from, func(n int64) { note(Note{Text: "writing", Current: n, Total: total}) })
	if err == nil {
		err = errors.Join(draft.Chmod(0o644), draft.Sync())
	}
	if err = errors.Join(err, draft.Close()); err != nil {
		return err
	}
	return os.Rename(draft.Name(), file)
}

func writeBundle(ctx context.Context, to io.Writer, text []byte, all contents, from []string, wrote func(int64)) error {
	out := tar.NewWriter(obedient{ctx, to})
	if err := out.WriteHeader(&tar.Header{Name: contentsName, Mode: 0o644, Size: int64(len(text)), ModTime: all.Made}); err != nil {
		return err
	}
	if _, err := out.Write(text); err != nil {
		return err
	}
	done := int64(0)
	for i, e := range all.Entries {
		if err := out.WriteHeader(&tar.Header{Name: e.Key + ".tar", Mode: 0o644, Size: e.Size, ModTime: all.Made}); err != nil {
			return err
		}
		in, err := os.Open(from[i])
		if err != nil {
			return err
		}
		sum := sha256.New()
		_, err = io.Copy(io.MultiWriter(out, sum), in)
		if err := errors.Join(err, in.Close()); err != nil {
			return err
		}
		if hex.EncodeToString(sum.Sum(nil)) != e.Sum {
			return errors.Join(fmt.Errorf("%s in the cache is damaged; up makes it anew", e.Key), forget(from[i]))
		}
		done += e.Size
		wrote(done)
	}
	return out.Close()
}

// Import puts all that is in a bundle into the cache, and returns it. The whole file is read and checked before anything is
// touched: one that was cut short or altered is ErrBundle.
func (c *Cache) Import(ctx context.Context, file string, note func(Note)) (_ []CacheEntry, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	all, err := readBundle(ctx, f, info.Size(), func(done, total int64) { note(Note{Text: "checking", Current: done, Total: total}) },
		func(_ bundled, content io.Reader) error {
			_, err := io.Copy(io.Discard, content)
			return err
		})
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var entries []CacheEntry
	_, err = readBundle(ctx, f, info.Size(), func(done, total int64) { note(Note{Text: "copying", Current: done, Total: total}) },
		func(b bundled, content io.Reader) error {
			e, err := c.Make(ctx, b.Key, func(_ context.Context, work string) (Made, error) {
				path := filepath.Join(work, "content")
				return Made{Path: path, Ref: b.Ref, ID: b.ID}, copyTo(path, content)
			})
			entries = append(entries, e)
			return err
		})
	if err == nil && len(entries) != len(all.Entries) {
		err = ErrBundle
	}
	return entries, err
}

func copyTo(path string, content io.Reader) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	return errors.Join(err, out.Close())
}

// readBundle gives each entry's content to use, which need not read it all, and compares what is read with its hash. A bundle has no
// holes: entries that claim more than the size of the whole, which a tar can hold in a few bytes, are not read.
func readBundle(ctx context.Context, r io.Reader, size int64, read func(done, total int64), use func(bundled, io.Reader) error) (all contents, err error) {
	in := tar.NewReader(r)
	broken := func(format string, args ...any) (contents, error) {
		return contents{}, fmt.Errorf("%w: %w", ErrBundle, fmt.Errorf(format, args...))
	}
	header, err := in.Next()
	if err != nil || header.Name != contentsName || header.Size > 1<<20 {
		return broken("it does not begin with a list of its contents")
	}
	if err := json.NewDecoder(in).Decode(&all); err != nil {
		return broken("the list of its contents cannot be read: %w", err)
	}
	if all.Version != bundleVersion {
		return broken("it is of version %d; this program reads version %d", all.Version, bundleVersion)
	}
	var done, total int64
	for _, e := range all.Entries {
		if !keys.MatchString(e.Key) { // nor is it shown as it is, for it may be anything
			return broken("%q is no name of an image", e.Key)
		}
		if e.Size < 0 || e.Size > size-total {
			return broken("%s has %d bytes, more than the file", e.Key, e.Size)
		}
		total += e.Size
	}
	for _, e := range all.Entries {
		if err := context.Cause(ctx); err != nil {
			return contents{}, err
		}
		header, err := in.Next()
		if err != nil {
			return broken("%s is missing: %w", e.Key, err)
		}
		if header.Name != e.Key+".tar" || header.Size != e.Size {
			return broken("%q is not in the place of %s", header.Name, e.Key)
		}
		sum := sha256.New()
		content := io.TeeReader(in, sum)
		if err := use(e, content); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return broken("%s is cut short", e.Key)
			}
			return contents{}, err
		}
		if _, err := io.Copy(io.Discard, content); err != nil { // what use had no need of
			return broken("%s is cut short: %w", e.Key, err)
		}
		if hex.EncodeToString(sum.Sum(nil)) != e.Sum {
			return broken("%s has another content than it should", e.Key)
		}
		done += e.Size
		read(done, total)
	}
	return all, nil
}
