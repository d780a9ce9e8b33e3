package recipe

import (
	"bytes"
	"go/format"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"

	"platformctl/pkg/command"
	"platformctl/pkg/image"
)

// platformctl and the node are built from the same modules: where both link one, the compiler's work is done once only if
// both have it at the same version, compiled by the same Go. (A go.mod lists all modules that a build needs.)
func TestBothModulesHaveTheSameVersions(t *testing.T) {
	ours := versions(t, filepath.Join(project, "go.mod"))
	nodes := versions(t, filepath.Join("kubenode", "go.mod"))
	shared := 0
	for module, version := range nodes {
		our, ok := ours[module]
		if !ok {
			continue
		}
		shared++
		if our != version {
			t.Errorf("%s is %s in go.mod and %s in pkg/recipe/kubenode/go.mod", module, our, version)
		}
	}
	if shared < 50 {
		t.Errorf("only %d modules are in both; is one of the two lists cut short?", shared)
	}
}

func versions(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	parsed, err := modfile.Parse(file, text, nil)
	must(t, err)
	all := map[string]string{"toolchain": ""}
	if parsed.Toolchain != nil {
		all["toolchain"] = parsed.Toolchain.Name
	}
	for _, r := range parsed.Require {
		all[r.Mod.Path] = r.Mod.Version
	}
	for _, r := range parsed.Replace {
		if _, ok := all[r.Old.Path]; ok {
			all[r.Old.Path] = r.New.Version
		}
	}
	return all
}

// The node's module is no part of ours, so that nothing that looks after ours looks after it.
func TestKubenodeIsFormatted(t *testing.T) {
	seen := 0
	must(t, filepath.WalkDir("kubenode", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".go" {
			return err
		}
		seen++
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		formatted, err := format.Source(text)
		if err != nil {
			return err
		}
		if !bytes.Equal(text, formatted) {
			t.Errorf("%s is not as gofmt writes it", name)
		}
		return nil
	}))
	if seen < 4 {
		t.Errorf("kubenode has %d sources", seen)
	}
}

// kind's files are taken from kind's module: a new version of it may have moved or rewritten them.
func TestKindFilesAreAsWeExpectThem(t *testing.T) {
	k := New(project, image.NewCache(t.TempDir()), command.Local{})
	dir, err := k.moduleFolder(t.Context(), k.project, kindModule)
	must(t, err)
	var tree image.Tree
	must(t, addKindFiles(&tree, filepath.Join(dir, "images", "base", "files")))
	for name, mode := range map[string]fs.FileMode{
		"usr/local/bin/entrypoint": 0o755, "kind/bin/mount-product-files.sh": 0o755,
		"etc/systemd/system/kubelet.service": 0o644, "etc/systemd/system/containerd.service": 0o644,
		"etc/systemd/system/undo-mount-hacks.service": 0o644,
	} {
		if _, e, ok := tree.Find(name); !ok || e.Mode != mode {
			t.Errorf("%s is there: %v, its mode is %v", name, ok, e.Mode)
		}
	}
	_, e, _ := tree.Find("usr/local/bin/entrypoint")
	script, err := e.ReadAll()
	must(t, err)
	if bytes.Contains(script, []byte("host.docker.internal'")) {
		t.Error("the entrypoint still looks up the host")
	}
	must(t, os.MkdirAll(filepath.Join(t.TempDir(), "usr/local/bin"), 0o755))
	other := t.TempDir()
	write(t, filepath.Join(other, "usr/local/bin/entrypoint"), "#!/bin/bash\n")
	if err := addKindFiles(new(image.Tree), other); err == nil {
		t.Error("an entrypoint that looks nothing up was taken")
	}
}

func TestUnitsOfDebianAreTakenAway(t *testing.T) {
	var tree image.Tree
	gone := []string{
		"etc/systemd/system/timers.target.wants/apt.timer", "usr/lib/systemd/system/multi-user.target.wants/getty.target",
		"usr/lib/systemd/system/sockets.target.wants/systemd-udevd-control.socket",
	}
	kept := []string{
		"etc/systemd/system/kubelet.service", "usr/lib/systemd/system/sockets.target.wants/systemd-journald.socket",
		"usr/lib/systemd/system/sysinit.target.wants/systemd-journald.service",
	}
	for _, name := range append(gone, kept...) {
		tree.Link(name, "x")
	}
	withoutUnits(&tree)
	addUnits(&tree)
	names := strings.Join(tree.Names(), "\n") + "\n"
	for _, name := range gone {
		if strings.Contains(names, name+"\n") {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range append(kept, "etc/systemd/system/multi-user.target.wants/kubelet.service", "etc/systemd/system/multi-user.target.wants/kube-proxy.path", "usr/sbin/init") {
		if !strings.Contains(names, name+"\n") {
			t.Errorf("%s is not there", name)
		}
	}
}

const dnsManifest = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns}
spec:
  replicas: 2
  template:
    spec:
      containers:
      - name: coredns
        readinessProbe: {httpGet: {path: /ready}}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, resourceVersion: "0"}
spec: {clusterIP: 10.96.0.10}
`

func TestDNSIsForOneNode(t *testing.T) {
	got, err := forOneNode([]byte(dnsManifest))
	must(t, err)
	for _, line := range []string{"replicas: 1\n", "periodSeconds: 1\n", "path: /ready\n", "name: KUBERNETES_SERVICE_HOST\n", "fieldPath: spec.nodeName\n", "---\n", "name: kube-dns\n", "publishNotReadyAddresses: true\n"} {
		if !strings.Contains(string(got), line) {
			t.Errorf("there is no %q in\n%s", line, got)
		}
	}
	if strings.Contains(string(got), "resourceVersion") {
		t.Errorf("there is a version in\n%s", got)
	}
	for _, wrong := range []string{"", "kind: Service", "kind: Deployment", dnsManifest + dnsManifest, strings.Replace(dnsManifest, "readinessProbe", "livenessProbe", 1)} {
		if _, err := forOneNode([]byte(wrong)); err == nil {
			t.Errorf("this was taken:\n%s", wrong)
		}
	}
}

func TestOurFilesAreFilledIn(t *testing.T) {
	for name, values := range map[string]map[string]string{
		"containerd.toml": {"Pause": "pause-image"}, "storage.yaml": {"Image": "storage-image"},
		"import.toml": {"Root": "root-folder", "State": "state-folder", "Address": "socket-address"},
		"access.yaml": nil, "cni.conflist": nil, "journald.conf": nil, "kubelet.conf": nil,
		"kube-proxy.path": nil, "kube-proxy.service": nil, "kube-proxy.yaml": nil,
	} {
		text, err := file(name, values)
		must(t, err)
		for _, v := range values {
			if !strings.Contains(string(text), v) {
				t.Errorf("%s lacks %s", name, v)
			}
		}
		if len(values) > 0 {
			if _, err := file(name, nil); err == nil {
				t.Errorf("%s was written with its blanks", name)
			}
		}
	}
}

func TestWantedImageIsFoundByName(t *testing.T) {
	wanted := []string{"registry.test/kube-proxy:v1", "registry.test/coredns/coredns:v2", "registry.test:80/pause:3"}
	for name, want := range map[string]string{"coredns": wanted[1], "pause": wanted[2], "etcd": ""} {
		if got, err := find(wanted, name); got != want || (err == nil) != (want != "") {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}
