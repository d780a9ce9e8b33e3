package recipe

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/image"
)

const hello = "package main\n\nfunc main() { println(%q) }\n"

// services is a checkout with one service that says text.
func services(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module platformctl\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "cmd/order-api/main.go"), strings.ReplaceAll(hello, "%q", `"`+text+`"`))
	return dir
}

func TestServiceIsItsProgram(t *testing.T) {
	cache := image.NewCache(t.TempDir())
	build := func(dir string) image.Archive {
		t.Helper()
		a, err := New(dir, cache, command.Local{}).Service(t.Context(), "order-api", func(Note) {})
		must(t, err)
		return a
	}
	first := build(services(t, "hello"))
	if elsewhere := build(services(t, "hello")); elsewhere != first {
		t.Errorf("the same source in another folder is %+v, the first was %+v", elsewhere, first)
	}
	if changed := build(services(t, "goodbye")); changed.ID == first.ID || changed.Ref == first.Ref {
		t.Errorf("another program is the same image %s", changed.Ref)
	}
	if want := "platformctl.local/order-api:" + strings.TrimPrefix(first.ID, "sha256:")[:12]; first.Ref != want {
		t.Errorf("it is called %s, want %s", first.Ref, want)
	}
	tag, err := name.NewTag(first.Ref)
	must(t, err)
	img, err := tarball.ImageFromPath(first.Path, &tag)
	must(t, err)
	config, err := img.ConfigFile()
	must(t, err)
	if !slices.Equal(config.Config.Entrypoint, []string{"/order-api"}) || config.Config.User != "65532:65532" || len(config.Config.Labels) > 0 {
		t.Errorf("its configuration is %+v", config.Config)
	}
	layers, err := img.Layers()
	must(t, err)
	if len(layers) != 1 {
		t.Errorf("it has %d layers", len(layers))
	}
	content, err := layers[0].Uncompressed()
	must(t, err)
	r := tar.NewReader(content)
	h, err := r.Next()
	must(t, err)
	if h.Name != "order-api" || h.Mode != 0o755 {
		t.Errorf("its first file is %s with mode %o", h.Name, h.Mode)
	}
	raw, err := io.ReadAll(r)
	must(t, err)
	program, err := elf.NewFile(bytes.NewReader(raw))
	must(t, err)
	for _, part := range program.Progs {
		if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
			t.Errorf("it is not linked statically: it has a %s", part.Type)
		}
	}
	if h, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("there is also %v, %v", h, err)
	}
	must(t, content.Close())
}

// images lists the cache's images, not what else it notes.
func images(t *testing.T, cache *image.Cache) []image.CacheEntry {
	t.Helper()
	all, err := cache.List()
	must(t, err)
	return slices.DeleteFunc(all, func(e image.CacheEntry) bool { return e.Ref == "" })
}

func TestServiceThatDoesNotCompile(t *testing.T) {
	dir := services(t, "hello")
	cache := image.NewCache(t.TempDir())
	k := New(dir, cache, command.Local{})
	good, err := k.Service(t.Context(), "order-api", func(Note) {})
	must(t, err)
	write(t, filepath.Join(dir, "cmd/order-api/main.go"), "package main\n\nfunc main() { undefinedThing() }\n")
	_, err = k.Service(t.Context(), "order-api", func(Note) {})
	if fault.CodeOf(err) != fault.CodeFailed || err == nil || !strings.Contains(err.Error(), "cmd/order-api/main.go:3:15: undefined: undefinedThing") || fault.CureOf(err) == "" {
		t.Errorf("code %d, cure %q: %v", fault.CodeOf(err), fault.CureOf(err), err)
	}
	if strings.Contains(err.Error(), "CGO_ENABLED") {
		t.Errorf("it shows how the compiler was called: %v", err)
	}
	all := images(t, cache)
	if len(all) != 1 || all[0].Archive() != good {
		t.Errorf("the cache holds %+v", all)
	}
}

func TestOldImagesOfAServiceGo(t *testing.T) {
	dir := services(t, "0")
	cache := image.NewCache(t.TempDir())
	k := New(dir, cache, command.Local{})
	var last image.Archive
	for i := range kept + 2 {
		write(t, filepath.Join(dir, "cmd/order-api/main.go"), strings.ReplaceAll(hello, "%q", `"`+strings.Repeat("x", i)+`"`))
		var err error
		last, err = k.Service(t.Context(), "order-api", func(Note) {})
		must(t, err)
	}
	all := images(t, cache)
	if len(all) != kept || !slices.ContainsFunc(all, func(e image.CacheEntry) bool { return e.Ref == last.Ref }) {
		t.Errorf("after %d changes the cache holds %+v", kept+2, all)
	}
}

