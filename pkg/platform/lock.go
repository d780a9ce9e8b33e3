package platform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"platformctl/pkg/plan"
)

// lock lets one platformctl at a time change a cluster. The kernel drops it with its holder, however that one ends.
type lock struct {
	path string
	file *os.File // not nil while we hold it
}

// step is the step that every changing run begins with: it waits for the holder, and says who that is.
func (l *lock) step() *plan.Step {
	return &plan.Step{
		Name: "lock",
		Check: func(context.Context) (string, error) {
			if l.file != nil {
				return "", nil
			}
			return l.take()
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			// A lock that is waited for in the kernel cannot be given up on Ctrl-C, so we ask five times a second.
			again := time.NewTicker(200 * time.Millisecond)
			defer again.Stop()
			said := ""
			for {
				holder, err := l.take()
				if err != nil || holder == "" {
					return err
				}
				if holder != said {
					note(plan.Note{Text: "waiting", Object: l.path, Reason: "Locked", Message: holder})
					said = holder
				}
				select {
				case <-again.C:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		},
	}
}

// take takes the lock if it is free; else it returns who holds it.
func (l *lock) take() (holder string, err error) {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return "", fmt.Errorf("make the state folder: %w", err)
	}
	file, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", fmt.Errorf("open the lock: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		said, readErr := os.ReadFile(l.path)
		if err := errors.Join(readErr, file.Close()); err != nil {
			return "", fmt.Errorf("read the lock: %w", err)
		}
		return "another platformctl is at work on this cluster: " + strings.TrimSpace(string(said)), nil
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("lock %s: %w", l.path, err), file.Close())
	}
	who := fmt.Sprintf("pid %d since %s\n", os.Getpid(), time.Now().Format(time.TimeOnly))
	if err := file.Truncate(0); err != nil {
		return "", errors.Join(err, file.Close())
	}
	if _, err := file.WriteAt([]byte(who), 0); err != nil {
		return "", errors.Join(err, file.Close())
	}
	l.file = file
	return "", nil
}

// Hold takes the cluster's lock, for a command that is no run of steps; it waits for who has it, and says who that is. release gives
// it back; so does the end of this process.
func (p *Platform) Hold(ctx context.Context, on func(plan.Event)) (release func() error, err error) {
	holder, err := p.lock.take()
	if err == nil && holder != "" {
		err = plan.Run(ctx, on, p.lock.step())
	}
	return p.lock.release, err
}

// release gives the lock back; it may be called whether or not it is held.
func (l *lock) release() error {
	if l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	return file.Close()
}
