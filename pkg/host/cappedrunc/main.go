// Command cappedrunc is an OCI runtime for engines before Docker 23 on hosts whose root lacks some capabilities.
//
// Such an engine asks for every capability the kernel knows when a container is privileged, and runc refuses what the
// host cannot give. cappedrunc takes those capabilities out of what the engine asks for and then becomes the real runc.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cappedrunc:", err)
		os.Exit(1)
	}
}

// run edits what args point runc at and replaces this process by runc; it returns only where that fails.
func run(args []string) error {
	if path := request(args); path != "" {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return err
		}
		bound, err := bounding(string(status))
		if err != nil {
			return err
		}
		if err := edit(path, bound); err != nil {
			return fmt.Errorf("limit the capabilities in %s: %w", path, err)
		}
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		// The engine may have been started with a PATH that has no sbin.
		runc = "/usr/sbin/runc"
	}
	return fmt.Errorf("start %s: %w", runc, syscall.Exec(runc, append([]string{"runc"}, args...), os.Environ()))
}

// request is the file in which args tell runc what capabilities a process gets, or "" where they start none: the
// bundle's config.json for a container, the process file for an exec.
func request(args []string) string {
	// Before its command runc has flags of its own; these take a value.
	valued := []string{"--root", "--log", "--log-format", "--criu", "--rootless"}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if slices.Contains(valued, args[0]) && len(args) > 1 {
			args = args[1:]
		}
		args = args[1:]
	}
	if len(args) == 0 {
		return ""
	}
	switch args[0] {
	case "create", "run":
		bundle := option(args[1:], "--bundle", "-b")
		return filepath.Join(bundle, "config.json")
	case "exec":
		return option(args[1:], "--process", "-p")
	}
	return ""
}

// option is the value of a flag that has two names, or "".
func option(args []string, long, short string) string {
	for i, arg := range args {
		if (arg == long || arg == short) && i+1 < len(args) {
			return args[i+1]
		}
		if name, value, ok := strings.Cut(arg, "="); ok && (name == long || name == short) {
			return value
		}
	}
	return ""
}

// bounding reads the capability bounding set from the text of /proc/self/status.
func bounding(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no CapBnd")
}

// edit limits the file at path in place.
func edit(path string, bound uint64) error {
	asked, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	limited, err := limit(asked, bound)
	if err != nil {
		return err
	}
	return os.WriteFile(path, limited, 0o600) // runc's caller made the file: its mode stays
}

// limit takes from a container's config.json, or from an exec's process, the capabilities that are not in bound. All
// else in it stays byte for byte.
func limit(asked []byte, bound uint64) ([]byte, error) {
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(asked, &whole); err != nil {
		return nil, err
	}
	process := whole
	if raw, ok := whole["process"]; ok {
		process = nil
		if err := json.Unmarshal(raw, &process); err != nil {
			return nil, err
		}
	}
	if len(process["capabilities"]) == 0 {
		return asked, nil
	}
	var sets map[string][]string
	if err := json.Unmarshal(process["capabilities"], &sets); err != nil {
		return nil, err
	}
	for name, set := range sets {
		sets[name] = slices.DeleteFunc(set, func(capability string) bool {
			bit := slices.Index(capabilities, strings.TrimPrefix(capability, "CAP_"))
			return bit >= 0 && bound&(1<<bit) == 0
		})
	}
	var err error
	if process["capabilities"], err = json.Marshal(sets); err != nil {
		return nil, err
	}
	if _, ok := whole["process"]; ok {
		if whole["process"], err = json.Marshal(process); err != nil {
			return nil, err
		}
	}
	return json.Marshal(whole)
}

// capabilities by their bit, in the order of the kernel's capability.h.
var capabilities = strings.Fields(`
	CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID
	SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER
	SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
	SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
	MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
	CHECKPOINT_RESTORE`)
