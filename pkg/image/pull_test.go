package image

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"platformctl/pkg/fault"
)

// blobs is what a registry does with a request for a blob that it has; nil is to serve it.
type blobs func(w http.ResponseWriter, blob []byte)

// serve is a registry on loopback, and its host. What it does with blobs can be changed while it runs.
func serve(t *testing.T) (host string, spoil *atomic.Pointer[blobs]) {
	t.Helper()
	honest := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	spoil = &atomic.Pointer[blobs]{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		how := spoil.Load()
		if how == nil || r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			honest.ServeHTTP(w, r)
			return
		}
		got := httptest.NewRecorder()
		honest.ServeHTTP(got, r)
		(*how)(w, got.Body.Bytes())
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), spoil
}

// push puts a random image of two layers of 2 MiB into the registry.
func push(t *testing.T, ref string) v1.Image {
	t.Helper()
	img, err := random.Image(2<<20, 2)
	must(t, err)
	parsed, err := name.ParseReference(ref)
	must(t, err)
	must(t, remote.Write(parsed, img))
	return img
}

func TestPull(t *testing.T) {
	host, _ := serve(t)
	img := push(t, host+"/library/postgres:17.5")
	digest, err := img.Digest()
	must(t, err)
	id, err := img.ConfigName()
	must(t, err)
	for ref, want := range map[string]string{
		"/library/postgres:17.5":                            "/library/postgres:17.5",
		"/library/postgres:17.5@" + digest.String():         "/library/postgres:17.5",
		"/library/postgres@" + digest.String():              "/library/postgres:" + digest.Hex[:12],
		"/library/postgres:another@" + digest.String() + "": "/library/postgres:another",
	} {
		var notes []Note
		p := Puller{Cache: NewCache(t.TempDir())}
		a, err := p.Pull(t.Context(), host+ref, func(n Note) { notes = append(notes, n) })
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if a.Ref != host+want || a.ID != id.String() {
			t.Errorf("%s is %s %s, want %s %s", ref, a.Ref, a.ID, host+want, id)
		}
		tag, err := name.NewTag(a.Ref)
		must(t, err)
		got, err := tarball.ImageFromPath(a.Path, &tag)
		must(t, err)
		layers, err := got.Layers()
		must(t, err)
		if len(layers) != 2 {
			t.Errorf("%s has %d layers", ref, len(layers))
		}
		last := notes[len(notes)-1]
		if last.Current != a.Size || last.Total != a.Size || len(notes) < 4 {
			t.Errorf("%s: the last of %d notes is %+v, the archive has %d bytes", ref, len(notes), last, a.Size)
		}
		for i := 1; i < len(notes); i++ {
			if notes[i].Current < notes[i-1].Current {
				t.Errorf("%s: after %+v came %+v", ref, notes[i-1], notes[i])
			}
		}
	}
}

func TestPulledOnceIsPulledForGood(t *testing.T) {
	host, _ := serve(t)
	push(t, host+"/aa:1")
	p := Puller{Cache: NewCache(t.TempDir())}
	first, err := p.Pull(t.Context(), host+"/aa:1", func(Note) {})
	must(t, err)
	push(t, host+"/aa:1") // the tag is moved
	again, err := p.Pull(t.Context(), host+"/aa:1", func(Note) { t.Error("it was pulled again") })
	if err != nil || again != first {
		t.Errorf("got %+v after %+v, %v", again, first, err)
	}
}

func TestPullTakesThisPlatform(t *testing.T) {
	host, _ := serve(t)
	var index v1.ImageIndex = empty.Index
	ids := map[string]string{}
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := random.Image(10, 1)
		must(t, err)
		config, err := img.ConfigFile()
		must(t, err)
		config.OS, config.Architecture = "linux", arch
		img, err = mutate.ConfigFile(img, config)
		must(t, err)
		id, err := img.ConfigName()
		must(t, err)
		ids[arch] = id.String()
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	ref, err := name.ParseReference(host + "/many:1")
	must(t, err)
	must(t, remote.WriteIndex(ref, index))
	digest, err := index.Digest()
	must(t, err)
	c := NewCache(t.TempDir())
	for platform, arch := range map[string]string{"": runtime.GOARCH, "linux/amd64": "amd64", "linux/arm64": "arm64"} {
		for _, ref := range []string{host + "/many:1", host + "/many@" + digest.String()} {
			a, err := Puller{Cache: c, Platform: platform}.Pull(t.Context(), ref, func(Note) {})
			if err != nil || a.ID != ids[arch] {
				t.Errorf("%s for %q is %s, want %s, %v", ref, platform, a.ID, ids[arch], err)
			}
		}
	}
}

func TestPullFails(t *testing.T) {
	host, spoil := serve(t)
	img := push(t, host+"/aa:1")
	digest, err := img.Digest()
	must(t, err)
	away := httptest.NewServer(nil)
	gone := strings.TrimPrefix(away.URL, "http://")
	away.Close()
	var short blobs = func(w http.ResponseWriter, blob []byte) {
		w.Header().Set("Content-Length", itoa(len(blob)))
		if _, err := w.Write(blob[:len(blob)/2]); err != nil {
			t.Error(err)
		}
	}
	var other blobs = func(w http.ResponseWriter, blob []byte) {
		if _, err := w.Write(bytes.ReplaceAll(blob, blob[len(blob)-1:], []byte{blob[len(blob)-1] + 1})); err != nil {
			t.Error(err)
		}
	}
	for what, c := range map[string]struct {
		ref, platform string
		spoil         *blobs
		code          int
		says          string
	}{
		"no such tag":        {ref: host + "/aa:2", code: fault.CodeFailed, says: "no such image"},
		"no such repository": {ref: host + "/bb:1", code: fault.CodeFailed, says: "no such image"},
		"no such digest":     {ref: host + "/aa@sha256:" + strings.Repeat("0", 64), code: fault.CodeFailed, says: "no such image"},
		"cut short":          {ref: host + "/aa:1", spoil: &short, code: fault.CodeFailed, says: "EOF"},
		"other content":      {ref: host + "/aa@" + digest.String(), spoil: &other, code: fault.CodeFailed, says: "sha256"},
		"nobody there":       {ref: gone + "/aa:1", code: fault.CodeUnfit, says: "cannot be reached"},
		"no name":            {ref: "a b", code: fault.CodeUsage, says: "a b"},
		"no platform":        {ref: host + "/aa:1", platform: "a/b/c/d", code: fault.CodeUsage, says: "a/b/c/d"},
	} {
		t.Run(what, func(t *testing.T) {
			spoil.Store(c.spoil)
			dir := t.TempDir()
			_, err := Puller{Cache: NewCache(dir), Platform: c.platform}.Pull(t.Context(), c.ref, func(Note) {})
			if fault.CodeOf(err) != c.code || err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %d, want %d and %q: %v", fault.CodeOf(err), c.code, c.says, err)
			}
			if fault.CureOf(err) == "" {
				t.Error("there is no cure")
			}
			left, err := filepath.Glob(filepath.Join(dir, "*"))
			must(t, err)
			for _, file := range left {
				if filepath.Ext(file) != ".lock" {
					t.Errorf("%s was left", file)
				}
			}
		})
	}
}
