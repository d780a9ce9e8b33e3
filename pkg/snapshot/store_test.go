package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"platformctl/pkg/fault"
)

// written is a snapshot with n bytes of dead letters.
func written(t *testing.T, f Folder, m Manifest, n int) error {
	t.Helper()
	d, err := f.begin()
	if err != nil {
		t.Fatal(err)
	}
	if m.Letters, err = d.part(func(w io.Writer) error {
		_, err := w.Write(bytes.Repeat([]byte("x"), n))
		return err
	}); err == nil {
		err = d.keep(m)
	}
	return errors.Join(err, d.drop())
}

func sound(t *testing.T, f Folder, name string, bytes int64) {
	t.Helper()
	m, err := f.Find(name)
	if err != nil || m.Bytes() != bytes {
		t.Fatalf("%d bytes are in %s: %v", m.Bytes(), name, err)
	}
	data, err := f.open(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := data.Close(); err != nil {
		t.Error(err)
	}
}

// The kernel refuses to write on, as it does when the disk is full.
func TestTheDiskIsFullInTheMiddle(t *testing.T) {
	f := Folder(t.TempDir())
	if err := written(t, f, Manifest{Name: Seed, Automatic: "up"}, 10); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ) // it is told by an error too
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 4096, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	err := written(t, f, Manifest{Name: Seed, Automatic: "up"}, 100_000)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.EFBIG) {
		t.Errorf("it says %v", err)
	}
	if fault.CodeOf(err) != fault.CodeFailed || !strings.Contains(fault.CureOf(err), "snapshot rm") {
		t.Errorf("exit code %d, cure %q", fault.CodeOf(err), fault.CureOf(err))
	}
	sound(t, f, Seed, 10)
	if entries, err := os.ReadDir(string(f)); err != nil || len(entries) != 1 {
		t.Errorf("%v is there: %v", entries, err)
	}
}

// What a kill leaves behind is not in the list, stands in nobody's way, and goes with the next one.
func TestWhatAKillLeavesBehind(t *testing.T) {
	f := Folder(t.TempDir())
	if err := written(t, f, Manifest{Name: "one"}, 10); err != nil {
		t.Fatal(err)
	}
	torn, err := f.begin() // and never kept
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := torn.data.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := os.Mkdir(f.path(unwanted+"1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if all, err := f.List(); err != nil || len(all) != 1 || all[0].Name != "one" {
		t.Errorf("listed are %+v: %v", all, err)
	}
	if err := written(t, f, Manifest{Name: "two"}, 20); err != nil {
		t.Fatal(err)
	}
	sound(t, f, "one", 10)
	sound(t, f, "two", 20)
	entries, err := os.ReadDir(string(f))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v is there: %v", entries, err)
	}
	if err := f.Remove("one"); err != nil {
		t.Error(err)
	}
	if err := f.Remove("one"); fault.CodeOf(err) != fault.CodeUsage || fault.CureOf(err) != "use one of: two" {
		t.Errorf("%v: %s", err, fault.CureOf(err))
	}
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{
		"seed": true, "a": true, "before-down-20261125-225659": true, "v1.2_rc": true, "0": true,
		"": false, ".": false, "..": false, "a/b": false, "../a": false, ".new-1": false, "-rf": false, "Demo": false, "a b": false, "ä": false, "a.": false, "a\n": false,
		strings.Repeat("a", 63): true, strings.Repeat("a", 64): false,
	} {
		if err := CheckName(name); (err == nil) != good || err != nil && fault.CodeOf(err) != fault.CodeUsage {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestShape(t *testing.T) {
	table := func(name string, columns ...string) Table {
		t := Table{Name: name}
		for _, c := range columns {
			t.Columns = append(t.Columns, Column{c, "text"})
		}
		return t
	}
	for _, c := range []struct {
		theirs, ours []Table
		want         string
	}{
		{[]Table{table("a", "x", "y")}, []Table{table("a", "y", "x")}, ""},
		{[]Table{table("a", "x"), table("b")}, []Table{table("a", "x")}, "the database has no table b"},
		{[]Table{table("a", "x", "y")}, []Table{table("a", "x")}, "the database has no column a.y of type text"},
		{[]Table{table("a", "x")}, []Table{table("a", "x", "y")}, "the snapshot has no a.y"},
		{[]Table{table("a", "x")}, []Table{table("a", "x"), table("b", "x")}, "the snapshot has no b"},
	} {
		if got := shape(c.theirs, c.ours); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// Whatever a snapshot's files hold, it is refused with words or is whole. The manifest's own digest would keep most of that out, so
// it is made right first.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"format":2,"letters":{"bytes":1,"sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}`), []byte("x"))
	f.Add([]byte(`{"format":1,"tables":[{"name":"a","rows":1,"bytes":-1}],"letters":{"bytes":1}}`), []byte{})
	f.Add([]byte(`{"format":2,"tables":[{"bytes":9223372036854775807},{"bytes":9223372036854775807},{"bytes":2}]}`), []byte{})
	f.Fuzz(func(t *testing.T, manifest, data []byte) {
		folder := Folder(t.TempDir())
		if err := os.Mkdir(folder.path("fuzzed"), 0o700); err != nil {
			t.Fatal(err)
		}
		var m Manifest
		if json.Unmarshal(manifest, &m) == nil {
			m.Name = "fuzzed"
			var err error
			if m.Digest, err = m.digest(); err != nil {
				t.Fatal(err)
			}
			if manifest, err = json.Marshal(m); err != nil {
				t.Fatal(err)
			}
		}
		for file, content := range map[string][]byte{manifestFile: manifest, dataFile: data} {
			if err := os.WriteFile(filepath.Join(folder.path("fuzzed"), file), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		found, err := folder.Find("fuzzed")
		if err != nil {
			if all, err := folder.List(); err != nil || len(all) != 1 || all[0].Broken == "" {
				t.Errorf("a broken one is listed as %+v, %v", all, err)
			}
			return
		}
		whole, err := folder.open(found)
		if err != nil {
			return
		}
		defer whole.Close()
		left := int64(len(data))
		for _, part := range append([]Part{found.Letters}, parts(found.Tables)...) {
			if left -= part.Bytes; part.Bytes < 0 || left < 0 {
				t.Fatalf("%+v is whole with %d bytes", found, len(data))
			}
		}
		if left != 0 {
			t.Errorf("%+v is whole with %d bytes", found, len(data))
		}
	})
}

func parts(tables []Table) (all []Part) {
	for _, t := range tables {
		all = append(all, t.Part)
	}
	return all
}
