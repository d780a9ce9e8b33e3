package proof

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Process is one of this machine, containers' processes included.
type Process struct {
	PID    int
	Name   string // as the kernel has it, at most 15 characters
	Cgroup string // the file's text; of a pod's process it holds the pod's uid, of a container's its id
	Args   string // separated by blanks
}

// Share is a set of processes whose CPU is told apart.
type Share struct {
	Name string
	Has  func(Process) bool
}

// Used is what a share used.
type Used struct {
	Name   string  `json:"name"`
	Cores  float64 `json:"cores"`
	Memory int64   `json:"peakBytes,omitempty"` // of its largest process, since that began
}

// CPU is what was used between two moments, in cores.
type CPU struct {
	Shares  []Used  `json:"shares"`
	Foreign float64 `json:"foreign"` // of all that is in no share, the kernel's own included
	Cores   int     `json:"cores"`   // that there are
}

// tick is the unit of the kernel's accounts, on all of Linux' architectures.
const tick = 10 * time.Millisecond

// Meter measures CPU. A process belongs to the first share that has it.
type Meter struct {
	Shares []Share
	Proc   string // "/proc"
}

// Mark is what was used up to a moment.
type Mark struct {
	at     time.Time
	shares []time.Duration
	memory []int64
	busy   time.Duration
	cores  int
}

// Mark reads the accounts. Where the machine keeps none (it is no Linux), that is the error.
func (m Meter) Mark() (Mark, error) {
	mark := Mark{at: time.Now(), shares: make([]time.Duration, len(m.Shares)), memory: make([]int64, len(m.Shares))}
	stat, err := os.ReadFile(filepath.Join(m.Proc, "stat"))
	if err != nil {
		return mark, fmt.Errorf("measure the CPU: %w", err)
	}
	mark.busy, mark.cores = busy(string(stat))
	entries, err := os.ReadDir(m.Proc)
	if err != nil {
		return mark, fmt.Errorf("measure the CPU: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// A process that is gone meanwhile has no account any more.
		p, used, ok := m.process(pid)
		if !ok {
			continue
		}
		for i, share := range m.Shares {
			if share.Has(p) {
				mark.shares[i] += used
				mark.memory[i] = max(mark.memory[i], m.peak(pid))
				break
			}
		}
	}
	return mark, nil
}

func (m Meter) process(pid int) (p Process, used time.Duration, ok bool) {
	dir := filepath.Join(m.Proc, strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return p, 0, false
	}
	cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return p, 0, false
	}
	args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return p, 0, false
	}
	name, used, ok := account(string(stat))
	return Process{PID: pid, Name: name, Cgroup: string(cgroup), Args: string(bytes.ReplaceAll(args, []byte{0}, []byte{' '}))}, used, ok
}

// account reads a process's name and what it and its ended children used.
func account(stat string) (name string, used time.Duration, ok bool) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", 0, false
	}
	fields := strings.Fields(stat[end+1:]) // from the third on
	if len(fields) < 15 {
		return "", 0, false
	}
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return "", 0, false
		}
		used += time.Duration(n) * tick
	}
	return stat[open+1 : end], used, true
}

// busy reads what all CPUs together used, and how many there are.
func busy(stat string) (used time.Duration, cores int) {
	for line := range strings.Lines(stat) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || !strings.HasPrefix(fields[0], "cpu"):
		case fields[0] != "cpu":
			cores++
		default:
			for i, f := range fields[1:min(len(fields), 9)] {
				if n, err := strconv.ParseInt(f, 10, 64); err == nil && i != 3 && i != 4 { // idle, iowait
					used += time.Duration(n) * tick
				}
			}
		}
	}
	return used, cores
}

// peak is the most memory that a process had, or 0 where it is gone.
func (m Meter) peak(pid int) int64 {
	status, err := os.ReadFile(filepath.Join(m.Proc, strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}

// Since is the time from another mark to this one.
func (m Mark) Since(from Mark) time.Duration { return m.at.Sub(from.at) }

// Between is what was used from one mark of this meter to another.
func (m Meter) Between(from, to Mark) CPU {
	took := to.Since(from).Seconds()
	used := CPU{Cores: to.cores, Foreign: (to.busy - from.busy).Seconds()}
	for i, share := range m.Shares {
		seconds := max(0, (to.shares[i] - from.shares[i]).Seconds())
		used.Foreign -= seconds
		used.Shares = append(used.Shares, Used{Name: share.Name, Cores: seconds / took, Memory: to.memory[i]})
	}
	used.Foreign = max(0, used.Foreign/took)
	return used
}
