package recipe

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/image"
)

const (
	project = "../.."
)

// kitchen is one on a machine that has everything, with a fake for its programs.
func kitchen(t *testing.T, project string, answers map[string]command.Answer) (*Kitchen, *command.Fake) {
	t.Helper()
	fake := &command.Fake{Answers: answers}
	k := New(project, image.NewCache(t.TempDir()), fake)
	k.machine = machine{os: "linux", arch: "amd64", look: func(name string) (string, error) { return "/usr/bin/" + name, nil }}
	return k, fake
}

// checkout is a checkout with nothing but what decides about the node.
func checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module platformctl\nrequire sigs.k8s.io/kind v0.33.0\n")
	write(t, filepath.Join(dir, "pkg/recipe/kubenode/go.mod"), "module kubenode\nrequire k8s.io/kubernetes v1.37.2\n")
	write(t, filepath.Join(dir, "pkg/recipe/kubenode/main.go"), "package main\n")
	return dir
}

func goSays(dir, version string) map[string]command.Answer {
	return map[string]command.Answer{"(cd " + dir: {Stdout: version + "\n"}}
}

func TestNodeKeyIsOfAllThatGoesIn(t *testing.T) {
	dir := checkout(t)
	key := func(goVersion string) string {
		t.Helper()
		k, _ := kitchen(t, dir, goSays(dir, goVersion))
		ref, err := k.Node().Ref(t.Context())
		must(t, err)
		key, err := k.Node().Key(t.Context())
		must(t, err)
		if !strings.HasPrefix(key, "node-") || !strings.HasSuffix(ref, strings.TrimPrefix(key, "node")) {
			t.Errorf("the key is %s, the ref %s", key, ref)
		}
		return ref
	}
	first := key("go1.26.8")
	if !strings.HasPrefix(first, "platformctl.local/node:v1.37.2-") {
		t.Errorf("the ref is %s", first)
	}
	seen := map[string]string{first: "nothing"}
	differs := func(what, ref string) {
		t.Helper()
		if before, ok := seen[ref]; ok {
			t.Errorf("%s changed, and the ref is the same as after %s: %s", what, before, ref)
		}
		seen[ref] = what
	}
	if again := key("go1.26.8"); again != first {
		t.Errorf("nothing changed, and %s became %s", first, again)
	}
	differs("the compiler", key("go1.26.9"))
	write(t, filepath.Join(dir, "pkg/recipe/kubenode/main.go"), "package main // changed\n")
	differs("a source", key("go1.26.8"))
	write(t, filepath.Join(dir, "pkg/recipe/kubenode/more.go"), "package main\n")
	differs("a new source", key("go1.26.8"))
	write(t, filepath.Join(dir, "go.mod"), "module platformctl\nrequire sigs.k8s.io/kind v0.34.0\n")
	differs("kind", key("go1.26.8"))
	write(t, filepath.Join(dir, "pkg/recipe/kubenode/go.mod"), "module kubenode\nrequire k8s.io/kubernetes v1.38.0\n")
	differs("Kubernetes", key("go1.26.8"))
}

func TestServerKeysAreTheirOwn(t *testing.T) {
	k, fake := kitchen(t, "nowhere", nil)
	postgres, err := k.PostgreSQL().Ref(t.Context())
	must(t, err)
	rabbit, err := k.RabbitMQ().Ref(t.Context())
	must(t, err)
	if !strings.HasPrefix(postgres, "platformctl.local/postgresql:17-") || !strings.HasPrefix(rabbit, "platformctl.local/rabbitmq:4-") {
		t.Errorf("the refs are %s and %s", postgres, rabbit)
	}
	if runs := fake.Runs(); len(runs) > 0 {
		t.Errorf("to know them, this was run: %v", runs)
	}
	a, b := debian{name: "a", packages: []string{"x"}}, debian{name: "a", packages: []string{"x"}, setup: "true"}
	if a.key() == b.key() {
		t.Errorf("two root file systems are both %s", a.key())
	}
}

func TestSourcesAreThoseOfTheKind(t *testing.T) {
	node, err := sources("node")
	must(t, err)
	server, err := sources("server")
	must(t, err)
	nobody, err := sources("nobody")
	must(t, err)
	if node == server || node == nobody || server == nobody {
		t.Errorf("node %s, server %s, what all share %s", node, server, nobody)
	}
}

