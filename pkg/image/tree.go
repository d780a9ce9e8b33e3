package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
)

// Tree is what a layer is made of: paths, relative to the root ("usr/bin/psql"), and what stands at each. Contents stay
// where they are, in files and inside tars, until they are read; those files must not change meanwhile. What is put at a
// path takes the place of what stood there.
//
// Its zero value is empty. It is not safe for use by several goroutines.
type Tree struct {
	entries map[string]Entry
}

// Entry is what stands at a path of a Tree: a file, a folder or a symbolic link, which the type bits of Mode tell.
type Entry struct {
	Mode     fs.FileMode
	UID, GID int
	Target   string            // of a symbolic link
	Size     int64             // of a file, in bytes
	xattrs   map[string]string // as tar's PAX records have them
	open     func() (io.ReadCloser, error)
}

// Open reads a file's contents; the caller closes it.
func (e Entry) Open() (io.ReadCloser, error) {
	if e.open == nil {
		return nil, errors.New("it is not a file")
	}
	return e.open()
}

// ReadAll is a file's contents as a whole.
func (e Entry) ReadAll() (content []byte, err error) {
	r, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

// Put puts e at name.
func (t *Tree) Put(name string, e Entry) {
	if t.entries == nil {
		t.entries = map[string]Entry{}
	}
	t.entries[clean(name)] = e
}

// Remove takes away what stands at name; what stands below it stays.
func (t *Tree) Remove(name string) { delete(t.entries, clean(name)) }

// Bytes puts a file of root's with that content at name.
func (t *Tree) Bytes(name string, mode fs.FileMode, content []byte) {
	t.Put(name, Entry{Mode: mode, Size: int64(len(content)), open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}})
}

// Dir puts a folder at name; its parents are made when the tree is written.
func (t *Tree) Dir(name string, mode fs.FileMode, uid, gid int) {
	t.Put(name, Entry{Mode: mode | fs.ModeDir, UID: uid, GID: gid})
}

// Link puts a symbolic link to target at name.
func (t *Tree) Link(name, target string) {
	t.Put(name, Entry{Mode: 0o777 | fs.ModeSymlink, Target: target})
}

// File puts the file on disk at name, owned by root.
func (t *Tree) File(name string, mode fs.FileMode, onDisk string) error {
	info, err := os.Stat(onDisk)
	if err != nil {
		return err
	}
	t.Put(name, Entry{Mode: mode, Size: info.Size(), open: func() (io.ReadCloser, error) { return os.Open(onDisk) }})
	return nil
}

// Folder puts everything in the folder on disk below name, with the owners and modes that it has there.
func (t *Tree) Folder(name, onDisk string) error {
	return filepath.WalkDir(onDisk, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: its owner is not known on this system", at)
		}
		e := Entry{Mode: info.Mode(), UID: int(owner.Uid), GID: int(owner.Gid)}
		switch info.Mode().Type() {
		case fs.ModeDir:
		case fs.ModeSymlink:
			if e.Target, err = os.Readlink(at); err != nil {
				return err
			}
		case 0:
			e.Size = info.Size()
			e.open = func() (io.ReadCloser, error) { return os.Open(at) }
		default:
			return fmt.Errorf("%s: a layer cannot hold a %s", at, info.Mode().Type())
		}
		rel, err := filepath.Rel(onDisk, at)
		if err != nil {
			return err
		}
		t.Put(path.Join(name, filepath.ToSlash(rel)), e)
		return nil
	})
}

// Tar puts everything in the uncompressed tar on disk below name, save the paths (relative to the tar's root) for which
// keep says no; a nil keep keeps all. A hard link becomes a file of its own with the same content.
func (t *Tree) Tar(name, onDisk string, keep func(path string) bool) (err error) {
	file, err := os.Open(onDisk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	seen := map[string]Entry{}
	for r := tar.NewReader(file); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", onDisk, err)
		}
		at := clean(h.Name)
		if keep != nil && !keep(at) {
			continue
		}
		e := Entry{Mode: h.FileInfo().Mode(), UID: h.Uid, GID: h.Gid, xattrs: xattrs(h.PAXRecords)}
		switch h.Typeflag {
		case tar.TypeDir:
		case tar.TypeSymlink:
			e.Target = h.Linkname
		case tar.TypeReg:
			// archive/tar reads no further than it has to, so the file now stands where the content begins.
			begin, err := file.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			e.Size = h.Size
			e.open = func() (io.ReadCloser, error) { return openSection(onDisk, begin, e.Size) }
			seen[at] = e
		case tar.TypeLink:
			linked, ok := seen[clean(h.Linkname)]
			if !ok {
				return fmt.Errorf("%s: %s is a hard link to %s, which is not there", onDisk, h.Name, h.Linkname)
			}
			e = linked
		default:
			return fmt.Errorf("%s: a layer cannot hold %s, which is of tar's type %q", onDisk, h.Name, h.Typeflag)
		}
		t.Put(path.Join(name, at), e)
	}
}

// Find is what stands at name after all symbolic links, inside the tree, have been followed, and where that is.
func (t *Tree) Find(name string) (at string, e Entry, found bool) {
	rest := strings.Split(clean(name), "/")
	at = "."
	for links := 0; len(rest) > 0; {
		next := path.Join(at, rest[0])
		rest = rest[1:]
		e, found = t.entries[next]
		if !found && !t.isParent(next) {
			return "", Entry{}, false
		}
		if e.Mode&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > 40 {
			return "", Entry{}, false
		}
		if path.IsAbs(e.Target) {
			at = "."
		}
		rest = append(strings.Split(clean(path.Join(at, e.Target)), "/"), rest...)
		at = "."
	}
	e, found = t.entries[at]
	return at, e, found
}

// isParent says whether something stands below a path that itself was never put.
func (t *Tree) isParent(dir string) bool {
	for name := range t.entries {
		if strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return false
}

// Names lists the paths in order.
func (t *Tree) Names() []string {
	names := make([]string, 0, len(t.entries))
	for name := range t.entries {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// clean is a path as a Tree has it: relative, without dots; the root is ".".
func clean(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

// xattrs picks the extended attributes (a file's capabilities, for one) out of what else a tar tells of a file.
func xattrs(records map[string]string) map[string]string {
	var kept map[string]string
	for k, v := range records {
		if strings.HasPrefix(k, "SCHILY.xattr.") {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[k] = v
		}
	}
	return kept
}

// section is a part of a file that closes the file with it.
type section struct {
	*io.SectionReader
	io.Closer
}

func openSection(onDisk string, begin, size int64) (io.ReadCloser, error) {
	file, err := os.Open(onDisk)
	if err != nil {
		return nil, err
	}
	return section{io.NewSectionReader(file, begin, size), file}, nil
}
