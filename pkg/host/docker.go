package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"platformctl/pkg/command"
)

// answerTimeout is how long an engine may take to say who it is; one that is well takes a hundredth of a second.
const answerTimeout = 15 * time.Second

// engineVersion is what `docker version` tells of the engine that answers.
type engineVersion struct {
	Version    string
	Components []struct{ Name string }
}

// engineInfo is what `docker info` tells of the engine.
type engineInfo struct {
	DockerRootDir  string
	MemTotal       uint64
	DefaultRuntime string
	DriverStatus   [][2]string
	Runtimes       map[string]struct{ Path string }
}

// engineVersion asks the engine who it is; nil and what the client said where none answers.
func (m Machine) engineVersion(ctx context.Context) (*engineVersion, string, error) {
	limited, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	// Without an engine it prints nothing, so that the client's complaint stands alone in the error.
	out, err := m.Run.Run(limited, command.New("docker", "version", "--format", "{{if .Server}}{{json .Server}}{{end}}"))
	switch {
	case ctx.Err() != nil:
		return nil, "", context.Cause(ctx)
	case limited.Err() != nil:
		return nil, fmt.Sprintf("nothing came within %s", answerTimeout), nil
	case err != nil:
		return nil, said(err), nil
	}
	if len(bytes.TrimSpace(out)) == 0 {
		return nil, "the docker client names none", nil
	}
	server := new(engineVersion)
	if err := json.Unmarshal(out, server); err != nil {
		return nil, "", fmt.Errorf("read what docker version says: %w", err)
	}
	return server, "", nil
}

// engineInfo asks the engine what it has; an error where none answers.
func (m Machine) engineInfo(ctx context.Context) (engineInfo, error) {
	var info engineInfo
	out, err := m.Run.Run(ctx, command.New("docker", "info", "--format", "{{json .}}"))
	if err != nil {
		return info, fmt.Errorf("ask the engine what it has: %w", err)
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return info, fmt.Errorf("read what docker info says: %w", err)
	}
	return info, nil
}

// asked keeps what was answered, until the engine is mended. Four requirements want to know who the engine is, and they are looked
// at one right after the other. That nothing answered is not kept.
type asked struct {
	mu       sync.Mutex
	server   *engineVersion
	endpoint string
}

func (a *asked) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server = nil
}

// engine is engineVersion, asked once.
func (m Machine) engine(ctx context.Context) (*engineVersion, string, error) {
	m.asked.mu.Lock()
	defer m.asked.mu.Unlock()
	if m.asked.server != nil {
		return m.asked.server, "", nil
	}
	server, said, err := m.engineVersion(ctx)
	m.asked.server = server
	return server, said, err
}

// endpoint is where the client finds its engine: "unix:///var/run/docker.sock".
func (m Machine) endpoint(ctx context.Context) (string, error) {
	out, err := m.Run.Run(ctx, command.New("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"))
	return strings.TrimSpace(string(out)), err
}

// endpointOnce is endpoint, asked once.
func (m Machine) endpointOnce(ctx context.Context) (_ string, err error) {
	m.asked.mu.Lock()
	defer m.asked.mu.Unlock()
	if m.asked.endpoint == "" {
		m.asked.endpoint, err = m.endpoint(ctx)
	}
	return m.asked.endpoint, err
}

// said is the last line a failed program printed, or its error where it printed none.
func said(err error) string {
	var failed *command.Error
	if !errors.As(err, &failed) {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(failed.Output), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return last
	}
	return failed.Err.Error()
}

// clientRequirements want Docker's own client, and one that talks to an engine on this machine.
func (m Machine) clientRequirements() []Requirement {
	present := Requirement{
		Name: "docker/client",
		Check: func(context.Context) (string, error) {
			if m.find("docker") == "" {
				return "there is no docker program in PATH", nil
			}
			return "", nil
		},
	}
	if m.OS == "linux" {
		present = m.withPackages(present, m.installEngine, enginePackages...)
	} else {
		present.Cure = []string{"install Docker Desktop, or another Docker engine for this system"}
	}
	if m.debian() {
		present.Cure = append(present.Cure, m.asRoot(aptInstall([]string{clientPackage}).String()+" # where that is a package of its own")...)
		present = m.mendable(present, m.installEngine)
	}
	genuine := Requirement{
		Name: "docker/genuine", After: []string{present.Name},
		Cure:  []string{"remove podman's stand-in (the package podman-docker) and install Docker (the package docker.io, or docker-ce)"},
		Check: m.checkGenuine,
	}
	local := Requirement{
		Name: "docker/local", After: []string{genuine.Name},
		Cure:  []string{"unset DOCKER_HOST DOCKER_CONTEXT", "docker context use default"},
		Check: m.checkLocal,
	}
	answers := Requirement{
		Name: "engine/genuine", After: []string{local.Name},
		Cure:  []string{"stop podman's socket, or unset DOCKER_HOST if it names that, and use Docker's engine"},
		Check: m.checkEngineGenuine,
	}
	return []Requirement{present, genuine, local, answers}
}

// checkGenuine refuses podman's stand-in for the docker program.
func (m Machine) checkGenuine(ctx context.Context) (string, error) {
	out, err := m.Run.Run(ctx, command.New("docker", "--version"))
	if err != nil {
		return "", err
	}
	if strings.Contains(strings.ToLower(string(out)), "podman") {
		return "the docker program here is podman's stand-in; platformctl works with Docker only", nil
	}
	return "", nil
}

// checkEngineGenuine refuses podman behind Docker's own client: a node runs there in other ways.
func (m Machine) checkEngineGenuine(ctx context.Context) (string, error) {
	server, _, err := m.engine(ctx)
	if err != nil || server == nil {
		return "", err // whether an engine answers at all is asked later
	}
	for _, c := range server.Components {
		if strings.Contains(strings.ToLower(c.Name), "podman") {
			return "what answers the docker client is podman; platformctl works with Docker only", nil
		}
	}
	return "", nil
}

// checkLocal refuses an engine on another machine: folders are mounted into its containers, and ports are expected on loopback.
func (m Machine) checkLocal(ctx context.Context) (string, error) {
	endpoint, err := m.endpointOnce(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		return "docker does not say where its engine is: " + said(err), nil
	}
	return endpointFault(endpoint, m.Getenv("DOCKER_HOST"), m.Getenv("DOCKER_CONTEXT")), nil
}

func endpointFault(endpoint, dockerHost, dockerContext string) string {
	if strings.HasPrefix(endpoint, "unix://") {
		return ""
	}
	source := "docker's current context"
	switch {
	case dockerHost != "":
		source = "DOCKER_HOST"
	case dockerContext != "":
		source = "DOCKER_CONTEXT"
	}
	return fmt.Sprintf("%s leads to %s; platformctl needs an engine on this machine, behind a unix socket", source, endpoint)
}