func TestDigestKnowsWhereAPartEnds(t *testing.T) {
	if digest("ab", "c") == digest("a", "bc") || digest("a") == digest("a", "") || len(digest("a")) != 12 {
		t.Error("different parts are the same digest, or it is not 12 characters long")
	}
}

func TestUnfitMachine(t *testing.T) {
	has := func(name string) (string, error) { return name, nil }
	for what, c := range map[string]struct {
		machine machine
		says    string
	}{
		"macOS":          {machine{os: "darwin", arch: "arm64", look: has}, "linux/amd64 only"},
		"ARM":            {machine{os: "linux", arch: "arm64", look: has}, "linux/amd64 only"},
		"a plain user":   {machine{os: "linux", arch: "amd64", uid: 1000, look: has}, "needs root"},
		"no mmdebstrap":  {machine{os: "linux", arch: "amd64", look: lacks("mmdebstrap")}, "mmdebstrap"},
		"no setpriv":     {machine{os: "linux", arch: "amd64", look: lacks("setpriv")}, "setpriv"},
		"all of it here": {machine{os: "linux", arch: "amd64", look: has}, ""},
	} {
		err := c.machine.fit("postgresql")
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case c.says != "" && (fault.CodeOf(err) != fault.CodeUnfit || fault.CureOf(err) == "" || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: code %d, cure %q: %v", what, fault.CodeOf(err), fault.CureOf(err), err)
		}
	}
	k, _ := kitchen(t, project, nil)
	k.machine.uid = 1000
	if _, err := k.PostgreSQL().Build(t.Context(), func(Note) {}); fault.CodeOf(err) != fault.CodeUnfit {
		t.Errorf("built by a plain user: %v", err)
	}
	k.machine.look = lacks("go")
	if _, err := k.Node().Key(t.Context()); fault.CodeOf(err) != fault.CodeUnfit || fault.CureOf(err) == "" {
		t.Errorf("no Go: %v", err)
	}
}

func TestBuildSaysWhatFailed(t *testing.T) {
	k, fake := kitchen(t, project, map[string]command.Answer{"TMPDIR=": {Fail: "E: no mirror"}})
	_, err := k.PostgreSQL().Build(t.Context(), func(Note) {})
	if fault.CodeOf(err) != fault.CodeFailed || !strings.Contains(err.Error(), "E: no mirror") || !strings.Contains(fault.CureOf(err), "apt-get update") {
		t.Errorf("code %d, cure %q: %v", fault.CodeOf(err), fault.CureOf(err), err)
	}
	if runs := fake.Runs(); len(runs) != 1 || !strings.Contains(runs[0], "mmdebstrap") {
		t.Errorf("it ran %v", runs)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	_, err = k.PostgreSQL().Build(stopped, func(Note) {})
	if fault.CodeOf(err) != fault.CodeInterrupted {
		t.Errorf("stopped: code %d: %v", fault.CodeOf(err), err)
	}
	if _, ok, err := k.PostgreSQL().Cached(t.Context()); ok || err != nil {
		t.Errorf("it is in the cache: %v, %v", ok, err)
	}
}

// What is not contained would outlive a killed platformctl, and its mounts would be in the way of who clears up.
// (Where root is lacking, fit has said so before anything is contained.)
func TestContainedEndsWithUs(t *testing.T) {
	if err := New(project, image.NewCache(t.TempDir()), command.Local{}).machine.fit("node"); err != nil {
		if fault.CodeOf(err) != fault.CodeUnfit {
			t.Errorf("code %d: %v", fault.CodeOf(err), err)
		}
		return
	}
	out, err := command.Local{}.Run(t.Context(), contained(command.New("sh", "-c", "echo $$; readlink /proc/self/ns/mnt")))
	must(t, err)
	pid, namespace, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	ours, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	if pid != "1" || namespace == ours {
		t.Errorf("it is process %s in %s, which is %s for us", pid, namespace, ours)
	}
}

func lacks(program string) func(string) (string, error) {
	return func(name string) (string, error) {
		if name == program {
			return "", errors.New("not found in PATH")
		}
		return "/usr/bin/" + name, nil
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, []byte(content), 0o644))
}
