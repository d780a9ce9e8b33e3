package recipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"platformctl/pkg/image"
)

// ServiceCached is the service's image where Service has made one of these very sources; it compiles nothing.
func (k *Kitchen) ServiceCached(ctx context.Context, name string) (image.Archive, bool, error) {
	key, err := k.sourceKey(ctx, name)
	if err != nil {
		return image.Archive{}, false, err
	}
	e, ok, err := k.cache.Get(key)
	if err != nil || !ok {
		return image.Archive{}, false, err
	}
	made, err := os.ReadFile(e.Path)
	if err != nil {
		return image.Archive{}, false, fmt.Errorf("look for the image of %s: %w", name, err)
	}
	e, ok, err = k.cache.Get(string(made))
	return e.Archive(), ok, err
}

// remember notes which image these sources made.
func (k *Kitchen) remember(ctx context.Context, name, source, made string) error {
	_, err := k.cache.Make(ctx, source, func(_ context.Context, work string) (image.Made, error) {
		file := filepath.Join(work, "key")
		return image.Made{Path: file}, os.WriteFile(file, []byte(made), 0o600)
	})
	if err != nil {
		return err
	}
	return k.cache.Trim(ctx, name+"-source", kept)
}

// sourceKey is a hash over all that a service's program can depend on: its own folder, our packages, and the modules'
// versions. It is more than what the compiler reads, and quicker to tell than that.
func (k *Kitchen) sourceKey(ctx context.Context, name string) (string, error) {
	version, err := k.goVersion(ctx, k.project)
	if err != nil {
		return "", err
	}
	parts := append([]string{version, k.machine.arch, image.Format, serviceUser}, compiled()...)
	for _, folder := range []string{"cmd/" + name, "pkg"} {
		sum, err := hashFiles(os.DirFS(filepath.Join(k.project, folder)), func(file string) bool {
			return !strings.HasSuffix(file, "_test.go") && !strings.HasPrefix(path.Join(folder, file), "pkg/recipe/")
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // what is not there the compiler will miss
			return "", fmt.Errorf("read the sources of %s: %w", name, err)
		}
		parts = append(parts, sum)
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(k.project, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("read the sources of %s: %w", name, err)
		}
		parts = append(parts, string(content))
	}
	return name + "-source-" + digest(parts...), nil
}
