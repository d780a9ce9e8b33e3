package host

import (
	"testing"

	"platformctl/pkg/command"
)

const (
	askVersion = "docker version"
	askContext = "docker context inspect"
	askInfo    = "docker info"
)

var (
	local = command.Answer{Stdout: "unix:///var/run/docker.sock\n"}
	down  = command.Answer{Stdout: "\n", Fail: "\nCannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"}
	up    = command.Answer{Stdout: `{"Version":"20.10.24+dfsg1","Components":[{"Name":"Engine"},{"Name":"containerd"}]}`}
	new28 = command.Answer{Stdout: `{"Version":"28.2.2","Components":[{"Name":"Engine"}]}`}
)

func TestClient(t *testing.T) {
	m, _ := machine(t, nil, nil)
	wantContains(t, why(t, m, "docker/client"), "no docker program")
	write(t, m.path("/bin/docker"), "")
	wantContains(t, why(t, m, "docker/client"), "")
}

func TestPodmanIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		answers         map[string]command.Answer
		program, engine string
	}{
		"docker":            {map[string]command.Answer{"docker --version": {Stdout: "Docker version 28.2.2, build e6534b4\n"}, askVersion: up}, "", ""},
		"docker, down":      {map[string]command.Answer{"docker --version": {Stdout: "Docker version 28.2.2, build e6534b4\n"}, askVersion: down}, "", ""},
		"podman's stand-in": {map[string]command.Answer{"docker --version": {Stdout: "podman version 4.3.1\n"}, askVersion: down}, "podman's stand-in", ""},
		"podman's socket": {map[string]command.Answer{"docker --version": {Stdout: "Docker version 28.2.2, build e6534b4\n"},
			askVersion: {Stdout: `{"Version":"4.3.1","Components":[{"Name":"Podman Engine"}]}`}}, "", "answers the docker client is podman"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := machine(t, nil, c.answers)
			wantContains(t, why(t, m, "docker/genuine"), c.program)
			wantContains(t, why(t, m, "engine/genuine"), c.engine)
		})
	}
}

func TestAnEngineElsewhereIsRefused(t *testing.T) {
	for _, c := range []struct{ endpoint, host, context, want string }{
		{"unix:///var/run/docker.sock", "", "", ""},
		{"unix:///home/u/.docker/desktop/docker.sock", "", "desktop-linux", ""},
		{"unix:///run/user/1000/docker.sock", "unix:///run/user/1000/docker.sock", "", ""},
		{"tcp://10.0.0.9:2375", "tcp://10.0.0.9:2375", "", "DOCKER_HOST leads to tcp://10.0.0.9:2375"},
		{"ssh://u@far", "", "far", "DOCKER_CONTEXT leads to ssh://u@far"},
		{"ssh://u@far", "", "", "docker's current context leads to ssh://u@far"},
		{"", "", "", "leads to"},
	} {
		wantContains(t, endpointFault(c.endpoint, c.host, c.context), c.want)
	}
}

func TestAContextThatIsNotThere(t *testing.T) {
	m, _ := machine(t, nil, map[string]command.Answer{askContext: {Fail: `context "nope" does not exist`}})
	wantContains(t, why(t, m, "docker/local"), `context "nope" does not exist`)
}

func TestAnAnswerThatIsNoJSONIsAnError(t *testing.T) {
	m, _ := machine(t, nil, map[string]command.Answer{askVersion: {Stdout: "Emulate Docker CLI"}, askInfo: {Stdout: "x"}})
	if _, _, err := m.engineVersion(t.Context()); err == nil {
		t.Error("docker version: no error")
	}
	if _, err := m.engineInfo(t.Context()); err == nil {
		t.Error("docker info: no error")
	}
}
