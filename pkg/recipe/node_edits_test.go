package recipe

import (
	"bytes"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"platformctl/pkg/command"
	"platformctl/pkg/image"
)

// A new version of Kubernetes may have moved or rewritten what we edit.
func TestKubernetesIsAsWeEditIt(t *testing.T) {
	k := New(project, image.NewCache(t.TempDir()), command.Local{})
	work := t.TempDir()
	modfile, err := k.edited(t.Context(), work)
	must(t, err)
	if text, err := os.ReadFile(modfile); err != nil || !strings.Contains(string(text), "k8s.io/kubernetes => "+work) {
		t.Errorf("it does not replace Kubernetes: %v\n%s", err, text)
	}
	for _, e := range edits() {
		original, err := k.moduleFolder(t.Context(), k.module(), e.module)
		must(t, err)
		before, err := os.ReadFile(filepath.Join(original, e.file))
		must(t, err)
		at := filepath.Join(work, path.Base(e.module), e.file)
		after, err := os.ReadFile(at)
		must(t, err)
		if bytes.Contains(before, []byte(e.to)) || !bytes.Contains(after, []byte(e.to)) {
			t.Errorf("%s is not edited: %s", e.file, e.to)
		}
		if _, err := parser.ParseFile(token.NewFileSet(), at, after, 0); err != nil {
			t.Errorf("edited, %s is no Go any more: %v", e.file, err)
		}
	}
	for _, name := range []string{"go.mod", "LICENSE", "pkg/kubelet/kubelet_pods.go", "pkg/proxy/types.go"} {
		if _, err := os.ReadFile(filepath.Join(work, "kubernetes", name)); err != nil {
			t.Errorf("what is not edited is not there: %v", err)
		}
	}
}

func TestAnEditWantsItsPlace(t *testing.T) {
	e := edit{file: "a.go", from: "wait(1)\n", to: "wait(0)\n"}
	if got, err := e.in([]byte("begin()\nwait(1)\nend()\n")); err != nil || string(got) != "begin()\nwait(0)\nend()\n" {
		t.Errorf("%q, %v", got, err)
	}
	for content, times := range map[string]string{"begin()\nend()\n": "0 times", "wait(1)\nwait(1)\n": "2 times"} {
		if got, err := e.in([]byte(content)); err == nil || !strings.Contains(err.Error(), "a.go stands there "+times) {
			t.Errorf("%q is edited to %q, %v", content, got, err)
		}
	}
}
