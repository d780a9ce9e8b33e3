package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"platformctl/pkg/command"
)

// diskRequirement measures the disk before anything is begun.
func (m Machine) diskRequirement() Requirement {
	return Requirement{
		Name: "host/disk",
		Cure: []string{
			"make room there; docker system df and platformctl images tell what takes it, go clean -cache frees Go's build cache",
			"or keep the caches elsewhere: PLATFORMCTL_CACHE=FOLDER",
		},
		Check: m.checkDisk,
	}
}

// memoryRequirement measures the memory that a cluster could have.
func (m Machine) memoryRequirement() Requirement {
	memory := Requirement{
		Name:  "host/memory",
		Cure:  []string{"end what else needs memory here, or use a machine that has more"},
		Check: m.checkMemory,
	}
	if m.OS != "linux" {
		// There the engine lives in a machine of its own, and only it knows what that has.
		memory.After = []string{"engine/running"}
		memory.Cure = []string{"give the engine's virtual machine more memory, in the engine's settings"}
	}
	return memory
}

// place is a folder and what must be free where it lies.
type place struct {
	path string
	need uint64
}

func (m Machine) checkDisk(ctx context.Context) (string, error) {
	if m.Needs.Disk == 0 {
		return "", nil
	}
	places := []place{{m.Cache, m.Needs.Disk}}
	if m.Needs.Packages && m.find("go") != "" {
		out, err := m.Run.Run(ctx, command.New("go", "env", "GOCACHE", "GOMODCACHE"))
		if err != nil {
			return "", fmt.Errorf("ask Go where its caches are: %w", err)
		}
		for folder := range strings.Lines(string(out)) {
			places = append(places, place{strings.TrimSpace(folder), m.Needs.Disk})
		}
	}
	data, err := m.dataRoot(ctx)
	if err != nil {
		return "", err
	}
	if data != "" {
		// The engine holds images and containers, never what they are built from.
		places = append(places, place{data, min(m.Needs.Disk, DiskPulled)})
	}
	for _, p := range places {
		free, err := free(m.path(p.path))
		if err != nil {
			return "", fmt.Errorf("measure the space where %s lies: %w", p.path, err)
		}
		if why := diskFault(p, free); why != "" {
			return why, nil
		}
	}
	return "", nil
}

func diskFault(p place, free uint64) string {
	if free >= p.need {
		return ""
	}
	return fmt.Sprintf("%.1f GB are free where %s lies; %.0f GB are needed", float64(free)/1e9, p.path, float64(p.need)/1e9)
}

// dataRoot is the folder in which the engine keeps images and containers, or "" where that is not on this machine.
func (m Machine) dataRoot(ctx context.Context) (string, error) {
	if m.OS != "linux" {
		return "", nil
	}
	// An engine elsewhere is refused, and not waited for here.
	endpoint, err := "", error(nil)
	if m.find("docker") != "" {
		endpoint, err = m.endpoint(ctx)
	}
	if err == nil && strings.HasPrefix(endpoint, "unix://") {
		info, err := m.engineInfo(ctx)
		if err != nil && ctx.Err() != nil {
			return "", err
		}
		if err == nil && info.DockerRootDir != "" {
			if _, err := os.Stat(m.path(info.DockerRootDir)); errors.Is(err, fs.ErrNotExist) {
				return "", nil // an engine in a virtual machine names a folder in there
			}
			return info.DockerRootDir, nil
		}
	}
	settings, err := m.engineSettings()
	if err != nil {
		return "", err
	}
	if root, ok := settings["data-root"].(string); ok {
		return root, nil
	}
	return "/var/lib/docker", nil
}

// free is how many bytes can still be written where path is, or will be; measured at its nearest parent that can be seen.
func free(path string) (uint64, error) {
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(path, &fs)
		if err == nil {
			return fs.Bavail * uint64(fs.Bsize), nil
		}
		parent := filepath.Dir(path)
		hidden := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES)
		if !hidden || parent == path {
			return 0, err
		}
		path = parent
	}
}

func (m Machine) checkMemory(ctx context.Context) (string, error) {
	if m.Needs.Memory == 0 {
		return "", nil
	}
	if m.OS != "linux" {
		info, err := m.engineInfo(ctx)
		if err != nil {
			return "", err
		}
		return memoryFault(info.MemTotal, m.Needs.Memory), nil
	}
	available, err := memAvailable(m.path("/proc/meminfo"))
	if err != nil {
		return "", err
	}
	return memoryFault(available, m.Needs.Memory), nil
}

func memoryFault(available, need uint64) string {
	if available >= need {
		return ""
	}
	return fmt.Sprintf("%.1f GiB of memory are available; %.1f GiB are needed", float64(available)/(1<<30), float64(need)/(1<<30))
}

// memAvailable reads what the kernel thinks can be had without swapping, in bytes.
func memAvailable(meminfo string) (uint64, error) {
	file, err := os.Open(meminfo)
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if amount, ok := strings.CutPrefix(lines.Text(), "MemAvailable:"); ok {
			kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(amount, "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read MemAvailable in %s: %w", meminfo, err)
			}
			return kib << 10, nil
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("%s has no MemAvailable", meminfo)
}
