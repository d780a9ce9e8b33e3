package recipe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/image"
)

// serviceUser is who a service runs as: nobody that any system knows.
const serviceUser = "65532:65532"

// Service compiles cmd/NAME of the checkout and returns its image, platformctl.local/NAME:ID: one static program and
// nothing else, no shell and no user names. The id depends on the program alone, so the same source is the same image.
// It works on every machine that has Go. Source that does not compile is a fault with the compiler's lines; nothing has
// been touched then.
func (k *Kitchen) Service(ctx context.Context, name string, note func(Note)) (image.Archive, error) {
	source, err := k.sourceKey(ctx, name)
	if err != nil {
		return image.Archive{}, err
	}
	var e image.CacheEntry
	err = k.cache.Work(ctx, name+"-compile", func(work string) error {
		program := filepath.Join(work, name)
		note(Note{Text: "compiling"})
		args := append(k.compiledService(), "-ldflags=-s -w", "-o", program, "./cmd/"+name)
		if _, err := k.run.Run(ctx, k.golang(k.project, k.machine.arch, args...)); err != nil {
			return compileFault(ctx, name, err)
		}
		sum, err := hashProgram(program)
		if err != nil {
			return fmt.Errorf("read the program %s: %w", name, err)
		}
		key := name + "-" + digest(name, sum, k.machine.arch, image.Format, serviceUser)
		e, err = k.cache.Make(ctx, key, func(ctx context.Context, work string) (image.Made, error) {
			note(Note{Text: "packing the image"})
			return packService(ctx, work, name, program, k.machine.arch)
		})
		return err
	})
	if err != nil {
		return image.Archive{}, err
	}
	if err := k.cache.Trim(ctx, name, kept); err != nil {
		return image.Archive{}, fmt.Errorf("remove old images of %s: %w", name, err)
	}
	if err := k.remember(ctx, name, source, e.Key); err != nil {
		return image.Archive{}, fmt.Errorf("remember what the sources of %s made: %w", name, err)
	}
	return e.Archive(), nil
}

// packService packs the program under a name with the image's own id, which is known only once it is packed.
func packService(ctx context.Context, work, name, program, arch string) (image.Made, error) {
	var tree image.Tree
	if err := tree.File(name, 0o755, program); err != nil {
		return image.Made{}, err
	}
	layer, err := image.WriteLayer(ctx, filepath.Join(work, "layer.tar"), &tree)
	if err != nil {
		return image.Made{}, err
	}
	one := image.Image{Layer: layer, Config: image.Config{Architecture: arch, Entrypoint: []string{"/" + name}, User: serviceUser}}
	id, err := one.ID()
	if err != nil {
		return image.Made{}, err
	}
	one.Ref = "platformctl.local/" + name + ":" + strings.TrimPrefix(id, "sha256:")[:12]
	a, err := image.Pack(ctx, filepath.Join(work, "image.tar"), one)
	return image.Made{Path: a.Path, Ref: a.Ref, ID: a.ID}, err
}

// compileFault says what the compiler said, without the line that called it.
func compileFault(ctx context.Context, name string, err error) error {
	var failed *command.Error
	if ctx.Err() != nil || !errors.As(err, &failed) {
		return fmt.Errorf("compile %s: %w", name, err)
	}
	return fault.New(fault.CodeFailed, "mend what the compiler names and run it again; what runs now goes on running",
		"%s does not compile:\n%s", name, strings.TrimSpace(failed.Output))
}

func hashProgram(file string) (_ string, err error) {
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
