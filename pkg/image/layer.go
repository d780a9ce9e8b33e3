package image

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// epoch is the time of change of everything in a layer: what is inside decides about its digest, not when it was made.
var epoch = time.Unix(0, 0)

// Layer is an uncompressed tar on disk that is one layer of an image.
type Layer struct {
	path string
	sum  v1.Hash
	size int64
}

// WriteLayer writes the tree as a tar to the file onDisk. The same tree gives the same bytes: paths are sorted, times are
// fixed, missing parents are folders of root's. No more than a buffer of it is held in memory.
func WriteLayer(ctx context.Context, onDisk string, t *Tree) (_ *Layer, err error) {
	file, err := os.Create(onDisk)
	if err != nil {
		return nil, fmt.Errorf("write a layer: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sum := sha256.New()
	buffer := bufio.NewWriterSize(file, 1<<20)
	counted := &counter{w: io.MultiWriter(buffer, sum)}
	if err := t.write(ctx, counted); err != nil {
		return nil, fmt.Errorf("write the layer %s: %w", onDisk, err)
	}
	if err := buffer.Flush(); err != nil {
		return nil, fmt.Errorf("write the layer %s: %w", onDisk, err)
	}
	return &Layer{
		path: onDisk, size: counted.n,
		sum: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))},
	}, nil
}

func (t *Tree) write(ctx context.Context, w io.Writer) error {
	out := tar.NewWriter(w)
	written := map[string]bool{".": true}
	var parents func(name string) error
	parents = func(name string) error {
		dir := path.Dir(name)
		e, ok := t.entries[dir]
		if ok && !e.Mode.IsDir() {
			return fmt.Errorf("%s is inside %s, which is no folder", name, dir)
		}
		if written[dir] {
			return nil
		}
		if err := parents(dir); err != nil {
			return err
		}
		if !ok {
			e = Entry{Mode: 0o755 | fs.ModeDir}
		}
		written[dir] = true
		return writeEntry(out, dir, e)
	}
	for _, name := range t.Names() {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if written[name] {
			continue
		}
		if err := parents(name); err != nil {
			return err
		}
		written[name] = true
		if err := writeEntry(out, name, t.entries[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return out.Close()
}

func writeEntry(out *tar.Writer, name string, e Entry) (err error) {
	h := &tar.Header{Name: name, Mode: tarMode(e.Mode), Uid: e.UID, Gid: e.GID, ModTime: epoch, PAXRecords: e.xattrs}
	switch e.Mode.Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return out.WriteHeader(h)
	case fs.ModeSymlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
		return out.WriteHeader(h)
	}
	h.Typeflag, h.Size = tar.TypeReg, e.Size
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = io.CopyN(out, r, e.Size)
	return err
}

// tarMode is a mode as tar has it: Go keeps set-uid and its like elsewhere.
func tarMode(mode fs.FileMode) int64 {
	bits := int64(mode.Perm())
	for flag, bit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if mode&flag != 0 {
			bits |= bit
		}
	}
	return bits
}

// Digest and the methods below make Layer a layer to go-containerregistry. It is never compressed: it goes to an engine
// on the same machine, where packing and unpacking would only cost time.
func (l *Layer) Digest() (v1.Hash, error) { return l.sum, nil }

// DiffID implements v1.Layer.
func (l *Layer) DiffID() (v1.Hash, error) { return l.sum, nil }

// Compressed implements v1.Layer.
func (l *Layer) Compressed() (io.ReadCloser, error) { return os.Open(l.path) }

// Uncompressed implements v1.Layer.
func (l *Layer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }

// Size implements v1.Layer.
func (l *Layer) Size() (int64, error) { return l.size, nil }

// MediaType implements v1.Layer.
func (l *Layer) MediaType() (types.MediaType, error) { return types.DockerUncompressedLayer, nil }

// counter counts what is written through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
