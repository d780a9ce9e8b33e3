package cluster

import (
	"errors"
	"io"
	"maps"
	"strings"
	"testing"

	"platformctl/pkg/command"
)

// What ctr printed in a node.
const table = `REF                                                                     TYPE                                                 DIGEST                                                                  SIZE      PLATFORMS   LABELS
platformctl.local/order-api:aaaa                                        application/vnd.docker.distribution.manifest.v2+json sha256:1111 20.1 MiB  linux/amd64 io.cri-containerd.image=managed
platformctl.local/order-api:late                                        application/vnd.docker.distribution.manifest.v2+json sha256:2222 20.1 MiB  linux/amd64 -
registry.k8s.io/pause:3.10.2                                            application/vnd.oci.image.manifest.v1+json           sha256:3333 741.9 KiB linux/amd64 io.cri-containerd.image=managed
platformctl.local/again:x                                               application/vnd.oci.image.manifest.v1+json           sha256:3333 741.9 KiB linux/amd64 io.cri-containerd.image=managed
sha256:c1                                                               application/vnd.docker.distribution.manifest.v2+json sha256:1111 20.1 MiB  linux/amd64 io.cri-containerd.image=managed
sha256:c3                                                               application/vnd.oci.image.manifest.v1+json           sha256:3333 741.9 KiB linux/amd64 io.cri-containerd.image=managed
`

const inNodeCtr = "docker exec platform-control-plane ctr --namespace=k8s.io "

func TestHasImageComparesIDs(t *testing.T) {
	fake := &command.Fake{Answers: map[string]command.Answer{
		inNodeCtr + "images ls":               {Stdout: table},
		inNodeCtr + "content get sha256:2222": {Stdout: `{"config":{"digest":"sha256:c2"}}`},
	}}
	c := newCluster(t, fake)
	for _, test := range []struct {
		ref, id string
		want    bool
		calls   int
	}{
		{"platformctl.local/order-api:aaaa", "sha256:c1", true, 1},
		{"platformctl.local/order-api:aaaa", "sha256:c9", false, 1},
		{"platformctl.local/order-api:late", "sha256:c2", true, 2},
		{"platformctl.local/order-api:none", "sha256:c1", false, 1},
	} {
		before := len(fake.Runs())
		got, err := c.HasImage(t.Context(), test.ref, test.id)
		if err != nil || got != test.want {
			t.Errorf("HasImage(%s, %s) = %v, %v", test.ref, test.id, got, err)
		}
		if calls := len(fake.Runs()) - before; calls != test.calls {
			t.Errorf("HasImage(%s, %s) took %d calls, want %d", test.ref, test.id, calls, test.calls)
		}
	}
}

func TestImagesHaveSizes(t *testing.T) {
	got := map[string]int64{}
	for _, i := range parseImages(table + "a:none t sha256:4444 -\na:small t sha256:5555 512 B linux/amd64 -\na:cut t sha256:6666\n") {
		got[i.Ref] = i.Size
	}
	want := map[string]int64{
		"platformctl.local/order-api:aaaa": 21076377, "platformctl.local/order-api:late": 21076377, "registry.k8s.io/pause:3.10.2": 759705,
		"platformctl.local/again:x": 759705, "a:none": 0, "a:small": 512, "a:cut": 0,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRemoveImageTakesItsOtherNameTooUnlessShared(t *testing.T) {
	fake := &command.Fake{Answers: map[string]command.Answer{
		inNodeCtr + "images ls": {Stdout: table},
		inNodeCtr + "images rm": {},
	}}
	c := newCluster(t, fake)
	for _, ref := range []string{"platformctl.local/order-api:aaaa", "platformctl.local/again:x", "platformctl.local/none:x"} {
		if err := c.RemoveImage(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	var removals []string
	for _, line := range fake.Runs() {
		if words, ok := strings.CutPrefix(line, inNodeCtr+"images rm --sync "); ok {
			removals = append(removals, words)
		}
	}
	want := "platformctl.local/order-api:aaaa sha256:c1|platformctl.local/again:x"
	if got := strings.Join(removals, "|"); got != want {
		t.Errorf("removed %q, want %q", got, want)
	}
}

type archive struct {
	io.Reader
	closed bool
}

func (a *archive) Close() error { a.closed = true; return nil }

func TestLoadClosesTheArchive(t *testing.T) {
	fake := &command.Fake{Answers: map[string]command.Answer{
		"docker exec -i platform-control-plane ctr --namespace=k8s.io images import": {},
	}}
	c := newCluster(t, fake)
	a := &archive{Reader: strings.NewReader("tar")}
	if err := c.Load(t.Context(), func() (io.ReadCloser, error) { return a, nil }); err != nil {
		t.Fatal(err)
	}
	if !a.closed {
		t.Error("it was left open")
	}
	broken := errors.New("disk on fire")
	if err := c.Load(t.Context(), func() (io.ReadCloser, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("Load = %v", err)
	}
}
