package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

const private = `apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: %s
    server: https://127.0.0.1:40001
  name: kind-platform
contexts:
- context:
    cluster: kind-platform
    user: kind-platform
  name: kind-platform
current-context: kind-platform
kind: Config
users:
- name: kind-platform
  user:
    client-certificate-data: Q0VSVA==
    client-key-data: S0VZ
`

// theirs is a file as people keep it: comments, an order of its own, flow style, a relative path.
const theirs = `# my clusters; do not sort
kind: Config
apiVersion: v1
users:
- name: prod
  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: aws, args: [eks, get-token]}} # via SSO
contexts:
- name: prod
  context: {cluster: prod, user: prod, namespace: shop}
clusters:
# the real thing
- name: prod
  cluster:
    certificate-authority: certs/prod.pem
    server: https://prod.example
current-context: prod
preferences: {colors: true}
`

func merging(t *testing.T) *Cluster {
	t.Helper()
	c := newCluster(t, &command.Fake{})
	renew(t, c, "Q0E=")
	return c
}

// renew gives the cluster another certificate authority, as a new creation does.
func renew(t *testing.T, c *Cluster, ca string) {
	t.Helper()
	write(t, c.KubeconfigPath(), fmt.Sprintf(private, ca), 0o600)
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func noLocks(t *testing.T, dir string) {
	t.Helper()
	for _, pattern := range []string{"*.lock", ".*"} {
		left, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(left) != 0 {
			t.Errorf("left behind: %v (%v)", left, err)
		}
	}
}

func TestContextComesAndGoesAndTheRestStays(t *testing.T) {
	c := merging(t)
	dir := t.TempDir()
	real := filepath.Join(dir, "real-config")
	write(t, real, theirs, 0o640)
	link := filepath.Join(dir, "config")
	if err := os.Symlink("real-config", link); err != nil {
		t.Fatal(err)
	}
	u := UserFiles{Explicit: link}

	if why, err := c.ContextMissing(t.Context(), u); err != nil || why == "" {
		t.Errorf("before: %q, %v", why, err)
	}
	change, err := c.MergeContext(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Change{Context: "kind-platform", Files: []string{link}}, change); diff != "" {
		t.Errorf("it said it did something else (-want +got):\n%s", diff)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the symbolic link is gone: %v, %v", info, err)
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode changed: %v, %v", info, err)
	}
	merged := read(t, real)
	for _, line := range strings.Split(strings.TrimSpace(theirs), "\n") {
		if !strings.Contains(merged, line+"\n") {
			t.Errorf("lost: %s", line)
		}
	}
	cfg, err := clientcmd.LoadFromFile(real)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.CurrentContext != "prod" || cfg.Contexts["kind-platform"].AuthInfo != "kind-platform" ||
		cfg.Clusters["kind-platform"].Server != "https://127.0.0.1:40001" || string(cfg.AuthInfos["kind-platform"].ClientKeyData) != "KEY" {
		t.Errorf("kubectl would read %+v", cfg)
	}

	if why, err := c.ContextMissing(t.Context(), u); err != nil || why != "" {
		t.Errorf("after: %q, %v", why, err)
	}
	if change, err := c.MergeContext(t.Context(), u); err != nil || len(change.Files) != 0 {
		t.Errorf("the second time it changed %+v, %v", change, err)
	}

	change, err = c.RemoveContext(t.Context())
	if err != nil || len(change.Files) != 1 || change.Current {
		t.Errorf("removing: %+v, %v", change, err)
	}
	if diff := cmp.Diff(theirs, read(t, real)); diff != "" {
		t.Errorf("the file is not what it was (-want +got):\n%s", diff)
	}
	if change, err := c.RemoveContext(t.Context()); err != nil || len(change.Files) != 0 {
		t.Errorf("removing twice: %+v, %v", change, err)
	}
	noLocks(t, dir)
}

func TestFirstContextBecomesCurrentAndItsFileGoesWithIt(t *testing.T) {
	c := merging(t)
	home := t.TempDir()
	change, err := c.MergeContext(t.Context(), UserFiles{Home: home})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(home, ".kube", "config")
	if diff := cmp.Diff(Change{Context: "kind-platform", Files: []string{path}, Current: true}, change); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a new file: %v, %v", info, err)
	}
	cfg, err := clientcmd.LoadFromFile(path)
	if err != nil || cfg.CurrentContext != "kind-platform" {
		t.Errorf("kubectl would read %+v, %v", cfg, err)
	}
	change, err = c.RemoveContext(t.Context())
	if err != nil || !change.Current {
		t.Errorf("removing: %+v, %v", change, err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file that was ours alone is still there: %v", err)
	}
	noLocks(t, filepath.Dir(path))
}

func TestSeveralFiles(t *testing.T) {
	c := merging(t)
	dir := t.TempDir()
	missing, first, second := filepath.Join(dir, "missing"), filepath.Join(dir, "first"), filepath.Join(dir, "second")
	write(t, first, "apiVersion: v1\nkind: Config\n", 0o600)
	write(t, second, theirs, 0o600)
	list := strings.Join([]string{missing, "", first, second, first}, string(filepath.ListSeparator))

	change, err := c.MergeContext(t.Context(), UserFiles{List: list, Home: "/nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	// The first that exists takes it; another names the current context.
	if diff := cmp.Diff(Change{Context: "kind-platform", Files: []string{first}}, change); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := read(t, second); got != theirs {
		t.Errorf("the other file changed:\n%s", got)
	}

	// What a file defines already is changed where it stands, and a namespace that the user gave it stays.
	renew(t, c, "TkVX")
	write(t, first, strings.Replace(read(t, first), "cluster: kind-platform", "cluster: kind-platform\n    namespace: apps", 1), 0o600)
	list = strings.Join([]string{second, first}, string(filepath.ListSeparator))
	if change, err = c.MergeContext(t.Context(), UserFiles{List: list}); err != nil || len(change.Files) != 1 || change.Files[0] != first {
		t.Errorf("a new certificate: %+v, %v", change, err)
	}
	cfg, err := clientcmd.LoadFromFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if string(cfg.Clusters["kind-platform"].CertificateAuthorityData) != "NEW" || cfg.Contexts["kind-platform"].Namespace != "apps" {
		t.Errorf("kubectl would read %+v", cfg)
	}

	none := filepath.Join(dir, "a", "x") + string(filepath.ListSeparator) + filepath.Join(dir, "b", "y")
	if change, err = c.MergeContext(t.Context(), UserFiles{List: none}); err != nil || len(change.Files) != 1 || change.Files[0] != filepath.Join(dir, "b", "y") {
		t.Errorf("where none exists the last is made: %+v, %v", change, err)
	}

	files, err := c.ContextFiles()
	if err != nil || len(files) != 2 {
		t.Errorf("recorded: %v, %v", files, err)
	}
	if change, err = c.RemoveContext(t.Context()); err != nil || len(change.Files) != 2 {
		t.Errorf("removing: %+v, %v", change, err)
	}
}

func TestWhatAnotherToolPutThereIsLeft(t *testing.T) {
	c := merging(t)
	path := filepath.Join(t.TempDir(), "config")
	if _, err := c.MergeContext(t.Context(), UserFiles{Explicit: path}); err != nil {
		t.Fatal(err)
	}
	another := fmt.Sprintf(private, "T1RIRVI=")
	write(t, path, another, 0o600)
	change, err := c.RemoveContext(t.Context())
	if err != nil || len(change.Files) != 0 || len(change.Left) != 1 {
		t.Errorf("removing: %+v, %v", change, err)
	}
	if got := read(t, path); got != another {
		t.Errorf("it was changed:\n%s", got)
	}
}

func TestUnusableFilesAreNamedAndLeftAlone(t *testing.T) {
	c := merging(t)
	for name, test := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"read-only":     {theirs, 0o400, "read-only"},
		"broken YAML":   {"clusters:\n- name: a\n b: c\n", 0o600, "line 2"},
		"two documents": {theirs + "---\n" + theirs, 0o600, "more than one"},
		"a list":        {"- a\n- b\n", 0o600, "no mapping"},
		"no list":       {"clusters: {a: b}\n", 0o600, "clusters is no list"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "config")
			write(t, path, test.content, test.mode)
			_, err := c.MergeContext(t.Context(), UserFiles{Explicit: path})
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), test.want) || !strings.Contains(fault.CureOf(err), "--no-kubeconfig") {
				t.Errorf("MergeContext = %v, cure %q", err, fault.CureOf(err))
			}
			if got := read(t, path); got != test.content {
				t.Errorf("it was changed:\n%s", got)
			}
			noLocks(t, dir)
		})
	}
}

