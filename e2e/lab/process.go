package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// process is one life of a service.
type process struct {
	cmd  *exec.Cmd
	log  string        // a file; the lives of a service share it
	done chan struct{} // closed after err is set
	err  error
}

func launch(program string, env []string) (*process, error) {
	p := &process{cmd: exec.Command(program), log: program + ".log", done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		p.err = errors.Join(p.cmd.Wait(), log.Close())
		close(p.done)
	}()
	return p, nil
}

// stop asks the process to end.
func (p *process) stop() error {
	err := p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
	return errors.Join(err, p.err)
}

// kill gives it no chance.
func (p *process) kill() error {
	err := p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		return p.byItself()
	}
	return err
}

// ended waits until the process has been ended by SIGKILL, whoever sent it.
func (p *process) ended(ctx context.Context) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		return p.byItself()
	}
	return nil
}

// byItself is the error of a process that ended and was not told to.
func (p *process) byItself() error {
	return fmt.Errorf("it ended by itself, %v: %s", p.cmd.ProcessState, p.said())
}

// said is the end of the log.
func (p *process) said() string {
	const most = 4 << 10
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-most):])
}
