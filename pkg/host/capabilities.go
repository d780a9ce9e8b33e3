package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// greedy tells whether an engine of this version asks for every capability that the kernel knows when a container is
// privileged. From 23 on it asks for those that it has itself.
func greedy(version string) bool {
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	return err == nil && n < 23
}

// lackingCapabilities lists what the kernel knows and the engine cannot give: "CAP_SYS_RESOURCE" in many a machine that is
// itself a container. It reads the engine's own set where the engine is a process of this machine, else that of this process,
// which one started from here would get.
func (m Machine) lackingCapabilities() ([]string, error) {
	last, err := m.readNumber("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return nil, err
	}
	status := "/proc/self/status"
	if engine, ok, err := m.pidFile(); err != nil {
		return nil, err
	} else if ok && engine.comm == "dockerd" {
		status = fmt.Sprintf("/proc/%d/status", engine.pid)
	}
	text, err := os.ReadFile(m.path(status))
	if errors.Is(err, fs.ErrNotExist) {
		text, err = os.ReadFile(m.path("/proc/self/status")) // the engine has just ended
	}
	if err != nil {
		return nil, err
	}
	bound, err := boundingSet(string(text))
	if err != nil {
		return nil, err
	}
	return lacking(bound, last), nil
}

// boundingSet reads CapBnd from the text of a process's status file.
func boundingSet(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, errors.New("a process's status has no CapBnd")
}

// lacking names the capabilities up to the kernel's last that are not in a set.
func lacking(bound uint64, last int) []string {
	// Those that machines are known to lack; the others go by their number.
	names := map[int]string{12: "CAP_NET_ADMIN", 16: "CAP_SYS_MODULE", 17: "CAP_SYS_RAWIO", 21: "CAP_SYS_ADMIN", 22: "CAP_SYS_BOOT",
		24: "CAP_SYS_RESOURCE", 25: "CAP_SYS_TIME", 33: "CAP_MAC_ADMIN", 34: "CAP_SYSLOG", 39: "CAP_BPF"}
	var lacks []string
	for bit := 0; bit <= last && bit < 64; bit++ {
		if bound&(1<<bit) != 0 {
			continue
		}
		name, ok := names[bit]
		if !ok {
			name = fmt.Sprintf("capability %d", bit)
		}
		lacks = append(lacks, name)
	}
	return lacks
}
