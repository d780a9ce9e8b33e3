package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tick is the kernel's unit of CPU time in /proc, USER_HZ.
const tick = 10 * time.Millisecond

// cpu is CPU time by whom it was taken.
type cpu struct {
	all  time.Duration // of the machine
	ours time.Duration // this process's children, the engine, the cluster's node
}

// meter tells how much CPU others took while something ran: what the machine was busy, less our children, the engine (which
// works for us), and the node's container.
type meter struct {
	node  string // the node's container, "" while it is not there
	begin cpu

	mu     sync.Mutex
	inNode time.Duration // the last reading of the node's own counter; it goes away with the node
}

// newMeter begins to count; node is the id of the cluster's node if it is there already.
func newMeter(node string) (*meter, error) {
	m := &meter{node: node}
	m.look()
	begin, err := m.read()
	m.begin = begin
	return m, err
}

// watch reads the node's counter ten times a second until ctx ends, for a node that is deleted meanwhile.
func (m *meter) watch(ctx context.Context) {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		m.look()
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// look reads the node's counter; where it is gone, the last reading stands.
func (m *meter) look() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.node == "" {
		return
	}
	if used, ok := groupCPU(m.node); ok {
		m.inNode = used
	}
}

// foreign is the CPU time that others took since the meter was made. node is the node's id by now.
func (m *meter) foreign(node string) (time.Duration, error) {
	m.mu.Lock()
	if m.node == "" {
		m.node = node
	}
	m.mu.Unlock()
	m.look()
	end, err := m.read()
	if err != nil {
		return 0, err
	}
	// Counters of different grain: a little below nothing is nothing.
	return max(0, (end.all-m.begin.all)-(end.ours-m.begin.ours)), nil
}

func (m *meter) read() (cpu, error) {
	all, err := machineCPU()
	if err != nil {
		return cpu{}, err
	}
	var self, children syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return cpu{}, err
	}
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &children); err != nil {
		return cpu{}, err
	}
	ours := m.engine()
	for _, r := range []syscall.Rusage{self, children} {
		ours += time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return cpu{all: all, ours: ours + m.inNode}, nil
}

// machineCPU is what all of the machine's processors were busy.
func machineCPU() (time.Duration, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	fields := strings.Fields(string(line)) // cpu user nice system idle iowait irq softirq steal …
	if len(fields) < 9 {
		return 0, fmt.Errorf("read /proc/stat: %q", line)
	}
	var ticks int64
	for i, field := range fields[1:9] {
		if i == 3 || i == 4 {
			continue // idle
		}
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// engine is the CPU time of the engine's processes and of those they have waited for. One that ends meanwhile is not counted.
func (m *meter) engine() (sum time.Duration) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0 // the pattern is well formed
	}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(raw), "(")
		name, rest, _ := strings.Cut(rest, ") ")
		switch name {
		case "dockerd", "containerd", "docker-proxy", "containerd-shim", "runc": // a shim has waited for the runc of each exec
		default:
			continue
		}
		if group, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cgroup")); err != nil || strings.Contains(string(group), "docker") {
			continue // the containerd of a node is counted with the node
		}
		fields := strings.Fields(rest) // state is the first, utime the 12th
		for i := 11; i < 15 && i < len(fields); i++ {
			if n, err := strconv.ParseInt(fields[i], 10, 64); err == nil {
				sum += time.Duration(n) * tick
			}
		}
	}
	return sum
}

// groupCPU is the CPU time of a container with all in it, from its control group.
func groupCPU(container string) (time.Duration, bool) {
	for _, path := range []string{ // cgroup v1
		"/sys/fs/cgroup/cpuacct/docker/" + container + "/cpuacct.usage",
		"/sys/fs/cgroup/cpuacct/system.slice/docker-" + container + ".scope/cpuacct.usage",
	} {
		if raw, err := os.ReadFile(path); err == nil {
			n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
			return time.Duration(n), err == nil
		}
	}
	for _, path := range []string{ // cgroup v2
		"/sys/fs/cgroup/system.slice/docker-" + container + ".scope/cpu.stat",
		"/sys/fs/cgroup/docker/" + container + "/cpu.stat",
	} {
		if raw, err := os.ReadFile(path); err == nil {
			_, rest, _ := strings.Cut(string(raw), "usage_usec ")
			text, _, _ := strings.Cut(rest, "\n")
			n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return time.Duration(n) * time.Microsecond, err == nil
		}
	}
	return 0, false
}
