package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"platformctl/pkg/fault"
)

// Folder is where the snapshots of one cluster lie. It outlives the cluster. Calls that change something are made by one
// process at a time.
//
// A snapshot is a folder of its name with two files. It is written under another name, flushed, and then renamed, and it is
// deleted the other way round: what has a name is whole.
type Folder string

const (
	manifestFile = "manifest.json"
	dataFile     = "data"
	unfinished   = ".new-"  // begins the name of what is being written
	unwanted     = ".gone-" // and of what is being deleted
)

// kept is how many snapshots are kept that were taken for the same reason without being asked for.
const kept = 3

// Kept is what is there of a snapshot.
type Kept struct {
	Manifest
	Broken string // why it cannot be restored, as far as its manifest tells; "" is sound
}

// List returns the snapshots, the newest first.
func (f Folder) List() ([]Kept, error) {
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	var all []Kept
	for _, e := range entries {
		if !e.IsDir() || !names.MatchString(e.Name()) {
			continue
		}
		m, err := f.manifest(e.Name())
		k := Kept{Manifest: m}
		if err != nil {
			k.Name, k.Broken = e.Name(), err.Error()
		}
		all = append(all, k)
	}
	slices.SortStableFunc(all, func(a, b Kept) int { return cmp.Or(b.Taken.Compare(a.Taken), cmp.Compare(a.Name, b.Name)) })
	return all, nil
}

// Find is a snapshot's manifest. A name that is none, and one that no snapshot has, are usage faults; these tell the names
// that there are, the nearest first.
func (f Folder) Find(name string) (Manifest, error) {
	if err := CheckName(name); err != nil {
		return Manifest{}, err
	}
	m, err := f.manifest(name)
	if !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			err = fault.New(fault.CodeFailed, "platformctl snapshot ls", "%w", err)
		}
		return m, err
	}
	all, err := f.List()
	if err != nil {
		return Manifest{}, err
	}
	var known []string
	for _, k := range all {
		known = append(known, k.Name)
	}
	slices.SortStableFunc(known, func(a, b string) int { return cmp.Compare(fault.Distance(name, a), fault.Distance(name, b)) })
	if len(known) == 0 {
		return Manifest{}, fault.Usage("platformctl snapshot save "+name, "there is no snapshot %q, nor any other", name)
	}
	return Manifest{}, fault.Usage("use one of: "+strings.Join(known, ", "), "there is no snapshot %q", name)
}

