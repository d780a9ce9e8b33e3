package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// stored puts a content under a key.
func stored(t *testing.T, c *Cache, key, content string) CacheEntry {
	t.Helper()
	e, err := c.Make(t.Context(), key, func(_ context.Context, work string) (Made, error) {
		path := filepath.Join(work, "x")
		return Made{Path: path, Ref: "platformctl.local/" + key, ID: "sha256:" + key}, os.WriteFile(path, []byte(content), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func quiet(Note) {}

func TestABundleCarriesImages(t *testing.T) {
	from, to := NewCache(t.TempDir()), NewCache(filepath.Join(t.TempDir(), "new"))
	a, b := stored(t, from, "node-1", strings.Repeat("node", 1000)), stored(t, from, "order-api-2", "program")
	stored(t, from, "old-3", "not wanted")
	file := filepath.Join(t.TempDir(), "images.tar")
	var notes []Note
	if err := from.Export(t.Context(), file, []string{"node-1", "order-api-2"}, func(n Note) { notes = append(notes, n) }); err != nil {
		t.Fatal(err)
	}
	if last := notes[len(notes)-1]; last.Current != 4007 || last.Total != 4007 {
		t.Errorf("%+v", notes)
	}
	for range 2 { // the second time all is there
		entries, err := to.Import(t.Context(), file, quiet)
		if err != nil || len(entries) != 2 {
			t.Fatalf("%+v %v", entries, err)
		}
	}
	for _, want := range []CacheEntry{a, b} {
		got, ok, err := to.Get(want.Key)
		if err != nil || !ok || got.Ref != want.Ref || got.ID != want.ID || got.Sum != want.Sum {
			t.Errorf("%+v %v %v", got, ok, err)
		}
	}
	if all, err := to.List(); err != nil || len(all) != 2 {
		t.Errorf("%+v %v", all, err)
	}
	if err := from.Export(t.Context(), file, []string{"nosuch-1"}, quiet); err == nil || !strings.Contains(err.Error(), "nosuch-1 is not in the cache") {
		t.Error(err)
	}
}

func TestADamagedBundleTouchesNothing(t *testing.T) {
	from := NewCache(t.TempDir())
	stored(t, from, "node-1", strings.Repeat("node", 1000))
	stored(t, from, "order-api-2", "the program")
	dir := t.TempDir()
	file := filepath.Join(dir, "images.tar")
	if err := from.Export(t.Context(), file, []string{"node-1", "order-api-2"}, quiet); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	altered := bytes.Replace(whole, []byte("the program"), []byte("thy program"), 1)
	later := bytes.Replace(whole, []byte(`"version": 1`), []byte(`"version": 9`), 1)
	var another bytes.Buffer
	w := tar.NewWriter(&another)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "../../etc/passwd", Mode: 0o644}), w.Close()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		raw  []byte
		says string
	}{
		"cut in the last": {whole[:bytes.Index(whole, []byte("the program"))+3], "order-api-2"},
		"cut early":       {whole[:700], ""},
		"empty":           {nil, "list of its contents"},
		"altered":         {altered, "order-api-2 has another content"},
		"of later":        {later, "version 9"},
		"another tar":     {another.Bytes(), "list of its contents"},
		"a hole":          {hole(t), "more than the file"},
		"no tar":          {[]byte(strings.Repeat("nonsense", 1000)), "list of its contents"},
	} {
		if err := os.WriteFile(file, c.raw, 0o644); err != nil {
			t.Fatal(err)
		}
		to := NewCache(filepath.Join(t.TempDir(), "new"))
		if _, err := to.Import(t.Context(), file, quiet); !errors.Is(err, ErrBundle) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if all, err := to.List(); err != nil || len(all) > 0 {
			t.Errorf("%s: %+v %v", name, all, err)
		}
	}
}

// hole is a bundle whose only entry is of 512 bytes in the file, and of 2^60 to whoever reads it.
func hole(t testing.TB) []byte {
	t.Helper()
	const size = 1 << 60
	text, err := json.Marshal(contents{Version: bundleVersion, Entries: []bundled{{Key: "a-1", Size: size}}})
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	err = w.WriteHeader(&tar.Header{Name: contentsName, Size: int64(len(text))})
	_, failed := w.Write(text)
	if err := errors.Join(err, failed, w.WriteHeader(&tar.Header{Name: "a-1.tar", Format: tar.FormatGNU}), w.Close()); err != nil {
		t.Fatal(err)
	}
	// GNU tar's sparse header, which Go's writer has no word for: where the pieces lie and how long they are, and the whole length.
	header := raw.Bytes()[raw.Len()-3*512:]
	header[156] = 'S'
	binary.BigEndian.PutUint64(header[390:], size)
	binary.BigEndian.PutUint64(header[487:], size)
	header[386], header[483] = 0x80, 0x80
	copy(header[398:], "00000000000\x00")
	copy(header[148:], "        ")
	sum := 0
	for _, b := range header[:512] {
		sum += int(b)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	in := tar.NewReader(bytes.NewReader(raw.Bytes()))
	for range 2 {
		last, err := in.Next()
		if err != nil || last.Name == "a-1.tar" && last.Size != size {
			t.Fatal(last, err)
		}
	}
	return raw.Bytes()
}

func TestAFailedExportLeavesWhatWasThere(t *testing.T) {
	c := NewCache(t.TempDir())
	e := stored(t, c, "node-1", "node")
	if err := os.WriteFile(e.Path, []byte("edon"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(e.Path, e.Used, mustChanged(t, c, "node-1")); err != nil { // so that it is believed
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "images.tar")
	if err := os.WriteFile(file, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.Export(t.Context(), file, []string{"node-1"}, quiet); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	names, err := os.ReadDir(dir)
	raw, readErr := os.ReadFile(file)
	if err := errors.Join(err, readErr); err != nil || len(names) != 1 || string(raw) != "before" {
		t.Errorf("%v %q %v", names, raw, err)
	}
}

// mustChanged is the time of change under which an entry is believed.
func mustChanged(t *testing.T, c *Cache, key string) time.Time {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(c.dir, key+".json"))
	var r record
	if err := errors.Join(err, json.Unmarshal(raw, &r)); err != nil {
		t.Fatal(err)
	}
	return r.Changed
}

func TestPrune(t *testing.T) {
	c := NewCache(t.TempDir())
	for _, key := range []string{"node-1", "node-2", "postgresql-1"} {
		stored(t, c, key, key)
	}
	write(t, filepath.Join(c.dir, "rabbitmq-1.work", "half"), "half")
	unused, err := c.Unused(func(key string) bool { return key == "node-2" })
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range unused {
		names = append(names, e.Key)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"node-1", "postgresql-1", "rabbitmq-1"}) {
		t.Errorf("%q", names)
	}
	unlock, err := c.lock(t.Context(), "postgresql-1") // somebody is at work
	if err != nil {
		t.Fatal(err)
	}
	gone, err := c.Prune(t.Context(), unused)
	if err != nil || len(gone) != 2 {
		t.Errorf("%+v %v", gone, err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if gone, err = c.Prune(t.Context(), unused); err != nil || len(gone) != 3 { // nothing there is no error
		t.Errorf("%+v %v", gone, err)
	}
	all, err := c.List()
	left, globErr := filepath.Glob(filepath.Join(c.dir, "*.work"))
	if err := errors.Join(err, globErr); err != nil || len(all) != 1 || all[0].Key != "node-2" || len(left) > 0 {
		t.Errorf("%+v %q %v", all, left, err)
	}
}

// FuzzBundle reads from memory, what Import reads from a file before it touches anything.
func FuzzBundle(f *testing.F) {
	sum := sha256.Sum256([]byte("x"))
	for _, sum := range []string{hex.EncodeToString(sum[:]), "x"} {
		text, err := json.Marshal(contents{Version: bundleVersion, Entries: []bundled{{Key: "a-1", Size: 1, Sum: sum}}})
		if err != nil {
			f.Fatal(err)
		}
		var whole bytes.Buffer
		w := tar.NewWriter(&whole)
		for _, file := range []struct{ name, content string }{{contentsName, string(text)}, {"a-1.tar", "x"}} {
			err = errors.Join(err, w.WriteHeader(&tar.Header{Name: file.name, Size: int64(len(file.content)), Mode: 0o644}))
			_, failed := io.WriteString(w, file.content)
			err = errors.Join(err, failed)
		}
		if err := errors.Join(err, w.Close()); err != nil {
			f.Fatal(err)
		}
		f.Add(whole.Bytes())
	}
	f.Add(hole(f))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got := map[string]string{}
		all, err := readBundle(t.Context(), bytes.NewReader(raw), int64(len(raw)), func(int64, int64) {}, func(b bundled, content io.Reader) error {
			hash := sha256.New()
			_, err := io.Copy(hash, content)
			got[b.Key] = hex.EncodeToString(hash.Sum(nil))
			return err
		})
		if err != nil {
			if !errors.Is(err, ErrBundle) {
				t.Error(err)
			}
			return
		}
		for _, e := range all.Entries {
			if !keys.MatchString(e.Key) || got[e.Key] != e.Sum {
				t.Errorf("%+v is believed, and is %q", e, got[e.Key])
			}
		}
	})
}
