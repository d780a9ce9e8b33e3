package host

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

// bench is a machine whose engine answers from the moment something starts it.
type bench struct {
	*command.Fake
	starts string // the command that starts the engine
	began  func() // what happens then
	begun  bool
	env    []string // that it was started with
}

func (b *bench) Run(ctx context.Context, c command.Command) ([]byte, error) {
	out, err := b.Fake.Run(ctx, c)
	if err == nil && strings.Contains(c.String(), b.starts) {
		b.begun, b.env = true, c.Env
		b.began()
	}
	if b.begun && strings.HasPrefix(c.String(), askVersion) {
		return []byte(up.Stdout), nil
	}
	return out, err
}

// stopped is a machine with an engine that is installed and does not run, and its bench.
func stopped(t *testing.T, starts string, files map[string]string) (Machine, *bench) {
	t.Helper()
	all := map[string]string{"/usr/sbin/dockerd": "", "/usr/sbin/iptables": ""}
	for name, text := range files {
		all[name] = text
	}
	m, fake := machine(t, all, map[string]command.Answer{
		askVersion: down, askContext: local,
		"/usr/sbin/dockerd --version": {Stdout: "Docker version 20.10.24+dfsg1, build 5d6db84\n"},
		"(cd ":                        {},
		"PATH=":                       {Stdout: "4242\n"},
		"systemctl start":             {},
		"systemctl show":              {Stdout: "4242\n"},
	})
	m.Checkout = t.TempDir()
	write(t, filepath.Join(m.Checkout, "go.mod"), "go 1.26\n")
	b := &bench{Fake: fake, starts: starts}
	b.began = func() { write(t, m.path("/proc/4242/stat"), stat(4242, "dockerd", "S", 99)) }
	m.Run = b
	return m, b
}

func settingsOf(t *testing.T, m Machine) map[string]any {
	t.Helper()
	text, err := os.ReadFile(m.engineFile("daemon.json"))
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	if err := json.Unmarshal(text, &settings); err != nil {
		t.Fatal(err)
	}
	return settings
}

func TestTheEngineIsStartedByHand(t *testing.T) {
	m, b := stopped(t, "setsid", nil)
	said, say := sayings()
	if err := named(t, m, "engine/running").Mend(t.Context(), say); err != nil {
		t.Fatal(err)
	}
	want := "setsid /usr/sbin/dockerd --config-file " + m.engineFile("daemon.json") + " </dev/null >" + m.engineFile("dockerd.log") + " 2>&1 &"
	if !slices.Contains(*said, want) {
		t.Errorf("said %q, want %q among it", *said, want)
	}
	if !slices.Contains(b.env, "TMPDIR=") {
		t.Errorf("it is started with %q, and keeps a TMPDIR that may go", b.env)
	}
	if settings, want := settingsOf(t, m), map[string]any{"userland-proxy": false}; !maps.Equal(settings, want) {
		t.Errorf("a machine that can give everything needs but %v, got %v", want, settings)
	}
	k, running, err := m.started()
	if want := (marker{PID: 4242, Start: 99, Boot: "boot-1"}); err != nil || !running || k != want {
		t.Errorf("marked %+v, %v, %v", k, running, err)
	}
}

