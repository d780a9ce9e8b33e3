// Package image has images as data: trees of files that become layers, archives on disk that an engine loads, a cache of
// them by content, and how one is pulled from a registry.
package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Format is part of every key of what this package's layers and archives go into. Raise it when the same tree would be
// written as other bytes.
const Format = "1"

// Archive is an image in a file that `docker load` and `ctr images import` take. It can be opened as often as one likes.
type Archive struct {
	Path string // the file
	Ref  string // the name that the image has in it, with a tag
	ID   string // the image's id: "sha256:" and the hash of its configuration
	Size int64  // of the file, in bytes
	sum  string // the file's SHA-256, in hex; "" for one that is in no cache
}

// Open reads the archive from its beginning; the caller closes it. A file that is not what the cache was given any more
// ends in an error instead of io.EOF.
func (a Archive) Open() (io.ReadCloser, error) {
	file, err := os.Open(a.Path)
	if err != nil {
		return nil, fmt.Errorf("open the image %s: %w", a.Ref, err)
	}
	if a.sum == "" {
		return file, nil
	}
	return &checked{file: file, hash: sha256.New(), archive: a}, nil
}

// checked is a file whose content is compared with its hash as it is read.
type checked struct {
	file    *os.File
	hash    hash.Hash
	archive Archive
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.file.Read(p)
	c.hash.Write(p[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(c.hash.Sum(nil)) != c.archive.sum {
		damaged := fmt.Errorf("the image %s in %s is damaged; run it again to have it made anew", c.archive.Ref, c.archive.Path)
		// Gone from the cache, so that the next run makes it again.
		return n, errors.Join(damaged, forget(c.archive.Path))
	}
	return n, err
}

func (c *checked) Close() error { return c.file.Close() }

// Config is what an image says about how it is run.
type Config struct {
	Architecture string // as Go names it; "" is amd64
	Entrypoint   []string
	Cmd          []string
	Env          []string // KEY=value
	User         string   // uid or uid:gid
	WorkingDir   string
	StopSignal   string
}

// Image is one image of one layer.
type Image struct {
	Ref    string // with a tag
	Config Config
	Layer  *Layer
}

// Pack writes an archive of the images to the file onDisk and returns the first of them. Layers that several images share
// are in it once. The image's id depends on its layer and configuration alone.
func Pack(ctx context.Context, onDisk string, images ...Image) (_ Archive, err error) {
	if len(images) == 0 {
		return Archive{}, errors.New("pack an archive: no images")
	}
	refs := map[name.Reference]v1.Image{}
	var first Archive
	for i, one := range images {
		ref, err := name.NewTag(one.Ref, name.StrictValidation)
		if err != nil {
			return Archive{}, fmt.Errorf("pack %s: %w", one.Ref, err)
		}
		built, err := one.build()
		if err != nil {
			return Archive{}, fmt.Errorf("pack %s: %w", one.Ref, err)
		}
		refs[ref] = built
		if i == 0 {
			id, err := built.ConfigName()
			if err != nil {
				return Archive{}, fmt.Errorf("pack %s: %w", one.Ref, err)
			}
			first = Archive{Path: onDisk, Ref: one.Ref, ID: id.String()}
		}
	}
	file, err := os.Create(onDisk)
	if err != nil {
		return Archive{}, fmt.Errorf("pack %s: %w", first.Ref, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	out := &counter{w: obedient{ctx, file}}
	if err := tarball.MultiRefWrite(refs, out); err != nil {
		return Archive{}, fmt.Errorf("pack %s: %w", first.Ref, err)
	}
	first.Size = out.n
	return first, nil
}

// ID is the id that the image will have, whatever its name.
func (i Image) ID() (string, error) {
	built, err := i.build()
	if err != nil {
		return "", fmt.Errorf("identify an image: %w", err)
	}
	id, err := built.ConfigName()
	if err != nil {
		return "", fmt.Errorf("identify an image: %w", err)
	}
	return id.String(), nil
}

func (i Image) build() (v1.Image, error) {
	arch := i.Config.Architecture
	if arch == "" {
		arch = "amd64"
	}
	configured, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: arch, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: i.Config.Entrypoint, Cmd: i.Config.Cmd, Env: i.Config.Env, User: i.Config.User,
			WorkingDir: i.Config.WorkingDir, StopSignal: i.Config.StopSignal,
		},
	})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(configured, i.Layer)
}

// obedient is a writer that stops when its context ends.
type obedient struct {
	ctx context.Context
	w   io.Writer
}

func (o obedient) Write(p []byte) (int, error) {
	if err := context.Cause(o.ctx); err != nil {
		return 0, err
	}
	return o.w.Write(p)
}
