package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

// stopTimeout is how long an engine may take to end; it gives each container up to 10 s, all at once.
const stopTimeout = 60 * time.Second

// marker is what we leave of an engine that we started: enough to know it again, and never to take another process for it.
type marker struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since that boot
	Boot  string `json:"boot"`
	Unit  string `json:"unit,omitempty"` // systemd's name for it, where systemd started it for us
}

func (k marker) process() process { return process{pid: k.PID, start: k.Start} }

func (m Machine) markerFile() string { return m.engineFile("started.json") }

// mark writes the marker for an engine.
func (m Machine) mark(engine process, unit string) error {
	boot, err := m.bootID()
	if err != nil {
		return err
	}
	text, err := json.Marshal(marker{PID: engine.pid, Start: engine.start, Boot: boot, Unit: unit})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.markerFile()), 0o755); err != nil {
		return err
	}
	return os.WriteFile(m.markerFile(), append(text, '\n'), 0o644)
}

// started is the marker of the engine that we started, and whether that very engine still runs.
func (m Machine) started() (marker, bool, error) {
	var k marker
	text, err := os.ReadFile(m.markerFile())
	if errors.Is(err, fs.ErrNotExist) {
		return k, false, nil
	}
	if err != nil {
		return k, false, err
	}
	if err := json.Unmarshal(text, &k); err != nil {
		return k, false, nil // cut short by a crash: it names nobody
	}
	boot, err := m.bootID()
	if err != nil || boot != k.Boot {
		return k, false, err
	}
	alive, err := m.alive(k.process())
	return k, alive, err
}

// StopEngine stops the engine if a Mend started it, and tells whether it did; an engine that somebody else started, or that
// was started anew since, is left alone. It returns when the engine has ended. ctx bounds the wait, not the engine's end.
func (m Machine) StopEngine(ctx context.Context, say func(line string)) (stopped bool, err error) {
	unlock, err := lock(ctx, filepath.Join(m.State, "mending.lock"), say)
	if err != nil {
		return false, err
	}
	defer unlock()
	mine, running, err := m.started()
	if err != nil || !running {
		return false, err
	}
	if mine.Unit != "" {
		// Its socket goes first, or the next docker command starts the engine again.
		stop := command.New("systemctl", "stop", "docker.socket", mine.Unit)
		say(stop.String())
		if _, err := m.Run.Run(ctx, stop); err != nil {
			return false, fmt.Errorf("stop the engine: %w", err)
		}
	} else if err := m.terminate(mine.process(), say); err != nil {
		return false, fmt.Errorf("stop the engine: %w", err)
	}
	if err := m.awaitEnd(ctx, mine.process()); err != nil {
		return false, err
	}
	return true, os.Remove(m.markerFile())
}

// terminate asks p to end, and nobody else: the handle is taken first, then its number is compared, so a number that is
// reused meanwhile cannot be hit.
func (m Machine) terminate(p process, say func(string)) error {
	handle, err := os.FindProcess(p.pid)
	if err != nil {
		return err
	}
	defer func() { _ = handle.Release() }()
	if alive, err := m.alive(p); err != nil || !alive {
		return err
	}
	say(fmt.Sprintf("kill %d", p.pid))
	if err := handle.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// awaitEnd returns when p has ended.
func (m Machine) awaitEnd(ctx context.Context, p process) error {
	limited, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		if alive, err := m.alive(p); err != nil || !alive {
			return err
		}
		select {
		case <-again.C:
		case <-limited.Done():
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fault.TimedOut("see "+m.engineFile("dockerd.log"), "the engine (process %d) has not ended after %s", p.pid, stopTimeout)
		}
	}
}
