// Package host says what a machine must offer before a cluster can be made on it, looks whether it does, and mends what
// can be mended.
//
// Looking changes nothing. Mending never calls sudo, prints each command before it runs it, and is done by one process at a
// time.
package host

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

// Machine is where platformctl runs and what it wants to do there.
type Machine struct {
	Run    command.Runner
	Getenv func(string) string
	OS     string // as GOOS names it
	Arch   string // as GOARCH names it
	UID    int
	Root   string // the root of the file system that is looked at; "" is the real one

	State    string // folder of what mending leaves behind for good: the engine's configuration, log and marker
	Cache    string // folder of the caches, whose free space counts
	Checkout string // the project, whose go.mod names the Go it wants; "" where there is none

	Needs Needs

	asked *asked // what the engine said, for the requirements of one list
}

// Needs is how much is wanted of the machine in this run. A zero amount is not measured, which is right where a cluster
// already runs.
type Needs struct {
	Packages bool   // images are built from Go modules and Debian packages, not pulled
	Disk     uint64 // free bytes for the caches: DiskPackages, DiskPulled, DiskCached or DiskRunning
	Memory   uint64 // available bytes: MemoryCluster
}

// How much is needed, in bytes.
const (
	// DiskPackages: compiling the node leaves 3.9 GB in Go's build cache and 1.2 GB of modules; root file systems, layers
	// and archives of the three images add up to another 2 GB while they are made.
	DiskPackages = 8_000_000_000
	// DiskPulled: the node's image is 1 GB pulled and unpacked, the servers' are kept as archives, in the engine and in the
	// node, and Go compiles the services and platformctl.
	DiskPulled = 4_000_000_000
	// DiskCached: a cluster's containers, volumes and side-loaded images, and room for its databases to grow.
	DiskCached = 2_000_000_000
	// DiskRunning: where all is there, what its databases need to go on. RabbitMQ takes no messages with less than 512 MB.
	DiskRunning = 1_000_000_000
	// MemoryCluster: a node with both servers holds 0.7 GiB just after its start; the services, their limits, and a Go build
	// beside them want the rest.
	MemoryCluster = 3 << 30
)

// Local is the machine that this process runs on.
func Local(state, cache, checkout string, needs Needs) Machine {
	return Machine{
		Run: command.Local{}, Getenv: os.Getenv, OS: runtime.GOOS, Arch: runtime.GOARCH, UID: os.Getuid(),
		State: state, Cache: cache, Checkout: checkout, Needs: needs,
	}
}

// Requirement is one thing that the machine must offer.
type Requirement struct {
	Name     string   // "engine/running": stable, for people and for machines
	After    []string // names of the requirements that must be met before this one can be judged
	Optional bool     // unmet, and even unmendable, it is worth a warning and nothing more

	// Check looks and changes nothing. why is "" where the requirement is met, else what is wrong, in one sentence for a
	// user; err means that it could not look.
	Check func(ctx context.Context) (why string, err error)
	// Cure is what a user would type or do, a line each; sudo stands where it is needed.
	Cure []string
	// Mend does the cure and says each command before it runs it; nil where only the user can. It looks again first, and
	// returns nil where another process has mended it meanwhile. Where it would need root and has not got it, its error is an
	// Unfit fault that carries the cure.
	Mend func(ctx context.Context, say func(line string)) error
}

// Unmet is the error for a requirement whose Check said why: exit code 3, with the cure.
func (r Requirement) Unmet(why string) error {
	return fault.Unfit(strings.Join(r.Cure, "\n"), "%s", why)
}

// Requirements lists what m must offer for its needs, each after those it waits for. They are for one run: what the engine says of
// itself is asked once.
func Requirements(m Machine) []Requirement {
	m.asked = new(asked)
	var all []Requirement
	if m.Checkout != "" {
		all = append(all, m.goRequirement())
	}
	all = append(all, m.diskRequirement())
	all = append(all, m.clockRequirement(time.Now))
	if m.OS == "linux" {
		all = append(all, m.memoryRequirement())
		all = append(all, m.inotifyRequirements()...)
		all = append(all, m.kernelRequirements()...)
	}
	all = append(all, m.packageRequirements()...)
	all = append(all, m.clientRequirements()...)
	all = append(all, m.engineRequirements()...)
	if m.OS != "linux" {
		all = append(all, m.memoryRequirement())
	}
	return all
}

// path is where name, an absolute path, lies on the machine that is looked at.
func (m Machine) path(name string) string { return filepath.Join("/", m.Root, name) }

// engineFile is the path of a file that mending the engine leaves behind.
func (m Machine) engineFile(name string) string { return filepath.Join(m.State, "engine", name) }

// sbin is where system programs lie that a user's PATH may lack.
var sbin = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// find is the path of a program in PATH or sbin, or "".
func (m Machine) find(program string) string {
	for _, dir := range append(filepath.SplitList(m.Getenv("PATH")), sbin...) {
		info, err := os.Stat(m.path(filepath.Join(dir, program)))
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return filepath.Join(dir, program)
		}
	}
	return ""
}

// systemPath is an environment in which system programs find one another.
func (m Machine) systemPath() []string {
	return []string{"PATH=" + strings.Join(append(filepath.SplitList(m.Getenv("PATH")), sbin...), string(filepath.ListSeparator))}
}
