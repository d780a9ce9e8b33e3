package recipe

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// edit is one place in a file of Kubernetes' module that is compiled otherwise than it stands there.
type edit struct{ file, from, to string }

// edits are for what Kubernetes has no setting for. The API server of our node is started by the kubelet, which asks it for the node
// long before it answers, or in the moment in which it does not know yet what a kubelet may ask. What is refused is asked again after
// 0.8 to 1.6 seconds, then 1.6 to 3.2; and only once a second the kubelet looks whether it knows its node, and then asks for its
// pods. All of that the machine is idle, at each start of a node. Elsewhere these times spare a server that has many nodes.
func edits() []edit {
	const again = "50 * time.Millisecond"
	return []edit{{
		file: "pkg/kubelet/config/apiserver.go",
		from: "const WaitForAPIServerSyncPeriod = 1 * time.Second\n",
		to:   "const WaitForAPIServerSyncPeriod = " + again + "\n",
	}, {
		file: "pkg/kubelet/kubelet.go",
		from: "\t\tkubeInformers.Start(wait.NeverStop)\n\t\tlogger.Info(\"Attempting to sync node with API server\")\n",
		to: `		go func() {
			ours := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, string(nodeName)).String()}
			for ctx.Err() == nil {
				if _, err := kubeDeps.KubeClient.CoreV1().Nodes().List(ctx, ours); err == nil {
					break
				}
				time.Sleep(` + again + `)
			}
			kubeInformers.Start(wait.NeverStop)
		}()
		logger.Info("Attempting to sync node with API server")
`,
	}}
}

// in returns content with the edit made. Where its place is not there, or is not the only one, Kubernetes has changed.
func (e edit) in(content []byte) ([]byte, error) {
	if n := bytes.Count(content, []byte(e.from)); n != 1 {
		return nil, fmt.Errorf("what is edited in Kubernetes' %s stands there %d times: %s", e.file, n, strconv.Quote(e.from))
	}
	return bytes.Replace(content, []byte(e.from), []byte(e.to), 1), nil
}

// edited makes a module file in work, beside what it names: the node's module, but with Kubernetes' module as the edits make it.
// The go command's own overlay does not reach into the cache of modules.
func (k *Kitchen) edited(ctx context.Context, work string) (modfile string, err error) {
	const kubernetes = "k8s.io/kubernetes"
	module, err := k.moduleFolder(ctx, k.module(), kubernetes)
	if err != nil {
		return "", err
	}
	changed := map[string][]byte{}
	for _, e := range edits() {
		content, err := os.ReadFile(filepath.Join(module, e.file))
		if err != nil {
			return "", fmt.Errorf("edit Kubernetes: %w", err)
		}
		if changed[e.file], err = e.in(content); err != nil {
			return "", err
		}
	}
	copied := filepath.Join(work, "kubernetes")
	if err := shadow(module, copied, ".", changed); err != nil {
		return "", fmt.Errorf("edit Kubernetes: %w", err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(k.module(), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(work, name), content, 0o644)
		}
		if err != nil {
			return "", fmt.Errorf("edit Kubernetes: %w", err)
		}
	}
	modfile = filepath.Join(work, "go.mod")
	_, err = k.run.Run(ctx, k.golang(k.module(), k.machine.arch, "mod", "edit", "-replace="+kubernetes+"="+copied, modfile))
	return modfile, err
}

// shadow makes the folder at below to from the one below from: the changed files, and links to all else.
func shadow(from, to, at string, changed map[string][]byte) error {
	if err := os.Mkdir(filepath.Join(to, at), 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(from, at))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(at, e.Name())
		content, is := changed[name]
		within := false
		for file := range changed {
			within = within || strings.HasPrefix(file, name+string(filepath.Separator))
		}
		switch {
		case is:
			err = os.WriteFile(filepath.Join(to, name), content, 0o644)
		case within:
			err = shadow(from, to, name, changed)
		default:
			err = os.Symlink(filepath.Join(from, name), filepath.Join(to, name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
