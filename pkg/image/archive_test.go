package image

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestPackedArchiveIsTheImage(t *testing.T) {
	layer := small(t, "content")
	config := Config{Entrypoint: []string{"/order-api"}, User: "65532:65532", StopSignal: "SIGINT", Architecture: "arm64"}
	file := filepath.Join(t.TempDir(), "image.tar")
	a, err := Pack(t.Context(), file, Image{Ref: "platformctl.local/order-api:1", Config: config, Layer: layer})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Size() != a.Size {
		t.Errorf("its size is said to be %d, it is %d, %v", a.Size, info.Size(), err)
	}
	tag, err := name.NewTag(a.Ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.Image(func() (io.ReadCloser, error) { return a.Open() }, &tag)
	if err != nil {
		t.Fatal(err)
	}
	id, err := img.ConfigName()
	if err != nil || id.String() != a.ID {
		t.Errorf("its id is said to be %s, it is %s, %v", a.ID, id, err)
	}
	got, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{"linux", "arm64", []string{"/order-api"}, "65532:65532", "SIGINT"},
		[]any{got.OS, got.Architecture, got.Config.Entrypoint, got.Config.User, got.Config.StopSignal}); diff != "" {
		t.Errorf("its configuration (-want +got):\n%s", diff)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("it has %d layers, %v", len(layers), err)
	}
	if diffID, err := layers[0].DiffID(); err != nil || diffID != layer.sum {
		t.Errorf("its layer is %s, want %s, %v", diffID, layer.sum, err)
	}
}

func TestIDDependsOnContentAlone(t *testing.T) {
	one := Image{Ref: "test.local/bb:1", Layer: small(t, "content")}
	first, err := one.ID()
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		image Image
		same  bool
	}{
		"another name":          {Image{Ref: "test.local/cc:2", Layer: small(t, "content")}, true},
		"another content":       {Image{Ref: "test.local/bb:1", Layer: small(t, "other")}, false},
		"another configuration": {Image{Ref: "test.local/bb:1", Layer: small(t, "content"), Config: Config{User: "1"}}, false},
	} {
		a, err := Pack(t.Context(), filepath.Join(t.TempDir(), "image"), c.image)
		if err != nil {
			t.Fatal(err)
		}
		if (a.ID == first) != c.same {
			t.Errorf("%s: the id is %s, the first was %s", what, a.ID, first)
		}
	}
}

func TestImagesShareALayer(t *testing.T) {
	layer := small(t, string(make([]byte, 1<<20)))
	a, err := Pack(t.Context(), filepath.Join(t.TempDir(), "images"),
		Image{Ref: "test.local/bb:1", Layer: layer}, Image{Ref: "test.local/cc:1", Layer: layer, Config: Config{Cmd: []string{"x"}}})
	if err != nil {
		t.Fatal(err)
	}
	if a.Size > 3<<19 {
		t.Errorf("two images of one layer of 1 MiB take %d bytes", a.Size)
	}
	for _, ref := range []string{"test.local/bb:1", "test.local/cc:1"} {
		tag, err := name.NewTag(ref)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tarball.ImageFromPath(a.Path, &tag); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestPackRefusesANameWithoutATag(t *testing.T) {
	for _, ref := range []string{"", "order-api", "test.local/bb@sha256:0", "test.local/B:1"} {
		if _, err := Pack(t.Context(), filepath.Join(t.TempDir(), "image"), Image{Ref: ref, Layer: small(t, "")}); err == nil {
			t.Errorf("%q was taken", ref)
		}
	}
}

func small(t *testing.T, content string) *Layer {
	t.Helper()
	var tree Tree
	tree.Bytes("file", 0o644, []byte(content))
	return layerOf(t, &tree)
}
