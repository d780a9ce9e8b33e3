package recipe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"platformctl/pkg/image"
)

// fill turns Debian's root file system into the node's.
func (n *node) fill(ctx context.Context, tree, built *image.Tree, kindFiles, tools, content string, wanted []string) error {
	withoutUnits(tree)
	if err := addKindFiles(tree, kindFiles); err != nil {
		return fmt.Errorf("add kind's files: %w", err)
	}
	if err := n.addPrograms(tree, built, content); err != nil {
		return fmt.Errorf("add the node's programs: %w", err)
	}
	addUnits(tree)
	if err := n.addConfiguration(ctx, tree, tools, wanted); err != nil {
		return fmt.Errorf("add the node's configuration: %w", err)
	}
	return nil
}

// withoutUnits takes away what Debian's packages start at boot: a container has its hardware, its file systems and its
// network already. kind's base image does the same.
func withoutUnits(tree *image.Tree) {
	for _, pattern := range []string{
		"usr/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
		"usr/lib/systemd/system/multi-user.target.wants/*",
		"usr/lib/systemd/system/local-fs.target.wants/*",
		"usr/lib/systemd/system/sockets.target.wants/*udev*",
		"usr/lib/systemd/system/sockets.target.wants/*initctl*",
		"usr/lib/systemd/system/basic.target.wants/*",
		"etc/systemd/system/*.wants/*",
	} {
		for _, name := range tree.Names() {
			if ok, err := path.Match(pattern, name); err == nil && ok {
				tree.Remove(name)
			}
		}
	}
}

// lookUp is what kind's entrypoint asks the DNS first for the host's address. Offline it runs into its time-out of five
// seconds; the gateway, which the entrypoint takes then, is what we want anyway.
const lookUp = "timeout 5 getent ahostsv4 'host.docker.internal'"

// addKindFiles adds what kind's base image has beside packages, from kind's own module.
func addKindFiles(tree *image.Tree, kindFiles string) error {
	err := filepath.WalkDir(kindFiles, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(kindFiles, at)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644) // the module cache has them read-only
		if dir := path.Dir(name); dir == "kind/bin" || dir == "usr/local/bin" {
			mode = 0o755
		}
		return tree.File(name, mode, at)
	})
	if err != nil {
		return err
	}
	_, entrypoint, ok := tree.Find("usr/local/bin/entrypoint")
	if !ok {
		return errors.New("there is no entrypoint among them")
	}
	script, err := entrypoint.ReadAll()
	if err != nil {
		return err
	}
	if bytes.Count(script, []byte(lookUp)) != 1 {
		return fmt.Errorf("the entrypoint does not look up the host as it did: %q", lookUp)
	}
	tree.Bytes("usr/local/bin/entrypoint", 0o755, bytes.Replace(script, []byte(lookUp), []byte("true"), 1))
	return nil
}

// addPrograms adds the programs and, in /var/lib/containerd, the pods' images. kubenode is stored once, in the images'
// layer, and the node's own kubelet, containerd and the rest are links into that.
func (n *node) addPrograms(tree, built *image.Tree, content string) error {
	for program, folder := range map[string]string{
		"containerd-shim-runc-v2": "usr/local/bin",
		"host-local":              "opt/cni/bin", "loopback": "opt/cni/bin", "portmap": "opt/cni/bin", "ptp": "opt/cni/bin",
	} {
		_, e, ok := built.Find(program)
		if !ok {
			return fmt.Errorf("%s is not among them", program)
		}
		tree.Put(path.Join(folder, program), e)
	}
	const store = "var/lib/containerd"
	if err := tree.Folder(store, content); err != nil {
		return err
	}
	at := ""
	for _, name := range tree.Names() {
		if ok, err := path.Match(store+"/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/usr/local/bin/kubenode", name); err == nil && ok {
			if at != "" {
				return fmt.Errorf("containerd unpacked the layer twice, as %s and %s", at, name)
			}
			at = name
		}
		// Each containerd has an id and leftovers of its own.
		if name == store+"/io.containerd.grpc.v1.introspection/uuid" || strings.HasPrefix(name, store+"/tmpmounts/") {
			tree.Remove(name)
		}
	}
	if at == "" {
		return errors.New("containerd did not unpack the layer")
	}
	tree.Link("usr/local/bin/kubenode", "/"+at)
	for _, name := range []string{"containerd", "ctr", "kube-proxy"} {
		tree.Link("usr/local/bin/"+name, "kubenode")
	}
	for _, name := range []string{"kubelet", "kubeadm", "kubectl"} {
		tree.Link("usr/bin/"+name, "../local/bin/kubenode")
	}
	return nil
}

