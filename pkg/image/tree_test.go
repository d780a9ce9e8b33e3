package image

import (
	"archive/tar"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSameTreeIsSameLayer(t *testing.T) {
	dir := t.TempDir()
	onDisk := filepath.Join(dir, "program")
	var sums []string
	for i, names := range [][]string{{"b/program", "a"}, {"a", "b/program"}} {
		write(t, onDisk, "the program")
		if err := os.Chtimes(onDisk, time.Now(), time.Now().Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
		var tree Tree
		for _, name := range names {
			if name == "a" {
				tree.Bytes(name, 0o644, []byte("text"))
			} else if err := tree.File(name, 0o755, onDisk); err != nil {
				t.Fatal(err)
			}
		}
		sums = append(sums, layerOf(t, &tree).sum.Hex)
	}
	if sums[0] != sums[1] {
		t.Errorf("the same tree, put together in another order at another time, is %s and %s", sums[0], sums[1])
	}
	var other Tree
	other.Bytes("a", 0o600, []byte("text"))
	if sum := layerOf(t, &other).sum.Hex; sum == sums[0] {
		t.Error("another tree is the same layer")
	}
}

func TestLayerHasWhatTheTreeHas(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source.tar")
	writeTar(t, source,
		&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		&tar.Header{Name: "./usr/bin/su", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 5, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b", "comment": "no"}},
		&tar.Header{Name: "./usr/bin/sudo", Typeflag: tar.TypeLink, Linkname: "./usr/bin/su"},
		&tar.Header{Name: "./bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin"},
		&tar.Header{Name: "./dev/null", Typeflag: tar.TypeChar},
		&tar.Header{Name: "./etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644, Size: 5, Uid: 1, Gid: 2},
	)
	var tree Tree
	if err := tree.Tar(".", source, func(name string) bool { return !strings.HasPrefix(name, "dev/") }); err != nil {
		t.Fatal(err)
	}
	tree.Bytes("etc/passwd", 0o600, []byte("ours"))
	tree.Dir("tmp", 0o777|fs.ModeSticky, 7, 8)
	tree.Remove("bin")
	tree.Link("sbin", "usr/sbin")
	want := []string{
		"etc/ 755 0:0", "etc/passwd 600 0:0 ours", "sbin 777 0:0 -> usr/sbin", "tmp/ 1777 7:8",
		"usr/ 755 0:0", "usr/bin/ 755 0:0", "usr/bin/su 4755 0:0 xxxxx SCHILY.xattr.user.a=b", "usr/bin/sudo 4755 0:0 xxxxx SCHILY.xattr.user.a=b",
	}
	if diff := cmp.Diff(want, describe(t, layerOf(t, &tree))); diff != "" {
		t.Errorf("the layer (-want +got):\n%s", diff)
	}
}

func TestFolderKeepsModesAndLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "sub", "run"), "#!")
	if err := os.Chmod(filepath.Join(dir, "sub", "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/run", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	var tree Tree
	if err := tree.Folder("opt", dir); err != nil {
		t.Fatal(err)
	}
	at, e, ok := tree.Find("opt/link")
	if !ok || at != "opt/sub/run" || e.Mode != 0o755 || e.UID != os.Getuid() {
		t.Errorf("opt/link is %q %v of %d, found: %v", at, e.Mode, e.UID, ok)
	}
}

func TestFindFollowsLinksInsideTheTree(t *testing.T) {
	var tree Tree
	tree.Bytes("usr/lib/libc.so.6", 0o644, nil)
	tree.Link("lib", "usr/lib")
	tree.Link("usr/lib/libc.so", "/lib/libc.so.6")
	tree.Link("usr/up", "../lib/libc.so")
	tree.Link("loop", "loop")
	for name, want := range map[string]string{
		"lib/libc.so.6": "usr/lib/libc.so.6", "/lib/libc.so": "usr/lib/libc.so.6", "usr/up": "usr/lib/libc.so.6",
		"loop": "", "lib/none": "", "none/at/all": "",
	} {
		if at, _, ok := tree.Find(name); at != want || ok != (want != "") {
			t.Errorf("%s is at %q (%v), want %q", name, at, ok, want)
		}
	}
}

func TestLayerRefusesWhatItCannotHold(t *testing.T) {
	var inFile Tree
	inFile.Bytes("etc", 0o644, nil)
	inFile.Bytes("etc/passwd", 0o644, nil)
	if _, err := WriteLayer(t.Context(), filepath.Join(t.TempDir(), "layer"), &inFile); err == nil {
		t.Error("a file inside a file was written")
	}
	device := filepath.Join(t.TempDir(), "device.tar")
	writeTar(t, device, &tar.Header{Name: "dev/null", Typeflag: tar.TypeChar})
	if err := new(Tree).Tar(".", device, nil); err == nil {
		t.Error("a device was taken")
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	var tree Tree
	tree.Bytes("a", 0o644, nil)
	if _, err := WriteLayer(cancelled, filepath.Join(t.TempDir(), "layer"), &tree); err == nil {
		t.Error("a cancelled layer was written")
	}
}

// A node's layer has 350 MB; two of them are made side by side on machines with little memory.
func TestLayerIsNotHeldInMemory(t *testing.T) {
	const size = 256 << 20
	big := filepath.Join(t.TempDir(), "big")
	write(t, big, "")
	if err := os.Truncate(big, size); err != nil {
		t.Fatal(err)
	}
	var tree Tree
	if err := tree.File("big", 0o644, big); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	layer := layerOf(t, &tree)
	if _, err := Pack(t.Context(), filepath.Join(t.TempDir(), "image"), Image{Ref: "test.local/bb:c", Layer: layer}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("a layer of %d bytes took %d bytes of memory", size, used)
	}
}

func layerOf(t *testing.T, tree *Tree) *Layer {
	t.Helper()
	layer, err := WriteLayer(t.Context(), filepath.Join(t.TempDir(), "layer"), tree)
	if err != nil {
		t.Fatal(err)
	}
	return layer
}

// describe is a layer as lines: name, mode, owner, content, attributes.
func describe(t *testing.T, layer *Layer) []string {
	t.Helper()
	file, err := layer.Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}()
	var lines []string
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if err == io.EOF {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(epoch) {
			t.Errorf("%s is of %s", h.Name, h.ModTime)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		line := h.Name + " " + strings.TrimLeft(fsMode(h.Mode), "0") + " " + itoa(h.Uid) + ":" + itoa(h.Gid)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if len(content) > 0 {
			line += " " + string(content)
		}
		for k, v := range h.PAXRecords {
			line += " " + k + "=" + v
		}
		lines = append(lines, line)
	}
}
