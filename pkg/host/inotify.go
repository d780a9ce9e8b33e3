package host

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"platformctl/pkg/fault"
)

// inotify is how many files may be watched, and how many watchers a user may have; a node's programs count as the user root.
type inotify struct{ watches, instances int }

var (
	// workable are the kernel's old defaults. A node with its system pods takes 27 instances and 257 watches (counted), so one
	// cluster comes up with them where little else is watched.
	workable = inotify{8192, 128}
	// comfortable is what kind recommends; below it a pod may die of "too many open files" on a busy machine.
	comfortable = inotify{524288, 512}
)

const (
	watchesFile   = "/proc/sys/fs/inotify/max_user_watches"
	instancesFile = "/proc/sys/fs/inotify/max_user_instances"
)

// inotifyRequirements ask for what one cluster cannot do without, and, as a warning only, for what kind recommends: a
// machine that is itself a container may refuse to be changed, and need not be for one cluster.
func (m Machine) inotifyRequirements() []Requirement {
	requirement := func(name string, optional bool, floor inotify) Requirement {
		return m.mendable(Requirement{
			Name: name, Optional: optional,
			Cure: m.asRoot(
				fmt.Sprintf("sysctl -w fs.inotify.max_user_watches=%d", comfortable.watches),
				fmt.Sprintf("sysctl -w fs.inotify.max_user_instances=%d", comfortable.instances),
			),
			Check: func(context.Context) (string, error) {
				have, err := m.inotify()
				if err != nil {
					return "", err
				}
				return inotifyFault(have, floor), nil
			},
		}, m.raiseInotify)
	}
	return []Requirement{
		requirement("host/inotify", false, workable),
		requirement("host/inotify-recommended", true, comfortable),
	}
}

func inotifyFault(have, floor inotify) string {
	if have.watches >= floor.watches && have.instances >= floor.instances {
		return ""
	}
	return fmt.Sprintf("the kernel allows %d inotify watches and %d instances; %d and %d are wanted",
		have.watches, have.instances, floor.watches, floor.instances)
}

func (m Machine) inotify() (inotify, error) {
	watches, err := m.readNumber(watchesFile)
	if err != nil {
		return inotify{}, err
	}
	instances, err := m.readNumber(instancesFile)
	if err != nil {
		return inotify{}, err
	}
	return inotify{watches, instances}, nil
}

// raiseInotify lifts each limit that is below what is recommended, and lowers none. It lasts until the next boot: what a
// machine does for good is for its owner to decide.
func (m Machine) raiseInotify(_ context.Context, say func(string)) error {
	have, err := m.inotify()
	if err != nil {
		return err
	}
	for _, limit := range []struct {
		file         string
		have, wanted int
	}{{watchesFile, have.watches, comfortable.watches}, {instancesFile, have.instances, comfortable.instances}} {
		if limit.have >= limit.wanted {
			continue
		}
		// The file itself, because a small machine has no sysctl program.
		say(fmt.Sprintf("echo %d > %s", limit.wanted, limit.file))
		if err := os.WriteFile(m.path(limit.file), []byte(strconv.Itoa(limit.wanted)), 0o644); err != nil {
			return fault.Unfit("raise it on the machine that this one runs on", "raise an inotify limit: %w", err)
		}
	}
	return nil
}

// readNumber reads a file that holds one number.
func (m Machine) readNumber(name string) (int, error) {
	text, err := os.ReadFile(m.path(name))
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}
