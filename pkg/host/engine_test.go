package host

import (
	"strings"
	"testing"

	"platformctl/pkg/command"
)

func TestInstalled(t *testing.T) {
	both := map[string]string{"/usr/sbin/dockerd": "", "/usr/sbin/iptables": ""}
	for name, c := range map[string]struct {
		files   map[string]string
		version command.Answer
		socket  command.Answer
		want    string
	}{
		"it answers":           {nil, up, local, ""},
		"installed, down":      {both, down, local, ""},
		"nothing":              {nil, down, local, "dockerd is not installed"},
		"without iptables":     {map[string]string{"/usr/sbin/dockerd": ""}, down, local, "iptables is not installed"},
		"another one is meant": {nil, down, command.Answer{Stdout: "unix:///home/u/.docker/desktop/docker.sock\n"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := machine(t, c.files, map[string]command.Answer{askVersion: c.version, askContext: c.socket})
			wantContains(t, why(t, m, "engine/installed"), c.want)
		})
	}
}

func TestRunning(t *testing.T) {
	m, _ := machine(t, nil, map[string]command.Answer{askVersion: up})
	wantContains(t, why(t, m, "engine/running"), "")
	m, _ = machine(t, nil, map[string]command.Answer{askVersion: down})
	wantContains(t, why(t, m, "engine/running"), "no Docker engine answers: Cannot connect to the Docker daemon at unix:///var/run/docker.sock")
	// A client that reports no engine, and no error either.
	m, _ = machine(t, nil, map[string]command.Answer{askVersion: {Stdout: "\n"}})
	wantContains(t, why(t, m, "engine/running"), "the docker client names none")
}

func TestAccess(t *testing.T) {
	m, _ := machine(t, nil, map[string]command.Answer{askContext: local})
	wantContains(t, why(t, m, "engine/access"), "") // no socket: nothing runs
	write(t, m.path("/var/run/docker.sock"), "")
	wantContains(t, why(t, m, "engine/access"), "")
}

func TestTheCureForAnEngineThatIsDown(t *testing.T) {
	m, _ := machine(t, nil, nil)
	wantContains(t, strings.Join(named(t, m, "engine/running").Cure, "\n"), "platformctl doctor --fix")
	m, _ = machine(t, map[string]string{"/run/systemd/system/x": ""}, nil)
	wantContains(t, strings.Join(named(t, m, "engine/running").Cure, "\n"), "systemctl start docker")
	m.UID = 1000
	wantContains(t, strings.Join(named(t, m, "engine/running").Cure, "\n"), "sudo systemctl start docker")
	m.OS = "darwin"
	if named(t, m, "engine/running").Mend != nil {
		t.Error("an engine in a virtual machine is its user's to start")
	}
}

func TestPrivileged(t *testing.T) {
	const lacks = "Name:\tx\nCapBnd:\t000001fffeffffff\n"
	runtime := func(name, path string) command.Answer {
		return command.Answer{Stdout: `{"DefaultRuntime":"` + name + `","Runtimes":{"` + name + `":{"path":"` + path + `"}}}`}
	}
	for name, c := range map[string]struct {
		files map[string]string
		info  command.Answer
		ask   command.Answer
		want  string
	}{
		"all capabilities": {nil, command.Answer{}, command.Answer{}, ""},
		"new engine":       {map[string]string{"/proc/self/status": lacks}, command.Answer{}, new28, ""},
		"old engine": {map[string]string{"/proc/self/status": lacks}, runtime("runc", "runc"), up,
			"engine 20.10.24+dfsg1 asks for every capability for a privileged container, and this machine has no CAP_SYS_RESOURCE to give"},
		"old engine, mended":   {map[string]string{"/proc/self/status": lacks, "/s/cappedrunc": ""}, runtime("cappedrunc", "/s/cappedrunc"), up, ""},
		"runtime gone":         {map[string]string{"/proc/self/status": lacks}, runtime("cappedrunc", "/s/cappedrunc"), up, "is gone: /s/cappedrunc"},
		"somebody else's way":  {map[string]string{"/proc/self/status": lacks}, runtime("theirs", "theirs"), up, ""},
		"the engine has fewer": {map[string]string{"/var/run/docker.pid": "77", "/proc/77/stat": stat(77, "dockerd", "S", 5), "/proc/77/status": lacks}, runtime("runc", "runc"), up, "CAP_SYS_RESOURCE"},
		"a stranger has fewer": {map[string]string{"/var/run/docker.pid": "77", "/proc/77/stat": stat(77, "cron", "S", 5), "/proc/77/status": lacks}, runtime("runc", "runc"), up, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := machine(t, c.files, map[string]command.Answer{askInfo: c.info, askVersion: c.ask})
			wantContains(t, why(t, m, "engine/privileged"), c.want)
		})
	}
}

func TestGreedy(t *testing.T) {
	for version, want := range map[string]bool{"20.10.24+dfsg1": true, "19.03.1": true, "23.0.0": false, "28.2.2": false, "": false, "dev": false} {
		if greedy(version) != want {
			t.Errorf("greedy(%q) = %v", version, !want)
		}
	}
}

func TestLacking(t *testing.T) {
	if got := lacking(0x1ffffffffff, 40); got != nil {
		t.Errorf("nothing is lacking, got %q", got)
	}
	if got := strings.Join(lacking(0x3ffffffffe, 38), " "); got != "capability 0 capability 38" {
		t.Errorf("got %q", got)
	}
}

func TestTheEngineIsAskedOnceWhoItIs(t *testing.T) {
	m, fake := machine(t, map[string]string{"/proc/self/status": "Name:\tx\nCapBnd:\t000001fffeffffff\n"},
		map[string]command.Answer{askContext: local, askVersion: {Fail: "it is down"}})
	all := Requirements(m)
	look := func() (asked int) {
		before := len(fake.Runs())
		for _, r := range all {
			switch r.Name {
			case "engine/genuine", "engine/installed", "engine/access", "engine/running":
				if _, err := r.Check(t.Context()); err != nil {
					t.Fatalf("%s: %v", r.Name, err)
				}
			}
		}
		for _, line := range fake.Runs()[before:] {
			if strings.HasPrefix(line, askVersion) {
				asked++
			}
		}
		return asked
	}
	if n := look(); n != 3 {
		t.Errorf("an engine that is down was asked %d times: one that comes up meanwhile is missed", n)
	}
	fake.Answers[askVersion] = new28
	if first, second := look(), look(); first != 1 || second != 0 {
		t.Errorf("it was asked %d times, then %d", first, second)
	}
}
