package platform

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/release"
)

// here is the platform of this very checkout, with programs from a script.
func here(t *testing.T, set Settings, run command.Runner) *Platform {
	t.Helper()
	project, err := FindProject(".")
	if err != nil {
		t.Fatal(err)
	}
	if set.Cluster == "" {
		set.Cluster = "unit"
	}
	set.Project, set.Cache, set.State = project, t.TempDir(), t.TempDir()
	set.Getenv, set.Chatter = func(string) string { return "" }, io.Discard
	p, err := New(set, run)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOriginAsTheUserSaid(t *testing.T) {
	for _, origin := range []Origin{Registry, Packages} {
		// The fake knows no command: nothing may be asked.
		got, err := here(t, Settings{Images: origin}, &command.Fake{}).origin(t.Context())
		if err != nil || got != origin {
			t.Errorf("got %q, %v; want %s", got, err, origin)
		}
	}
}

func TestReleasesRunWhatWasLoaded(t *testing.T) {
	p := here(t, Settings{Images: Packages}, &command.Fake{})
	for _, s := range Services() {
		ref := "platformctl.local/" + s.Release + ":0123456789ab"
		spec, err := p.spec(s, ref)
		if err != nil {
			t.Fatal(err)
		}
		images, err := release.Images(spec)
		if err != nil {
			t.Fatal(err)
		}
		if len(images) != 1 || images[0] != ref {
			t.Errorf("%s runs %v, want %s", s.Release, images, ref)
		}
		manifest, err := release.Render(spec)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"kind: " + s.Kind, "name: " + s.Workload, "imagePullPolicy: Never", "name: " + s.Container} {
			if !strings.Contains(manifest, want+"\n") {
				t.Errorf("the manifest of %s has no line %q", s.Release, want)
			}
		}
	}
}

func TestPulledServersAreTheOfficialOnes(t *testing.T) {
	p := here(t, Settings{Images: Registry}, &command.Fake{})
	for name, prefix := range map[string]string{"postgres": "docker.io/library/postgres:17.", "rabbitmq": "docker.io/library/rabbitmq:4."} {
		s, err := FindService(name)
		if err != nil {
			t.Fatal(err)
		}
		ref, err := p.serverImage(s)
		if err != nil || !strings.HasPrefix(ref, prefix) {
			t.Errorf("%s is pulled as %q, %v; want %s…", name, ref, err, prefix)
		}
	}
}

func TestAClusterNeedsAName(t *testing.T) {
	_, err := New(Settings{Cluster: "No Such", State: filepath.Join(t.TempDir(), "state")}, &command.Fake{})
	if fault.CodeOf(err) != fault.CodeUsage {
		t.Errorf("got %v, want a usage error", err)
	}
}
