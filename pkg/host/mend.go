package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

// asRoot makes cure lines out of commands for root.
func (m Machine) asRoot(lines ...string) []string {
	if m.UID == 0 {
		return lines
	}
	cure := make([]string, len(lines))
	for i, line := range lines {
		cure[i] = "sudo " + line
	}
	return cure
}

// mendable gives r a Mend that does work: as root alone, one process at a time, and only where r is still unmet by then.
func (m Machine) mendable(r Requirement, work func(ctx context.Context, say func(string)) error) Requirement {
	r.Mend = func(ctx context.Context, say func(string)) error {
		if m.UID != 0 {
			return fault.Unfit(strings.Join(r.Cure, "\n"), "%s can only be mended by root, and platformctl never calls sudo", r.Name)
		}
		unlock, err := lock(ctx, filepath.Join(m.State, "mending.lock"), say)
		if err != nil {
			return err
		}
		defer unlock()
		why, err := r.Check(ctx)
		if err != nil || why == "" {
			return err
		}
		return work(ctx, say)
	}
	return r
}

// lock takes the lock file at path, and waits for it as long as ctx lives. The kernel gives it free when its holder dies.
func lock(ctx context.Context, path string, say func(string)) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for waited := false; ; {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil // closing gives the lock free
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		}
		if !waited {
			say("# waiting until nothing else mends this machine")
			waited = true
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), file.Close())
		case <-again.C:
		}
	}
}

// debian tells whether packages are had by apt-get here: on Debian, Ubuntu, and what calls itself like them.
func (m Machine) debian() bool {
	if m.OS != "linux" {
		return false
	}
	file, err := os.Open(m.path("/etc/os-release"))
	if err != nil {
		return false // a system that does not say what it is, is not one that we install on
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		if key != "ID" && key != "ID_LIKE" {
			continue
		}
		like := strings.Fields(strings.Trim(value, `"'`))
		if slices.Contains(like, "debian") || slices.Contains(like, "ubuntu") {
			return true
		}
	}
	return false
}

// withPackages completes r whose cure is to install packages: work does it where apt-get is the way, else they are named to
// the user.
func (m Machine) withPackages(r Requirement, work func(context.Context, func(string)) error, packages ...string) Requirement {
	if !m.debian() {
		r.Cure = []string{"install with your system's package manager what Debian calls " + strings.Join(packages, ", ")}
		return r
	}
	r.Cure = m.asRoot("apt-get update", aptInstall(packages).String())
	return m.mendable(r, work)
}

// aptInstall is the command that installs packages and nothing that they merely recommend.
func aptInstall(packages []string) command.Command {
	return command.New("apt-get", append([]string{"install", "-y", "--no-install-recommends"}, packages...)...)
}

// install installs Debian packages.
func (m Machine) install(ctx context.Context, say func(string), packages ...string) error {
	update := command.New("apt-get", "update")
	say(update.String())
	update.Env = m.systemPath()
	if _, err := m.Run.Run(ctx, update); err != nil {
		return fmt.Errorf("read the package lists: %w", err)
	}
	install := aptInstall(packages)
	say(install.String())
	// Nobody is there to answer a question; another apt-get (a machine's own nightly one) is waited for.
	install.Env = append(m.systemPath(), "DEBIAN_FRONTEND=noninteractive")
	install.Args = append([]string{"-o", "DPkg::Lock::Timeout=120"}, install.Args...)
	if _, err := m.Run.Run(ctx, install); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(packages, ", "), err)
	}
	return nil
}