func TestAMachineThatLacksCapabilitiesGetsOurRuntime(t *testing.T) {
	m, b := stopped(t, "setsid", map[string]string{
		"/proc/self/status":       "CapBnd:\t000001fffeffffff\n",
		"/etc/docker/daemon.json": `{"log-level":"warn","runtimes":{"other":{"path":"/other"}}}`,
	})
	if err := named(t, m, "engine/running").Mend(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	settings := settingsOf(t, m)
	runtimes, _ := settings["runtimes"].(map[string]any)
	if settings["default-runtime"] != "cappedrunc" || settings["log-level"] != "warn" || len(runtimes) != 2 {
		t.Errorf("got %v", settings)
	}
	if !slices.ContainsFunc(b.Runs(), func(run string) bool {
		return strings.Contains(run, "go build") && strings.Contains(run, "-o "+m.engineFile("cappedrunc"))
	}) {
		t.Errorf("ran %q", b.Runs())
	}
}

func TestWhatAnEnginesOwnerChoseStays(t *testing.T) {
	for _, chosen := range []map[string]any{
		{"default-runtime": "theirs", "userland-proxy": true},
		{"default-runtime": "theirs", "iptables": false}, // then the kernel forwards no port
	} {
		want := maps.Clone(chosen)
		config, err := engineConfig(chosen, "/ours", true)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(config, &got); err != nil || !maps.Equal(got, want) {
			t.Errorf("got %s, %v, want %v", config, err, want)
		}
	}
}

func TestTheEngineIsStartedBySystemd(t *testing.T) {
	m, _ := stopped(t, "systemctl start docker.service", map[string]string{"/run/systemd/system/x": ""})
	said, say := sayings()
	if err := named(t, m, "engine/running").Mend(t.Context(), say); err != nil {
		t.Fatal(err)
	}
	if want := []string{"systemctl start docker.service"}; !slices.Equal(*said, want) {
		t.Errorf("said %q", *said)
	}
	if k, running, err := m.started(); err != nil || !running || k.Unit != "docker.service" {
		t.Errorf("marked %+v, %v, %v", k, running, err)
	}
}

func TestAnEngineThatEndsAtOnceSaysWhy(t *testing.T) {
	m, b := stopped(t, "never", nil)
	if err := os.MkdirAll(m.engineFile(""), 0o755); err != nil {
		t.Fatal(err)
	}
	b.Answers["PATH="] = command.Answer{Stdout: "4242\n"}
	write(t, m.engineFile("dockerd.log"), "starting\nfailed to start daemon: Devices cgroup isn't mounted\n")
	err := named(t, m, "engine/running").Mend(t.Context(), func(string) {})
	if fault.CodeOf(err) != fault.CodeUnfit || !strings.Contains(err.Error(), "cgroup isn't mounted") || !strings.Contains(fault.CureOf(err), "dockerd.log") {
		t.Errorf("got %v, cure %q", err, fault.CureOf(err))
	}
}

func TestAnEngineThatIsStartingIsWaitedFor(t *testing.T) {
	m, b := stopped(t, "never", map[string]string{"/proc/4242/stat": stat(4242, "dockerd", "S", 99)})
	if err := m.mark(process{pid: 4242, start: 99}, ""); err != nil {
		t.Fatal(err)
	}
	// It answers the third time it is asked: Mend's own look, and then two more.
	asked := 0
	m.Run = runFunc(func(ctx context.Context, c command.Command) ([]byte, error) {
		if strings.HasPrefix(c.String(), askVersion) {
			if asked++; asked == 3 {
				return []byte(up.Stdout), nil
			}
		}
		return b.Fake.Run(ctx, c)
	})
	if err := named(t, m, "engine/running").Mend(t.Context(), func(line string) { t.Errorf("said %q", line) }); err != nil || asked != 3 {
		t.Errorf("%v after %d questions", err, asked)
	}
}

type runFunc func(context.Context, command.Command) ([]byte, error)

func (f runFunc) Run(ctx context.Context, c command.Command) ([]byte, error) { return f(ctx, c) }

func TestAWaitForTheEngineCanBeInterrupted(t *testing.T) {
	m, b := stopped(t, "never", map[string]string{"/proc/4242/stat": stat(4242, "dockerd", "S", 99)})
	ctx, cancel := context.WithCancel(t.Context())
	asked := false
	m.Run = runFunc(func(ctx context.Context, c command.Command) ([]byte, error) {
		out, err := b.Fake.Run(ctx, c)
		if asked {
			cancel()
		}
		asked = true
		return out, err
	})
	if err := m.await(ctx, process{pid: 4242, start: 99}); fault.CodeOf(err) != fault.CodeInterrupted {
		t.Errorf("got %v", err)
	}
}

func TestNoEngineIsStartedThatTheClientWouldNotAsk(t *testing.T) {
	m, b := stopped(t, "setsid", nil)
	b.Answers[askContext] = command.Answer{Stdout: "unix:///home/u/.docker/desktop/docker.sock\n"}
	err := named(t, m, "engine/running").Mend(t.Context(), func(line string) { t.Errorf("said %q", line) })
	if fault.CodeOf(err) != fault.CodeUnfit || !strings.Contains(err.Error(), "desktop/docker.sock") {
		t.Errorf("got %v", err)
	}
	if err := m.served(t.Context(), map[string]any{"hosts": []any{"unix:///home/u/.docker/desktop/docker.sock"}}); err != nil {
		t.Errorf("its owner configured it so: %v", err)
	}
}

func TestStalePIDFiles(t *testing.T) {
	m, _ := machine(t, map[string]string{
		"/proc/7/stat": stat(7, "dockerd", "S", 1), "/live.pid": "7",
		"/proc/8/stat": stat(8, "cron", "S", 1), "/stranger.pid": "8",
		"/proc/9/stat": stat(9, "dockerd", "Z", 1), "/zombie.pid": "9",
		"/gone.pid": "10",
	}, nil)
	for file, drop := range map[string]bool{"/live.pid": false, "/stranger.pid": true, "/zombie.pid": true, "/gone.pid": true, "/none.pid": false} {
		said, say := sayings()
		if err := m.dropStalePID(file, say); err != nil {
			t.Fatal(err)
		}
		if (len(*said) == 1) != drop {
			t.Errorf("%s: said %q", file, *said)
		}
		if _, err := os.Stat(m.path(file)); file != "/none.pid" && (err != nil) != drop {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestAnothersEngineIsNotStartedAnew(t *testing.T) {
	m, _ := stopped(t, "never", map[string]string{"/proc/self/status": "CapBnd:\t000001fffeffffff\n"})
	b := m.Run.(*bench)
	b.Answers[askVersion] = up
	b.Answers[askInfo] = command.Answer{Stdout: `{"DefaultRuntime":"runc","Runtimes":{"runc":{"path":"runc"}}}`}
	err := named(t, m, "engine/privileged").Mend(t.Context(), func(line string) { t.Errorf("said %q", line) })
	if fault.CodeOf(err) != fault.CodeUnfit || !strings.Contains(err.Error(), "did not start it") {
		t.Errorf("got %v", err)
	}
}

func TestALostRuntimeIsBuiltAgainWithoutAStart(t *testing.T) {
	m, b := stopped(t, "never", map[string]string{"/proc/self/status": "CapBnd:\t000001fffeffffff\n"})
	b.Answers[askVersion] = up
	b.Answers[askInfo] = command.Answer{Stdout: `{"DefaultRuntime":"cappedrunc","Runtimes":{"cappedrunc":{"path":"` + m.engineFile("cappedrunc") + `"}}}`}
	said, say := sayings()
	if err := named(t, m, "engine/privileged").Mend(t.Context(), say); err != nil {
		t.Fatal(err)
	}
	if len(*said) != 1 || !strings.Contains((*said)[0], "go build") {
		t.Errorf("said %q", *said)
	}
}
