package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

const (
	// startTimeout is how long an engine may take until it answers: 3 s as a rule, more where it has many containers to find again.
	startTimeout = 90 * time.Second
	// runtimeName is our OCI runtime, as the engine and the file system know it.
	runtimeName = "cappedrunc"
	unit        = "docker.service"
)

// startEngine starts the engine that is installed, by systemd or by hand, and returns when it answers.
func (m Machine) startEngine(ctx context.Context, say func(string)) error {
	if mine, ok, err := m.started(); err != nil {
		return err
	} else if ok {
		return m.await(ctx, mine.process()) // an earlier run started it and was interrupted before it answered
	}
	settings, err := m.engineSettings()
	if err != nil {
		return err
	}
	if err := m.served(ctx, settings); err != nil {
		return err
	}
	if m.systemd() {
		return m.startUnit(ctx, say)
	}
	for _, file := range []string{pidFileOf(settings), filepath.Join(execRootOf(settings), "containerd/containerd.pid")} {
		if err := m.dropStalePID(file, say); err != nil {
			return err
		}
	}
	capped, err := m.needsCap(ctx)
	if err != nil {
		return err
	}
	if capped {
		if err := m.buildRuntime(ctx, say); err != nil {
			return err
		}
	}
	config, err := engineConfig(settings, m.engineFile(runtimeName), capped)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.engineFile(""), 0o755); err != nil {
		return err
	}
	say("# the engine's configuration is " + m.engineFile("daemon.json") + ", its log " + m.engineFile("dockerd.log"))
	if err := os.WriteFile(m.engineFile("daemon.json"), config, 0o644); err != nil {
		return err
	}
	engine, err := m.launch(ctx, say)
	if err != nil {
		return err
	}
	return m.await(ctx, engine)
}

