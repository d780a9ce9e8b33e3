package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelModules is what a node asks of the kernel: layers of images, the pods' network, and the rules that lead to services.
var kernelModules = []string{"overlay", "veth", "bridge", "nf_nat", "nf_tables"}

// kernelRequirements ask for the kernel's parts that a node cannot do without.
func (m Machine) kernelRequirements() []Requirement {
	return []Requirement{
		{
			Name: "kernel/modules",
			Cure: []string{"install the kernel's extra modules (Debian: linux-image-$(uname -r), Ubuntu: linux-modules-extra-$(uname -r)), or boot the kernel that they are of"},
			Check: func(context.Context) (string, error) {
				missing, err := m.missingModules()
				if err != nil || len(missing) == 0 {
					return "", err
				}
				return "the kernel has no " + strings.Join(missing, ", "), nil
			},
		},
		{
			Name: "kernel/cgroups",
			Cure: []string{"boot the kernel with cgroup_enable=memory"},
			Check: func(context.Context) (string, error) {
				missing, err := m.missingControllers()
				if err != nil || len(missing) == 0 {
					return "", err
				}
				return "the kernel's control groups do not control " + strings.Join(missing, ", "), nil
			},
		},
		{
			Name: "kernel/cgroup-v2", Optional: true,
			Cure: []string{"boot with systemd.unified_cgroup_hierarchy=1"},
			Check: func(context.Context) (string, error) {
				_, err := os.Stat(m.path("/sys/fs/cgroup/cgroup.controllers"))
				if errors.Is(err, fs.ErrNotExist) {
					return "control groups are of version 1, which Kubernetes is about to give up", nil
				}
				return "", err
			},
		},
	}
}

// missingModules are those of the kernel's modules that it neither has built in nor could load. Where it does not tell what it
// has built in, nothing is known to be missing.
func (m Machine) missingModules() ([]string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	dir := m.path(filepath.Join("/lib/modules", unix.ByteSliceToString(name.Release[:])))
	known := map[string]bool{}
	for _, list := range []string{"modules.builtin", "modules.dep"} {
		f, err := os.Open(filepath.Join(dir, list))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		// kernel/net/bridge/bridge.ko.zst: kernel/net/802/stp.ko.zst …
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			file, _, _ := strings.Cut(lines.Text(), ":")
			module, _, _ := strings.Cut(filepath.Base(file), ".")
			known[strings.ReplaceAll(module, "-", "_")] = true
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(kernelModules), func(name string) bool {
		_, err := os.Stat(m.path(filepath.Join("/sys/module", name)))
		return known[name] || err == nil
	}), nil
}

// missingControllers are those of memory and cpu, which bound what pods take, that the kernel has switched off.
func (m Machine) missingControllers() ([]string, error) {
	text, err := os.ReadFile(m.path("/proc/cgroups")) // name, hierarchy, groups, enabled
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel with version 2 alone
	}
	if err != nil {
		return nil, err
	}
	on := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[3] == "1" {
			on[fields[0]] = true
		}
	}
	return slices.DeleteFunc([]string{"cpu", "memory"}, func(name string) bool { return on[name] }), nil
}