func TestServiceIsCachedBySource(t *testing.T) {
	cache := image.NewCache(t.TempDir())
	dir := services(t, "hello")
	k := New(dir, cache, command.Local{})
	if _, ok, err := k.ServiceCached(t.Context(), "order-api"); ok || err != nil {
		t.Fatalf("before it was made: %v, %v", ok, err)
	}
	made, err := k.Service(t.Context(), "order-api", func(Note) {})
	must(t, err)
	got, ok, err := k.ServiceCached(t.Context(), "order-api")
	if err != nil || !ok || got != made {
		t.Fatalf("got %+v, %v, %v; want %+v", got, ok, err, made)
	}
	write(t, filepath.Join(dir, "cmd/order-api/main_test.go"), "package main\n")
	if _, ok, err := k.ServiceCached(t.Context(), "order-api"); !ok || err != nil {
		t.Errorf("a test counts as a source: %v, %v", ok, err)
	}
	write(t, filepath.Join(dir, "pkg/order/order.go"), "package order\n")
	if _, ok, err := k.ServiceCached(t.Context(), "order-api"); !ok || err != nil {
		t.Errorf("a package that it does not import counts as a source: %v, %v", ok, err)
	}
	write(t, filepath.Join(dir, "cmd/order-api/more.go"), "package main\n\nimport _ \"platformctl/pkg/order\"\n")
	made, err = k.Service(t.Context(), "order-api", func(Note) {})
	must(t, err)
	if got, ok, err := k.ServiceCached(t.Context(), "order-api"); !ok || err != nil || got != made {
		t.Errorf("with another package: %+v, %v, %v", got, ok, err)
	}
	write(t, filepath.Join(dir, "pkg/order/order.go"), "package order\n\nconst one = 1\n")
	if _, ok, err := k.ServiceCached(t.Context(), "order-api"); ok || err != nil {
		t.Errorf("a source that changed does not count: %v, %v", ok, err)
	}
}

// What a service is read to be made of is what Go says it is made of.
func TestServiceFoldersAreGos(t *testing.T) {
	for _, name := range []string{"order-api", "payment-service"} {
		k := New("../..", image.NewCache(t.TempDir()), command.Local{})
		_, folders, err := k.ServiceState(name)
		must(t, err)
		out, err := command.Local{}.Run(t.Context(), k.golang("../..", "amd64", "list", "-deps", "-f", `{{if and .Module .Module.Main}}{{.ImportPath}}
{{range .EmbedFiles}}{{$.ImportPath}}/{{.}}
{{end}}{{end}}`, "./cmd/"+name))
		must(t, err)
		want := map[string]bool{}
		for line := range strings.Lines(string(out)) {
			file := strings.TrimPrefix(strings.TrimSpace(line), "platformctl/")
			if file == "" {
				continue
			}
			if path.Ext(file) != "" {
				file = path.Dir(file)
			}
			want[file] = true
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), folders); diff != "" {
			t.Errorf("%s: -go +read:\n%s", name, diff)
		}
	}
}

func TestServiceStateIsOfWhatCounts(t *testing.T) {
	dir := services(t, "hello")
	k := New(dir, image.NewCache(t.TempDir()), command.Local{})
	state := func() string {
		t.Helper()
		hash, _, err := k.ServiceState("order-api")
		must(t, err)
		return hash
	}
	write(t, filepath.Join(dir, "cmd/order-api/main.go"), "package main\n\nimport _ \"platformctl/pkg/order\"\n\nfunc main() {}\n")
	write(t, filepath.Join(dir, "pkg/order/order.go"), "package order\n\nimport _ \"platformctl/pkg/order/deep\"\n")
	write(t, filepath.Join(dir, "pkg/order/schema/sub/1.sql"), "SELECT 1")
	write(t, filepath.Join(dir, "pkg/order/deep/deep.go"), "package deep\n")
	write(t, filepath.Join(dir, "pkg/order/ordertest/order.go"), "package ordertest\n")
	before := state()
	for _, file := range []string{"pkg/order/order_test.go", "pkg/order/.order.go.swp", "pkg/order/order.go~", "pkg/order/ordertest/order.go", "pkg/other/other.go", "cmd/payment-service/main.go"} {
		write(t, filepath.Join(dir, file), "package what\n")
		if state() != before {
			t.Errorf("%s counts", file)
		}
	}
	for _, file := range []string{
		"go.mod", "go.sum", "cmd/order-api/main.go", "cmd/order-api/more.go", "pkg/order/order.go", "pkg/order/openapi.yaml",
		"pkg/order/schema/sub/1.sql", "pkg/order/schema/2.sql", "pkg/order/deep/deep.go",
	} {
		path := filepath.Join(dir, file)
		was, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		write(t, path, string(was)+"\n\n// more\n")
		if state() == before {
			t.Errorf("%s does not count", file)
		}
		if err == nil {
			write(t, path, string(was))
		} else {
			must(t, os.Remove(path))
		}
		if state() != before {
			t.Errorf("%s as it was is another state", file)
		}
	}
	// A file that cannot be parsed counts all the same, with what it imports before the fault.
	write(t, filepath.Join(dir, "cmd/order-api/main.go"), "package main\n\nimport _ \"platformctl/pkg/order\"\n\nfunc {{{\n")
	if state() == before {
		t.Error("a broken file does not count")
	}
	if _, folders, err := k.ServiceState("order-api"); err != nil || !slices.Contains(folders, "pkg/order/deep") {
		t.Errorf("with a broken file: %q, %v", folders, err)
	}
}
