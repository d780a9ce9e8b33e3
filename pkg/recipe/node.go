package recipe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/modfile"
	"golang.org/x/sync/errgroup"

	"platformctl/pkg/image"
)

// node is the node's image while it is made: what kindest/node is elsewhere. One Go program is everything that runs on it
// (kubenode, a module of its own beside this file), Debian gives it systemd and the network's tools, and kind's module
// the files that kind expects.
type node struct {
	kitchen *Kitchen
	work    string
	version string // of Kubernetes, "v1.37.2"
}

// kindModule has the files of kind's own base image.
const kindModule = "sigs.k8s.io/kind"

// Node is the recipe for the image of the cluster's node.
func (k *Kitchen) Node() *Recipe {
	return &Recipe{
		kitchen: k, name: "node",
		inputs: func(ctx context.Context) (string, []string, error) {
			version, err := requirement(k.module(), "k8s.io/kubernetes")
			if err != nil {
				return "", nil, err
			}
			kind, err := requirement(k.project, kindModule)
			if err != nil {
				return "", nil, err
			}
			programs, err := k.programsKey(ctx, version)
			if err != nil {
				return "", nil, err
			}
			written, err := sources("node")
			return version, []string{programs, nodeRoot().key(), kind, written}, err
		},
		make: func(ctx context.Context, work, ref string, note func(Note)) (image.Archive, error) {
			version, err := requirement(k.module(), "k8s.io/kubernetes")
			if err != nil {
				return image.Archive{}, err
			}
			return (&node{kitchen: k, work: work, version: version}).build(ctx, ref, note)
		},
	}
}

// module is the folder of kubenode's module. It is read from the checkout: Go cannot embed a folder with a go.mod.
func (k *Kitchen) module() string { return filepath.Join(k.project, "pkg", "recipe", "kubenode") }

// nodeRoot is what kind's base image has of Debian, less what a cluster of one node never uses.
func nodeRoot() debian {
	return debian{name: "node", packages: []string{
		"systemd", "conntrack", "iptables", "nftables", "iproute2", "ethtool", "util-linux", "mount", "kmod",
		"libseccomp2", "jq", "procps", "crun", "ca-certificates", "bash", "hostname",
	}}
}

// requirement is the version of a module that the go.mod in the folder dir requires.
func requirement(dir, module string) (string, error) {
	file := filepath.Join(dir, "go.mod")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	parsed, err := modfile.ParseLax(file, text, nil)
	if err != nil {
		return "", err
	}
	for _, r := range parsed.Require {
		if r.Mod.Path == module {
			return r.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("%s requires no %s", file, module)
}

// build makes the parts, then puts them together.
func (n *node) build(ctx context.Context, ref string, note func(Note)) (image.Archive, error) {
	var root, programs image.CacheEntry
	var kindFiles string
	// One waits for a mirror and a disk, the other for processors; the third is a look-up.
	parts, partsCtx := errgroup.WithContext(ctx)
	parts.Go(func() (err error) {
		root, err = n.kitchen.root(partsCtx, nodeRoot(), note)
		return err
	})
	parts.Go(func() (err error) {
		programs, err = n.kitchen.programs(partsCtx, n.version, note)
		return err
	})
	parts.Go(func() error {
		dir, err := n.kitchen.moduleFolder(partsCtx, n.kitchen.project, kindModule)
		kindFiles = filepath.Join(dir, "images", "base", "files")
		return err
	})
	if err := parts.Wait(); err != nil {
		return image.Archive{}, err
	}
	var debian, built image.Tree
	if err := debian.Tar(".", root.Path, keepOfDebian); err != nil {
		return image.Archive{}, err
	}
	if err := built.Tar(".", programs.Path, nil); err != nil {
		return image.Archive{}, err
	}
	note(Note{Text: "importing the images of Kubernetes' own pods"})
	tools, err := n.unpackTools(&built)
	if err != nil {
		return image.Archive{}, fmt.Errorf("unpack the node's programs: %w", err)
	}
	wanted, err := n.wantedImages(ctx, tools)
	if err != nil {
		return image.Archive{}, err
	}
	archive, err := n.packPods(ctx, wanted, &built, &debian)
	if err != nil {
		return image.Archive{}, err
	}
	content, err := n.importPods(ctx, tools, archive)
	if err != nil {
		return image.Archive{}, err
	}
	note(Note{Text: "packing the image"})
	if err := n.fill(ctx, &debian, &built, kindFiles, tools, content, wanted); err != nil {
		return image.Archive{}, err
	}
	layer, err := image.WriteLayer(ctx, filepath.Join(n.work, "layer.tar"), &debian)
	if err != nil {
		return image.Archive{}, err
	}
	return image.Pack(ctx, filepath.Join(n.work, "image.tar"), image.Image{Ref: ref, Layer: layer, Config: image.Config{
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=docker"},
		Entrypoint: []string{"/usr/local/bin/entrypoint", "/sbin/init"},
		StopSignal: "SIGRTMIN+3", // systemd's word for halt
	}})
}
