package recipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"platformctl/pkg/command"
	"platformctl/pkg/image"
)

// nodeFlags are the flags of the node's programs beside those of all others. Kubernetes' version is given to the linker;
// without it a node would report v0.0.0-master.
func nodeFlags(version string) []string {
	const at = "k8s.io/component-base/version."
	numbers := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	set := map[string]string{
		"gitVersion": version, "gitMajor": numbers[0], "gitMinor": numbers[1], "gitTreeState": "clean", "gitCommit": version,
		"buildDate": "2026-11-24T00:00:00Z", // fixed: the same sources are the same program
	}
	words := []string{"-s", "-w"}
	for _, name := range []string{"gitVersion", "gitMajor", "gitMinor", "gitTreeState", "gitCommit", "buildDate"} {
		words = append(words, "-X", at+name+"="+set[name])
	}
	return []string{"-tags=no_btrfs,no_devmapper,no_zfs", "-ldflags=" + strings.Join(words, " ")}
}

// programsKey names the node's programs in the cache.
func (k *Kitchen) programsKey(ctx context.Context, version string) (string, error) {
	compiler, err := k.goVersion(ctx, k.module())
	if err != nil {
		return "", err
	}
	files, err := hashFolder(k.module())
	if err != nil {
		return "", err
	}
	inputs := append(append([]string{compiler, files, image.Format}, compiled()...), goEnv("amd64")...)
	for _, e := range edits() {
		inputs = append(inputs, e.module, e.file, e.from, e.to)
	}
	return "node-programs-" + digest(append(inputs, nodeFlags(version)...)...), nil
}

// programs returns the node's programs, a tar of kubenode, pause, the shim and the network plugins, from the cache or
// from the compiler: seven minutes on two cores where nothing is compiled yet.
func (k *Kitchen) programs(ctx context.Context, version string, note func(Note)) (image.CacheEntry, error) {
	key, err := k.programsKey(ctx, version)
	if err != nil {
		return image.CacheEntry{}, err
	}
	return k.part(ctx, key, func(ctx context.Context, work string) (image.Made, error) {
		note(Note{Text: "compiling the node's programs"})
		bin := filepath.Join(work, "bin")
		if err := os.Mkdir(bin, 0o755); err != nil {
			return image.Made{}, err
		}
		modfile, err := k.edited(ctx, work)
		if err != nil {
			return image.Made{}, err
		}
		args := append(append(compiled(), nodeFlags(version)...), "-modfile="+modfile, "-v", "-o", bin+"/", ".", "./pause", "tool")
		c := k.golang(k.module(), "amd64", args...)
		var packages int64
		c.Stderr = &lines{each: func(line string) {
			if !strings.HasPrefix(line, "go: downloading ") {
				packages++
				line = "compiling " + line
			}
			note(Note{Text: line, Current: packages})
		}}
		if _, err := k.run.Run(ctx, c); err != nil {
			return image.Made{}, wrap(ctx, err, "look whether the Go module proxy answers (go env GOPROXY) and the disk has room (df), then run it again", "compile the node's programs")
		}
		var tree image.Tree
		if err := tree.Folder(".", bin); err != nil {
			return image.Made{}, fmt.Errorf("collect the node's programs: %w", err)
		}
		file := filepath.Join(work, "programs.tar")
		_, err = image.WriteLayer(ctx, file, &tree)
		return image.Made{Path: file}, err
	})
}

// unpackTools lays those of the node's programs that the build itself runs into a folder, which it returns.
func (n *node) unpackTools(built *image.Tree) (dir string, err error) {
	dir = filepath.Join(n.work, "tools")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	_, e, ok := built.Find("kubenode")
	if !ok {
		return "", errors.New("there is no kubenode among them")
	}
	from, err := e.Open()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := os.OpenFile(filepath.Join(dir, "kubenode"), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		return "", err
	}
	for _, name := range []string{"containerd", "ctr", "kubeadm"} {
		if err := os.Symlink("kubenode", filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// tool is a call of one of the node's programs on this machine. It works in the build's folder and has no cluster.
func (n *node) tool(tools, name string, args ...string) command.Command {
	c := command.New(filepath.Join(tools, name), args...)
	c.Dir, c.Env = n.work, []string{"KUBECONFIG=/dev/null"}
	return c
}