// dropStalePID removes a pid file that an engine left when it was killed. An engine before 23 takes whatever has that number
// now for a running engine, a stranger as well as the remains of a process that no init collects, and does not start.
func (m Machine) dropStalePID(file string, say func(string)) error {
	holder, running, err := m.readPID(file)
	if err != nil || running && (holder.comm == "dockerd" || holder.comm == "containerd") {
		return err
	}
	if _, err := os.Lstat(m.path(file)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	say(command.New("rm", file).String())
	return os.Remove(m.path(file))
}

// needsCap tells whether the installed engine asks for capabilities that this machine cannot give.
func (m Machine) needsCap(ctx context.Context) (bool, error) {
	lacking, err := m.lackingCapabilities()
	if err != nil || len(lacking) == 0 {
		return false, err
	}
	version, err := m.installedVersion(ctx)
	return greedy(version), err
}

// buildRuntime compiles our OCI runtime out of the checkout.
func (m Machine) buildRuntime(ctx context.Context, say func(string)) error {
	if m.Checkout == "" {
		return fault.Unfit("run it in the project's folder, or name that: --project FOLDER",
			"the engine needs a runtime that is compiled from the project, and this is no checkout of it")
	}
	build := command.New("go", "build", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", "-s -w",
		"-o", m.engineFile(runtimeName), "./pkg/host/"+runtimeName)
	build.Dir, build.Env = m.Checkout, []string{"CGO_ENABLED=0"}
	say(build.String())
	if _, err := m.Run.Run(ctx, build); err != nil {
		return fmt.Errorf("build the engine's runtime: %w", err)
	}
	return nil
}

// launch starts dockerd in a session of its own, where no signal meant for us reaches it, and leaves the marker that it is ours.
func (m Machine) launch(ctx context.Context, say func(string)) (process, error) {
	log := m.engineFile("dockerd.log")
	daemon := command.New(m.find("dockerd"), "--config-file", m.engineFile("daemon.json")).String()
	line := "setsid " + daemon + " </dev/null >" + command.New(log).String() + " 2>&1 &"
	say(line)
	start := command.New("sh", "-c", line+" echo $!")
	start.Env = append(m.systemPath(), "TMPDIR=") // it outlives the folder that this run may have been given
	out, err := m.Run.Run(ctx, start)
	if err != nil {
		return process{}, fmt.Errorf("start the engine: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return process{}, fmt.Errorf("start the engine: the shell names no process: %w", err)
	}
	engine, ok, err := m.process(pid)
	if err != nil {
		return process{}, err
	}
	if !ok {
		return process{}, m.ended()
	}
	return engine, m.mark(engine, "")
}

// startUnit has systemd start the engine.
func (m Machine) startUnit(ctx context.Context, say func(string)) error {
	start := command.New("systemctl", "start", unit)
	say(start.String())
	if _, err := m.Run.Run(ctx, start); err != nil {
		return fault.Unfit("journalctl -u "+unit+" says why", "start the engine: %w", err)
	}
	out, err := m.Run.Run(ctx, command.New("systemctl", "show", "--property", "MainPID", "--value", unit))
	if err != nil {
		return fmt.Errorf("ask systemd for the engine's process: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return fmt.Errorf("ask systemd for the engine's process: %w", err)
	}
	engine, ok, err := m.process(pid)
	if err != nil {
		return err
	}
	if !ok {
		return m.ended()
	}
	if err := m.mark(engine, unit); err != nil {
		return err
	}
	return m.await(ctx, engine)
}

// await returns when an engine answers, or when engine, which should, has ended.
func (m Machine) await(ctx context.Context, engine process) error {
	limited, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for last := ""; ; {
		server, said, err := m.engineVersion(limited)
		switch {
		case server != nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case limited.Err() != nil:
			return fault.TimedOut("see "+m.engineFile("dockerd.log")+", or begin anew: platformctl down --engine",
				"the engine (process %d) does not answer after %s: %s", engine.pid, startTimeout, last)
		case err != nil:
			return err
		}
		last = said
		if alive, err := m.alive(engine); err != nil {
			return err
		} else if !alive {
			return m.ended()
		}
		select {
		case <-again.C:
		case <-limited.Done():
		}
	}
}

// ended is the error for an engine that did not live until it answered, with the end of its log.
func (m Machine) ended() error {
	if m.systemd() {
		return fault.Unfit("journalctl -u "+unit+" says why", "the engine ended just after its start")
	}
	log := m.engineFile("dockerd.log")
	text, err := lastBytes(log, 2<<10)
	if err != nil {
		return fmt.Errorf("the engine ended just after its start, and its log cannot be read: %w", err)
	}
	return fault.Unfit("the whole log is "+log, "the engine ended just after its start; it said:\n%s", text)
}

// lastBytes is the end of a file.
func lastBytes(path string, n int64) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.NewSectionReader(file, max(0, info.Size()-n), n))
	return strings.TrimSpace(string(text)), err
}

// capEngine gives a running engine the runtime that this machine needs. Where its program alone is gone that is compiled
// again; else it takes a new start, which only an engine that we started gets: the containers of another's would end.
func (m Machine) capEngine(ctx context.Context, say func(string)) error {
	m.asked.forget()
	info, err := m.engineInfo(ctx)
	if err != nil {
		return err
	}
	if info.Runtimes[info.DefaultRuntime].Path == m.engineFile(runtimeName) {
		return m.buildRuntime(ctx, say)
	}
	mine, running, err := m.started()
	if err != nil {
		return err
	}
	if !running || mine.Unit != "" {
		return fault.Unfit("use Docker 23 or newer; or stop the engine, and let platformctl start it: platformctl doctor --fix",
			"the engine needs another runtime, and platformctl did not start it, so it does not start it anew: its containers would end")
	}
	if err := m.terminate(mine.process(), say); err != nil {
		return err
	}
	if err := m.awaitEnd(ctx, mine.process()); err != nil {
		return err
	}
	return m.startEngine(ctx, say)
}