// addUnits has systemd start what a node runs.
func addUnits(tree *image.Tree) {
	tree.Link("usr/sbin/init", "/usr/lib/systemd/systemd")
	for _, unit := range []string{"kubelet", "containerd", "undo-mount-hacks"} {
		tree.Link("etc/systemd/system/multi-user.target.wants/"+unit+".service", "/etc/systemd/system/"+unit+".service")
	}
	tree.Link("etc/systemd/system/multi-user.target.wants/kube-proxy.path", "/etc/systemd/system/kube-proxy.path")
	tree.Link("etc/systemd/system/systemd-binfmt.service", "/dev/null")
}

// addConfiguration adds what the node's programs read, and what kind applies to a new cluster.
func (n *node) addConfiguration(ctx context.Context, tree *image.Tree, tools string, wanted []string) error {
	pause, err := find(wanted, "pause")
	if err != nil {
		return err
	}
	spec, err := n.runtimeSpec(ctx, tools)
	if err != nil {
		return err
	}
	manifests, err := n.manifests(ctx, tools)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		at, name string
		mode     fs.FileMode
		values   map[string]string
	}{
		{"etc/containerd/config.toml", "containerd.toml", 0o644, map[string]string{"Pause": pause}},
		{"etc/cni/net.d/10-platform.conflist", "cni.conflist", 0o644, nil},
		{"etc/systemd/journald.conf.d/10-node.conf", "journald.conf", 0o644, nil},
		{"usr/local/bin/begin-content", "begin-content.sh", 0o755, nil},
		{"etc/systemd/system/containerd.service.d/10-content.conf", "containerd.conf", 0o644, nil},
		{"etc/systemd/system/kubelet.service.d/20-after-containerd.conf", "kubelet.conf", 0o644, nil},
		{"etc/systemd/system/kube-proxy.path", "kube-proxy.path", 0o644, nil},
		{"etc/systemd/system/kube-proxy.service", "kube-proxy.service", 0o644, nil},
		{"etc/kubernetes-proxy.yaml", "kube-proxy.yaml", 0o644, nil},
	} {
		content, err := file(f.name, f.values)
		if err != nil {
			return err
		}
		tree.Bytes(f.at, f.mode, content)
	}
	tree.Bytes("etc/containerd/cri-base.json", 0o644, spec)
	tree.Bytes("kind/version", 0o644, []byte(n.version+"\n"))
	// kind applies these two; the network needs no daemon here, and DNS comes with the storage because kubeadm's own
	// addon, with two replicas, is left out.
	tree.Bytes("kind/manifests/default-cni.yaml", 0o644, []byte("\n"))
	tree.Bytes("kind/manifests/default-storage.yaml", 0o644, manifests)
	tree.Dir("etc/kubernetes/manifests", 0o755, 0, 0)
	return nil
}

// runtimeSpec is what containers start from: containerd's own, without the limits that a host may not let us raise.
func (n *node) runtimeSpec(ctx context.Context, tools string) ([]byte, error) {
	out, err := n.kitchen.run.Run(ctx, n.tool(tools, "ctr", "oci", "spec"))
	if err != nil {
		return nil, fmt.Errorf("ask containerd what containers start from: %w", err)
	}
	var spec map[string]any
	if err := json.Unmarshal(out, &spec); err != nil {
		return nil, fmt.Errorf("read what containers start from: %w", err)
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		return nil, errors.New("what containers start from has no process")
	}
	delete(process, "rlimits")
	return json.MarshalIndent(spec, "", "  ")
}