// Has tells whether there is anything of the name.
func (f Folder) Has(name string) (bool, error) {
	_, err := os.Lstat(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (f Folder) path(name string) string { return filepath.Join(string(f), name) }

// manifest reads a manifest and believes it if nobody has changed it.
func (f Folder) manifest(name string) (m Manifest, err error) {
	fail := func(format string, args ...any) (Manifest, error) {
		return Manifest{}, fmt.Errorf("snapshot %s: "+format, append([]any{name}, args...)...)
	}
	if _, err := os.Lstat(f.path(name)); err != nil {
		return fail("%w", err)
	}
	raw, err := os.ReadFile(filepath.Join(f.path(name), manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fail("it has no %s", manifestFile)
	}
	if err != nil {
		return fail("%w", err)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return fail("its manifest was altered: %w", err)
	}
	if m.Format < plain || m.Format > format {
		return fail("its format is %d, and this platformctl knows %d to %d", m.Format, plain, format)
	}
	want, err := m.digest()
	if err != nil {
		return fail("%w", err)
	}
	if m.Digest != want || m.Name != name {
		return fail("its manifest was altered")
	}
	return m, nil
}

// open opens a snapshot's data after all of it was read and found to be what was written.
func (f Folder) open(m Manifest) (data *os.File, err error) {
	fail := func(format string, args ...any) error {
		return fault.New(fault.CodeFailed, "platformctl snapshot rm "+m.Name, "snapshot %s: "+format, append([]any{m.Name}, args...)...)
	}
	data, err = os.Open(filepath.Join(f.path(m.Name), dataFile))
	if err != nil {
		return nil, fail("%w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, data.Close())
		}
	}()
	info, err := data.Stat()
	if err != nil {
		return nil, fail("%w", err)
	}
	if info.Size() != m.Bytes() {
		return nil, fail("its data has %d bytes and should have %d: it was cut or altered; nothing was changed", info.Size(), m.Bytes())
	}
	check := func(what string, p Part) error {
		sum := sha256.New()
		if _, err := io.CopyN(sum, data, p.Bytes); err != nil {
			return fail("%w", err)
		}
		if hex.EncodeToString(sum.Sum(nil)) != p.SHA256 {
			return fail("the data of %s was altered; nothing was changed", what)
		}
		return nil
	}
	for _, t := range m.Tables {
		if err := check("table "+t.Name, t.Part); err != nil {
			return nil, err
		}
	}
	if err := check("the dead letters", m.Letters); err != nil {
		return nil, err
	}
	if _, err := data.Seek(0, io.SeekStart); err != nil {
		return nil, fail("%w", err)
	}
	return data, nil
}

// draft is a snapshot that is being written.
type draft struct {
	folder Folder
	dir    string
	data   *os.File
}

// begin begins to write a snapshot. Of what earlier ones left unfinished nothing stays.
func (f Folder) begin() (*draft, error) {
	fail := func(err error) (*draft, error) { return nil, fmt.Errorf("write a snapshot: %w", roomless(err)) }
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return fail(err)
	}
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return fail(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), unfinished) || strings.HasPrefix(e.Name(), unwanted) {
			if err := os.RemoveAll(f.path(e.Name())); err != nil {
				return fail(err)
			}
		}
	}
	dir, err := os.MkdirTemp(string(f), unfinished)
	if err != nil {
		return fail(err)
	}
	data, err := os.OpenFile(filepath.Join(dir, dataFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fail(errors.Join(err, os.RemoveAll(dir)))
	}
	return &draft{folder: f, dir: dir, data: data}, nil
}

// part writes a part of the data.
func (d *draft) part(write func(io.Writer) error) (Part, error) {
	w := &counted{to: d.data, sum: sha256.New()}
	if err := write(w); err != nil {
		return Part{}, roomless(err)
	}
	return Part{Bytes: w.n, SHA256: hex.EncodeToString(w.sum.Sum(nil))}, nil
}

// roomless adds to an error, where it is of a full disk, how to make room.
func roomless(err error) error {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) {
			return fault.New(fault.CodeFailed, "make room on the disk: platformctl images prune, or platformctl snapshot rm NAME", "%w", err)
		}
	}
	return err
}

type counted struct {
	to  io.Writer
	sum hash.Hash
	n   int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.sum.Write(p[:n])
	c.n += int64(n)
	return n, err
}

// drop takes a draft away; after keep it does nothing.
func (d *draft) drop() error {
	if d.data == nil {
		return nil
	}
	err := errors.Join(d.data.Close(), os.RemoveAll(d.dir))
	d.data = nil
	return err
}

// keep makes the draft the snapshot that the manifest tells of, in place of one that has its name already.
func (d *draft) keep(m Manifest) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write snapshot %s: %w", m.Name, roomless(err))
		}
	}()
	m.Format = format
	if m.Digest, err = m.digest(); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(d.dir, manifestFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(raw, '\n'))
	if err := errors.Join(err, file.Sync(), file.Close(), d.data.Sync(), flush(d.dir)); err != nil {
		return err
	}
	if there, err := d.folder.Has(m.Name); err != nil {
		return err
	} else if there {
		if err := d.folder.remove(m.Name); err != nil {
			return err
		}
	}
	if err := os.Rename(d.dir, d.folder.path(m.Name)); err != nil {
		return err
	}
	err = errors.Join(d.data.Close(), flush(string(d.folder)))
	d.data = nil
	return err
}

// flush has the names in a folder on disk.
func flush(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Remove deletes a snapshot; one that is not there is a usage fault, as in Find.
func (f Folder) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if there, err := f.Has(name); err != nil {
		return err
	} else if !there {
		_, err := f.Find(name)
		return err
	}
	return f.remove(name)
}

func (f Folder) remove(name string) error {
	gone, err := os.MkdirTemp(string(f), unwanted)
	if err == nil {
		err = os.Rename(f.path(name), filepath.Join(gone, name))
	}
	if err == nil {
		err = errors.Join(flush(string(f)), os.RemoveAll(gone))
	}
	if err != nil {
		return fmt.Errorf("delete snapshot %s: %w", name, err)
	}
	return nil
}

// prune deletes the oldest of the snapshots that were taken for a reason without being asked for.
func (f Folder) prune(reason string) error {
	all, err := f.List()
	if err != nil {
		return err
	}
	n := 0
	for _, k := range all {
		if k.Broken != "" || k.Automatic != reason {
			continue
		}
		if n++; n > kept {
			if err := f.remove(k.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
