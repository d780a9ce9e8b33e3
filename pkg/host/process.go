package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is one process and no later one that got its number.
type process struct {
	pid   int
	start uint64 // clock ticks since boot
	comm  string // the program's name, as the kernel keeps it
}

// process looks up a process by its number; false where there is none, or only its remains.
func (m Machine) process(pid int) (process, bool, error) {
	text, err := os.ReadFile(m.path(fmt.Sprintf("/proc/%d/stat", pid)))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, err
	}
	p, state, err := parseStat(string(text))
	if err != nil {
		return process{}, false, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	// A zombie has ended; on a machine without an init that collects them it would be there for ever.
	return p, state != "Z" && state != "X", nil
}

// alive tells whether p, and not another process of its number, still runs.
func (m Machine) alive(p process) (bool, error) {
	now, ok, err := m.process(p.pid)
	return ok && now.start == p.start, err
}

// parseStat reads a line of /proc/PID/stat: "12 (a name) S 1 …", where the name may hold anything.
func parseStat(line string) (p process, state string, err error) {
	head, name, found := strings.Cut(line, " (")
	end := strings.LastIndex(name, ")")
	if !found || end < 0 {
		return process{}, "", errors.New("it names no program")
	}
	fields := strings.Fields(name[end+1:]) // the third field of the line comes first
	if len(fields) < 20 {
		return process{}, "", errors.New("it is cut short")
	}
	if p.pid, err = strconv.Atoi(head); err != nil {
		return process{}, "", err
	}
	if p.start, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return process{}, "", err
	}
	p.comm = name[:end]
	return p, fields[0], nil
}

// bootID tells one boot of the machine from another: ticks since boot mean nothing across two.
func (m Machine) bootID() (string, error) {
	id, err := os.ReadFile(m.path("/proc/sys/kernel/random/boot_id"))
	return strings.TrimSpace(string(id)), err
}

// readPID looks up the process that a pid file names; false where there is no file, or no such process.
func (m Machine) readPID(file string) (process, bool, error) {
	text, err := os.ReadFile(m.path(file))
	if errors.Is(err, fs.ErrNotExist) {
		return process{}, false, nil
	}
	if err != nil {
		return process{}, false, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return process{}, false, nil // cut short by a crash: it names nobody
	}
	return m.process(pid)
}
