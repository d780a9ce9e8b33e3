package recipe

import (
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/modfile"

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

// ServiceState is a hash over all that a service's program can depend on: its own folder, those of our packages that it
// links, and the modules' versions. The same state is the same program. folders are what was looked at, below the checkout:
// what changes the state changes something in one of them, or go.mod or go.sum. Neither Go nor the program need be sound.
func (k *Kitchen) ServiceState(name string) (hash string, folders []string, err error) {
	project := os.DirFS(k.project)
	var parts []string
	module := ""
	for _, file := range []string{"go.mod", "go.sum"} {
		content, err := fs.ReadFile(project, file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", nil, fmt.Errorf("read the sources of %s: %w", name, err)
		}
		if file == "go.mod" {
			module = modfile.ModulePath(content)
		}
		parts = append(parts, string(content))
	}
	r := &reading{project: project, module: module, files: map[string][]string{}}
	if err := r.program("cmd/" + name); err != nil {
		return "", nil, fmt.Errorf("read the sources of %s: %w", name, err)
	}
	folders = slices.Sorted(maps.Keys(r.files))
	for _, folder := range folders {
		for _, file := range r.files[folder] {
			content, err := fs.ReadFile(project, file)
			if errors.Is(err, fs.ErrNotExist) {
				continue // it went just now, and does not count then
			}
			if err != nil {
				return "", nil, fmt.Errorf("read the sources of %s: %w", name, err)
			}
			parts = append(parts, file, string(content))
		}
	}
	return digest(parts...), folders, nil
}

// sourceKey is the key under which the cache notes what the service's sources make.
func (k *Kitchen) sourceKey(ctx context.Context, name string) (string, error) {
	version, err := k.goVersion(ctx, k.project)
	if err != nil {
		return "", err
	}
	state, _, err := k.ServiceState(name)
	if err != nil {
		return "", err
	}
	parts := append([]string{version, k.machine.arch, image.Format, serviceUser, state}, k.compiledService()...)
	return name + "-source-" + digest(parts...), nil
}

// reading finds what `go list -deps` names of our own module, without asking Go, which takes half a second for it and wants
// a program without faults. It may find more, such as what another system's build would read, and never less.
type reading struct {
	project fs.FS
	module  string
	files   map[string][]string // by folder, with the folder's path
}

// program takes in the package in a folder, what it embeds from below, and the packages of ours that it imports.
func (r *reading) program(folder string) error {
	if _, known := r.files[folder]; known {
		return nil
	}
	entries, err := fs.ReadDir(r.project, folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the compiler will miss it
	}
	if err != nil {
		return err
	}
	r.files[folder] = nil
	for _, e := range entries {
		file := path.Join(folder, e.Name())
		switch {
		case e.Name() == "testdata": // what the tests alone read, the fuzzers' corpora among it
		case e.IsDir():
			err = r.embedded(file)
		case counts(e):
			r.files[folder] = append(r.files[folder], file)
			err = r.imports(file)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// embedded takes in a folder below a package, and what is below it, unless it is another package.
func (r *reading) embedded(folder string) error {
	entries, err := fs.ReadDir(r.project, folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasSuffix(e.Name(), ".go") }) {
		return err
	}
	r.files[folder] = nil
	for _, e := range entries {
		if file := path.Join(folder, e.Name()); !e.IsDir() && counts(e) {
			r.files[folder] = append(r.files[folder], file)
		} else if e.IsDir() {
			if err := r.embedded(file); err != nil {
				return err
			}
		}
	}
	return nil
}

// imports takes in the packages of ours that a file imports.
func (r *reading) imports(file string) error {
	if !strings.HasSuffix(file, ".go") {
		return nil
	}
	content, err := fs.ReadFile(r.project, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// Of a file with faults the imports before them; the compiler will tell of the faults.
	parsed, _ := parser.ParseFile(token.NewFileSet(), file, content, parser.ImportsOnly)
	if parsed == nil {
		return nil
	}
	for _, i := range parsed.Imports {
		what, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			continue
		}
		if ours, ok := strings.CutPrefix(what, r.module+"/"); ok {
			if err := r.program(path.Clean(ours)); err != nil {
				return err
			}
		}
	}
	return nil
}

// counts tells a file that a program can be made of from tests and from what editors leave about.
func counts(e fs.DirEntry) bool {
	name := e.Name()
	for _, end := range []string{"_test.go", "~", ".swp", ".swo", ".swx"} {
		if strings.HasSuffix(name, end) {
			return false
		}
	}
	return !strings.HasPrefix(name, "#") && !strings.HasPrefix(name, ".#")
}
