package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"platformctl/pkg/command"
)

// kindConfig is kubeadm as it comes, with the two things that our node image and some hosts need: it brings its own network,
// and the host may have cgroup v1 only.
const kindConfig = `kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  disableDefaultCNI: true
kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  failCgroupV1: false
`

// plainConfig takes back what our node image does to start faster: kind's own entrypoint, and a network that is set up when
// the node has been given its range of pod addresses. %[1]s is the folder with both files.
const plainConfig = `containerdConfigPatches:
- |
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/plain.d"
    conf_template = "/etc/containerd/plain.template"
nodes:
- role: control-plane
  extraMounts:
  - {hostPath: %[1]s/entrypoint, containerPath: /usr/local/bin/entrypoint, readOnly: true}
  - {hostPath: %[1]s/plain.template, containerPath: /etc/containerd/plain.template, readOnly: true}
`

// createByKind is the yardstick: kind's own program makes a cluster of our node image. plain takes back the image's short cuts.
func (b *bench) createByKind(ctx context.Context, plain bool) error {
	config := kindConfig
	switch ours := strings.Contains(b.image, "platformctl.local/"); {
	case !ours:
		config = strings.Replace(config, "  disableDefaultCNI: true\n", "  disableDefaultCNI: false\n", 1)
	case plain:
		if err := b.plainFiles(ctx); err != nil {
			return err
		}
		config += fmt.Sprintf(plainConfig, b.temp)
	}
	_, err := b.run.Run(ctx, command.Command{
		Name: b.kind, Stdin: strings.NewReader(config),
		Args: []string{"create", "cluster", "--name", b.yardstick(), "--image", b.image, "--config", "-", "--wait", "3m",
			"--kubeconfig", filepath.Join(b.temp, "kind.kubeconfig")},
	})
	return err
}

func (b *bench) deleteByKind(ctx context.Context) error {
	_, err := b.run.Run(ctx, command.New(b.kind, "delete", "cluster", "--name", b.yardstick(), "--kubeconfig", filepath.Join(b.temp, "kind.kubeconfig")))
	return err
}

// plainFiles writes what plainConfig mounts: the entrypoint from kind's module, and our network with the range left open.
func (b *bench) plainFiles(ctx context.Context) error {
	out, err := b.run.Run(ctx, command.Command{Name: "go", Args: []string{"list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kind"}, Dir: b.checkout})
	if err != nil {
		return fmt.Errorf("find kind's files: %w", err)
	}
	entrypoint, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "images", "base", "files", "usr", "local", "bin", "entrypoint"))
	if err != nil {
		return fmt.Errorf("read kind's entrypoint: %w", err)
	}
	network, err := os.ReadFile(filepath.Join(b.checkout, "pkg", "recipe", "node_files", "cni.conflist"))
	if err != nil {
		return fmt.Errorf("read the node's network: %w", err)
	}
	const ours, open = `"10.244.0.0/24"`, `"{{.PodCIDR}}"`
	if !strings.Contains(string(network), ours) {
		return fmt.Errorf("the node's network has no range %s", ours)
	}
	if err := os.WriteFile(filepath.Join(b.temp, "entrypoint"), entrypoint, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.temp, "plain.template"), []byte(strings.ReplaceAll(string(network), ours, open)), 0o644)
}