func TestLocksOfOthersAreRespectedAndOfTheDeadRemoved(t *testing.T) {
	c := merging(t)
	path := filepath.Join(t.TempDir(), "config")
	u := UserFiles{Explicit: path}

	write(t, path+".lock", "", 0o600) // kubectl's
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(context.DeadlineExceeded)
	if change, err := c.MergeContext(ctx, u); err == nil || len(change.Files) != 0 {
		t.Errorf("while kubectl holds it: %+v, %v", change, err)
	}
	if _, err := os.Stat(path + ".lock"); err != nil {
		t.Errorf("kubectl's lock: %v", err)
	}

	dead := exec.CommandContext(t.Context(), "true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path + ".lock"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fmt.Sprintf("platformctl %d", dead.Process.Pid), path+".lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.MergeContext(t.Context(), u); err != nil {
		t.Errorf("after a killed run: %v", err)
	}
	noLocks(t, filepath.Dir(path))
}

// A lock that names nobody yet would be somebody's for ever, if we were killed just then.
func TestOurLockNamesUsFromItsFirstInstant(t *testing.T) {
	f, err := openKubefile(filepath.Join(t.TempDir(), "config"))
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := f.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if holder, err := os.Readlink(f.real + ".lock"); err != nil || holder != fmt.Sprintf("platformctl %d", os.Getpid()) {
		t.Errorf("the lock is a link to %q: %v", holder, err)
	}
	// This is how kubectl locks.
	if l, err := os.OpenFile(f.real+".lock", os.O_CREATE|os.O_EXCL, 0); !errors.Is(err, fs.ErrExist) {
		t.Errorf("kubectl would have got the lock too: %v, %v", l, err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
	noLocks(t, filepath.Dir(f.real))
}

func TestOddButEmptyFilesAreFilled(t *testing.T) {
	c := merging(t)
	for name, content := range map[string]string{
		"empty":     "",
		"comment":   "# nothing yet\n",
		"null":      "null\n",
		"null list": "apiVersion: v1\nkind: Config\nclusters: null\ncontexts: []\nusers: null\ncurrent-context: \"\"\n",
		"json":      `{"apiVersion":"v1","kind":"Config","clusters":[],"contexts":[],"users":[]}`,
	} {
		path := filepath.Join(t.TempDir(), "config")
		write(t, path, content, 0o600)
		if _, err := c.MergeContext(t.Context(), UserFiles{Explicit: path}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		cfg, err := clientcmd.LoadFromFile(path)
		if err != nil || cfg.CurrentContext != "kind-platform" || len(cfg.Clusters) != 1 || len(cfg.AuthInfos) != 1 {
			t.Errorf("%s: kubectl would read %+v, %v\n%s", name, cfg, err, read(t, path))
		}
	}
}
