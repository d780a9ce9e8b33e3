package recipe

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"platformctl/pkg/image"
)

// wantedImages are the names under which kubeadm looks for the images of Kubernetes' own pods.
func (n *node) wantedImages(ctx context.Context, tools string) ([]string, error) {
	out, err := n.kitchen.run.Run(ctx, n.tool(tools, "kubeadm", "config", "images", "list", "--kubernetes-version="+n.version))
	if err != nil {
		return nil, fmt.Errorf("ask kubeadm which images it wants: %w", err)
	}
	return strings.Fields(string(out)), nil
}

// find is the wanted image whose name, without registry and version, is name.
func find(wanted []string, name string) (string, error) {
	for _, ref := range wanted {
		if base, _, _ := strings.Cut(path.Base(ref), ":"); base == name {
			return ref, nil
		}
	}
	return "", fmt.Errorf("kubeadm wants no image %q any more, only %s", name, strings.Join(wanted, ", "))
}

// storageImage is the name under which our storage provisioner's pod finds its image.
func (n *node) storageImage() string { return "platformctl.local/kubenode:" + n.version }

// packPods packs the images of Kubernetes' own pods into an archive: one layer, with all programs in it, under as many
// names as there are images. kube-proxy also needs nft and iptables, and those their libraries.
func (n *node) packPods(ctx context.Context, wanted []string, built, debian *image.Tree) (string, error) {
	var pods image.Tree
	for _, program := range []string{"kubenode", "pause"} {
		_, e, ok := built.Find(program)
		if !ok {
			return "", fmt.Errorf("the node's programs lack %s", program)
		}
		pods.Put("usr/local/bin/"+program, e)
	}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "coredns", "local-path-provisioner"} {
		pods.Link("usr/local/bin/"+name, "kubenode")
	}
	pods.Bytes("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/usr/sbin/nologin\n"))
	pods.Dir("tmp", 0o777|sticky, 0, 0)
	pods.Dir("run", 0o755, 0, 0)
	pods.Dir("var", 0o755, 0, 0)
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		pods.Dir("usr/"+name, 0o755, 0, 0)
		pods.Link(name, "usr/"+name)
	}
	if err := firewallTools(&pods, debian); err != nil {
		return "", fmt.Errorf("collect what kube-proxy needs: %w", err)
	}
	layer, err := image.WriteLayer(ctx, filepath.Join(n.work, "pods.layer.tar"), &pods)
	if err != nil {
		return "", err
	}
	images := make([]image.Image, 0, len(wanted)+1)
	for _, ref := range append([]string{n.storageImage()}, wanted...) {
		config := image.Config{Env: []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin"}}
		// kubeadm's manifests name the command; only these two rely on the image's.
		for _, name := range []string{"coredns", "pause"} {
			if at, err := find(wanted, name); err != nil {
				return "", err
			} else if at == ref {
				config.Entrypoint = []string{"/usr/local/bin/" + name}
			}
		}
		images = append(images, image.Image{Ref: ref, Config: config, Layer: layer})
	}
	archive, err := image.Pack(ctx, filepath.Join(n.work, "pods.tar"), images...)
	return archive.Path, err
}

// firewallTools copies nft and iptables with what they load.
func firewallTools(pods, debian *image.Tree) error {
	needed := []string{"usr/sbin/nft", "usr/sbin/xtables-nft-multi"}
	for _, name := range debian.Names() {
		if path.Base(path.Dir(name)) == "xtables" && path.Ext(name) == ".so" {
			needed = append(needed, name) // iptables' own plugins
		}
	}
	for _, name := range []string{"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"} {
		pods.Link("usr/sbin/"+name, "xtables-nft-multi")
	}
	copied := map[string]bool{}
	for len(needed) > 0 {
		name := needed[0]
		needed = needed[1:]
		if copied[name] {
			continue
		}
		copied[name] = true
		_, e, ok := debian.Find(name)
		if !ok {
			return fmt.Errorf("the root file system has no %s", name)
		}
		pods.Put(name, e)
		libraries, err := loads(e, debian)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		needed = append(needed, libraries...)
	}
	return nil
}

// libraryFolders are where Debian keeps libraries on amd64.
var libraryFolders = [...]string{"usr/lib/x86_64-linux-gnu", "usr/lib"}

// loads lists the loader and the libraries that a program or library names, as paths in the tree.
func loads(e image.Entry, tree *image.Tree) (_ []string, err error) {
	content, err := e.ReadAll()
	if err != nil {
		return nil, err
	}
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	libraries, err := file.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, library := range libraries {
		at := ""
		for _, folder := range libraryFolders {
			if _, _, ok := tree.Find(path.Join(folder, library)); ok && at == "" {
				at = path.Join(folder, library)
			}
		}
		if at == "" {
			return nil, fmt.Errorf("it needs %s, which is not there", library)
		}
		paths = append(paths, at)
	}
	if loader := file.Section(".interp"); loader != nil {
		name, err := loader.Data()
		if err != nil {
			return nil, err
		}
		// /lib64 is a link to /usr/lib64 in both trees.
		paths = append(paths, "usr"+strings.TrimRight(string(name), "\x00"))
	}
	return paths, nil
}
