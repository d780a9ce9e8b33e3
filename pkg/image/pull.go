package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"platformctl/pkg/fault"
)

// Note is how far something has come.
type Note struct {
	Text           string
	Current, Total int64 // bytes; Total is 0 where it is not known
}

// Puller brings images from registries into a cache.
type Puller struct {
	Cache    *Cache
	Keychain authn.Keychain // who we are to a registry; nil is nobody
	Platform string         // "linux/amd64"; "" is linux on this machine's processor
}

// Pull returns the image that ref names, from the cache if it was pulled before, else from its registry, where every
// part of it is compared with its digest. What the image is called in the archive is ref without a digest; a ref with
// nothing but a digest gets its first twelve characters as a tag.
//
// A ref that is none is a usage error, a registry that cannot be reached makes the machine unfit, an image that is not
// there or is not whole is a plain failure; the cache then is as it was.
func (p Puller) Pull(ctx context.Context, ref string, note func(Note)) (Archive, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return Archive{}, fault.Usage("an image is named [REGISTRY/]NAME:TAG or …@sha256:DIGEST", "pull %s: %w", ref, err)
	}
	wanted := p.Platform
	if wanted == "" {
		wanted = "linux/" + runtime.GOARCH
	}
	platform, err := v1.ParsePlatform(wanted)
	if err != nil {
		return Archive{}, fault.Usage("a platform is named like linux/amd64", "pull %s for %s: %w", ref, wanted, err)
	}
	e, err := p.Cache.Make(ctx, PullKey(ref, wanted), func(ctx context.Context, work string) (Made, error) {
		note(Note{Text: "asking " + parsed.Context().RegistryStr()})
		keychain := p.Keychain
		if keychain == nil {
			keychain = authn.NewMultiKeychain()
		}
		found, err := remote.Image(parsed, remote.WithContext(ctx), remote.WithPlatform(*platform), remote.WithAuthFromKeychain(keychain))
		if err != nil {
			return Made{}, err
		}
		return p.save(ctx, filepath.Join(work, "image.tar"), parsed, found, note)
	})
	if err != nil {
		return Archive{}, pullFault(ref, err)
	}
	return e.Archive(), nil
}

// PullKey is the key under which Pull keeps the image that ref names for a platform.
func PullKey(ref, platform string) string {
	sum := sha256.Sum256([]byte(ref + "\n" + platform + "\n"))
	return "pulled-" + hex.EncodeToString(sum[:6])
}

// save streams the image into an archive; layers stay compressed as the registry has them.
func (p Puller) save(ctx context.Context, onDisk string, ref name.Reference, found v1.Image, note func(Note)) (_ Made, err error) {
	tag, err := tagOf(ref)
	if err != nil {
		return Made{}, err
	}
	id, err := found.ConfigName()
	if err != nil {
		return Made{}, err
	}
	refs := map[name.Reference]v1.Image{tag: found}
	total, err := tarball.CalculateSize(refs)
	if err != nil {
		return Made{}, err
	}
	file, err := os.Create(onDisk)
	if err != nil {
		return Made{}, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	progress := &reporter{w: obedient{ctx, file}, total: total, note: note}
	if err := tarball.MultiRefWrite(refs, progress); err != nil {
		return Made{}, err
	}
	return Made{Path: onDisk, Ref: tag.String(), ID: id.String()}, nil
}

// tagOf is the tag that an image gets in its archive; an engine does not load one that has only a digest.
func tagOf(ref name.Reference) (name.Tag, error) {
	if tag, ok := ref.(name.Tag); ok {
		return tag, nil
	}
	base, digest, _ := strings.Cut(ref.String(), "@sha256:")
	if strings.Contains(base[strings.LastIndex(base, "/")+1:], ":") {
		return name.NewTag(base)
	}
	return name.NewTag(base + ":" + digest[:12])
}

// reporter notes every mebibyte that goes through it.
type reporter struct {
	w            obedient
	done, total  int64
	lastReported int64
	note         func(Note)
}

func (r *reporter) Write(p []byte) (int, error) {
	n, err := r.w.Write(p)
	r.done += int64(n)
	if r.done-r.lastReported >= 1<<20 || r.done == r.total {
		r.lastReported = r.done
		r.note(Note{Text: "pulling", Current: r.done, Total: r.total})
	}
	return n, err
}

// pullFault gives a failed pull its exit code and cure.
func pullFault(ref string, err error) error {
	var answer *transport.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("pull %s: %w", ref, err)
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return fault.New(fault.CodeFailed, "look at the image's name and version in the values file", "pull %s: the registry has no such image: %w", ref, err)
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		return fault.New(fault.CodeFailed, "name an image that anybody may pull", "pull %s: the registry does not give it to us: %w", ref, err)
	case errors.As(err, &answer) && answer.StatusCode == http.StatusTooManyRequests:
		return fault.New(fault.CodeFailed, "wait until the registry's limit is over, or build the images: --images packages", "pull %s: %w", ref, err)
	case isUnreachable(err):
		return fault.Unfit("look at the network, or build the images: --images packages", "pull %s: the registry cannot be reached: %w", ref, err)
	}
	return fault.New(fault.CodeFailed, "run it again; what was pulled before is kept", "pull %s: %w", ref, err)
}
