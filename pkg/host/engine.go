package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"platformctl/pkg/command"
)

// enginePackages are the engine on Debian and Ubuntu. The client is in them or, in newer releases, a package of its own.
var enginePackages = []string{"docker.io", "iptables", "ca-certificates"}

const (
	defaultEndpoint = "unix:///var/run/docker.sock"
	clientPackage   = "docker-cli"
)

// engineRequirements want an engine that is there, may be used, answers, and can do what a node asks of it.
func (m Machine) engineRequirements() []Requirement {
	running := Requirement{Name: "engine/running", After: []string{"engine/genuine"}, Check: m.checkRunning}
	if m.OS != "linux" {
		running.Cure = []string{"start the Docker engine"}
		return []Requirement{running}
	}
	installed := m.withPackages(Requirement{
		Name: "engine/installed", After: []string{"engine/genuine"}, Check: m.checkInstalled,
	}, m.installEngine, enginePackages...)
	access := Requirement{
		Name: "engine/access", After: []string{installed.Name},
		Cure: []string{
			"sudo usermod -aG docker $USER",
			"then log in again",
		},
		Check: m.checkAccess,
	}
	running.After = []string{access.Name}
	switch {
	case m.systemd():
		running.Cure = m.asRoot("systemctl start docker")
	case m.UID == 0:
		running.Cure = []string{"platformctl doctor --fix"}
	default:
		running.Cure = []string{"sudo dockerd &"}
	}
	running = m.mendable(running, m.startEngine)
	privileged := m.mendable(Requirement{
		Name: "engine/privileged", After: []string{running.Name},
		Cure: []string{
			"use Docker 23 or newer",
			"or stop the engine and let platformctl start it, with a runtime that asks for no more than there is: platformctl doctor --fix",
		},
		Check: m.checkPrivileged,
	}, m.capEngine)
	store := Requirement{
		Name: "engine/image-store", After: []string{running.Name}, Optional: true,
		Cure:  []string{`set "features": {"containerd-snapshotter": false} in /etc/docker/daemon.json and restart the engine, if images do not load`},
		Check: m.checkImageStore,
	}
	return []Requirement{installed, access, running, privileged, store}
}

// installEngine installs the engine, and a client where none is there: an existing one, often newer, stays the first in PATH.
func (m Machine) installEngine(ctx context.Context, say func(string)) error {
	if err := m.install(ctx, say, enginePackages...); err != nil {
		return err
	}
	if m.find("docker") != "" {
		return nil
	}
	return m.install(ctx, say, clientPackage)
}

// checkInstalled wants the engine's programs; one that answers proves them, wherever it keeps them.
func (m Machine) checkInstalled(ctx context.Context) (string, error) {
	server, _, err := m.engine(ctx)
	if err != nil || server != nil {
		return "", err
	}
	if endpoint, err := m.endpointOnce(ctx); err != nil || endpoint != defaultEndpoint {
		return "", err // another engine is meant, Docker Desktop's perhaps
	}
	for _, program := range []string{"dockerd", "iptables"} {
		if m.find(program) == "" {
			return program + " is not installed, and no Docker engine answers", nil
		}
	}
	return "", nil
}

// checkAccess wants the engine's socket, if it is there, to let this user in.
func (m Machine) checkAccess(ctx context.Context) (string, error) {
	endpoint, err := m.endpointOnce(ctx)
	if err != nil {
		return "", err
	}
	socket, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok {
		return "", nil
	}
	if errors.Is(unix.Access(m.path(socket), unix.R_OK|unix.W_OK), unix.EACCES) {
		return "this user may not talk to the engine: no access to " + socket, nil
	}
	return "", nil // a socket that is not there is the next requirement's matter
}

func (m Machine) checkRunning(ctx context.Context) (string, error) {
	server, said, err := m.engine(ctx)
	if err != nil {
		return "", err
	}
	if server == nil {
		return "no Docker engine answers: " + said, nil
	}
	if tooOld(server.Version) {
		return fmt.Sprintf("the engine is Docker %s; %d or newer is needed", server.Version, oldestEngine), nil
	}
	return "", nil
}

// oldestEngine is the first major version of Docker whose containers can have a cgroup namespace of their own, as a node needs.
const oldestEngine = 20

func tooOld(version string) bool {
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	return err == nil && n < oldestEngine
}

// checkImageStore warns of an engine that keeps images in containerd: kind's own way of loading images breaks there. Ours
// streams archives to the node, which should not mind; nobody has tried it.
func (m Machine) checkImageStore(ctx context.Context) (string, error) {
	info, err := m.engineInfo(ctx)
	if err != nil {
		return "", err
	}
	for _, pair := range info.DriverStatus {
		if pair[0] == "driver-type" && strings.HasPrefix(pair[1], "io.containerd.snapshotter") {
			return "the engine keeps its images in containerd, with which platformctl has not been tried", nil
		}
	}
	return "", nil
}

// systemd tells whether systemd runs this machine.
func (m Machine) systemd() bool {
	info, err := os.Stat(m.path("/run/systemd/system"))
	return err == nil && info.IsDir()
}

// checkPrivileged wants a privileged container, which a node is, to start. Nothing is started to find out.
func (m Machine) checkPrivileged(ctx context.Context) (string, error) {
	lacking, err := m.lackingCapabilities()
	if err != nil || len(lacking) == 0 {
		return "", err
	}
	server, said, err := m.engine(ctx)
	if err != nil {
		return "", err
	}
	if server == nil {
		return "", fmt.Errorf("no Docker engine answers: %s", said)
	}
	if !greedy(server.Version) {
		return "", nil
	}
	info, err := m.engineInfo(ctx)
	if err != nil {
		return "", err
	}
	gone := func(path string) bool {
		_, err := os.Stat(m.path(path))
		return errors.Is(err, fs.ErrNotExist)
	}
	return runtimeFault(server.Version, info, lacking, gone), nil
}

// runtimeFault tells why an engine that asks for every capability cannot start a privileged container where some are lacking.
func runtimeFault(version string, info engineInfo, lacking []string, gone func(path string) bool) string {
	switch info.DefaultRuntime {
	case "runc", "crun", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux":
		return fmt.Sprintf("engine %s asks for every capability for a privileged container, and this machine has no %s to give",
			version, strings.Join(lacking, ", "))
	}
	path := info.Runtimes[info.DefaultRuntime].Path
	if strings.HasPrefix(path, "/") && gone(path) {
		return fmt.Sprintf("the program that the engine starts containers with is gone: %s", path)
	}
	return "" // somebody gave it another runtime, for this reason or a better one
}

// installedVersion is the version of the dockerd that is installed.
func (m Machine) installedVersion(ctx context.Context) (string, error) {
	out, err := m.Run.Run(ctx, command.New(m.find("dockerd"), "--version"))
	if err != nil {
		return "", fmt.Errorf("ask the engine for its version: %w", err)
	}
	_, rest, _ := strings.Cut(string(out), "version ")
	version, _, _ := strings.Cut(rest, ",")
	return strings.TrimSpace(version), nil
}
