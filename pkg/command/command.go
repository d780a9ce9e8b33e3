// Package command runs other programs: with a context, in a process group of their own, their output captured, and an
// error that shows the line to paste and what the program said last.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// grace is what a cancelled program gets between SIGTERM and SIGKILL.
const grace = 5 * time.Second

// Command is one call of one program.
type Command struct {
	Name   string    // a program in PATH, or a path
	Args   []string  // without the name
	Dir    string    // "" is the caller's
	Env    []string  // KEY=value, added to the caller's environment
	Stdin  io.Reader // nil is the null device
	Stdout io.Writer // where standard output goes besides what Run returns; nil is nowhere
	Stderr io.Writer // the same for standard error
}

// New is a Command with nothing but its words.
func New(name string, args ...string) Command { return Command{Name: name, Args: args} }

// What must not be shown: values whose key says so, and addresses with a password in them.
var (
	secretKey    = regexp.MustCompile(`(?i)pass|cookie|secret|token`)
	withPassword = regexp.MustCompile(`://[^/@\s]*:[^/@\s]+@`)
)

// String is the command as a line that a shell takes; a secret in its environment is left for the shell to know.
func (c Command) String() string {
	words := make([]string, 0, 1+len(c.Args)+len(c.Env))
	for _, pair := range c.Env {
		key, value, _ := strings.Cut(pair, "=")
		if secretKey.MatchString(key) || withPassword.MatchString(value) {
			words = append(words, key+`="$`+key+`"`)
			continue
		}
		words = append(words, key+"="+quote(value))
	}
	for _, w := range append([]string{c.Name}, c.Args...) {
		words = append(words, quote(w))
	}
	line := strings.Join(words, " ")
	if c.Dir != "" {
		return "(cd " + quote(c.Dir) + " && " + line + ")"
	}
	return line
}

// quote leaves a word alone where a shell would read it as it stands.
func quote(word string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_./=:,@%+", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Error is a program that did not end well.
type Error struct {
	Command Command
	Output  string // the end of what it printed, both streams in the order they came
	Err     error  // what os/exec said; context's cause when it was cancelled
}

func (e *Error) Error() string {
	message := fmt.Sprintf("%s: %v", e.Command, e.Err)
	if out := strings.TrimSpace(e.Output); out != "" {
		message += "\n" + out
	}
	return message
}

func (e *Error) Unwrap() error { return e.Err }

// ExitCode is the code the program ended with, or -1 if it did not come so far.
func ExitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// Runner runs commands. Run returns the program's standard output; its error is an *Error. When ctx ends, the program's
// whole process group is told to stop, and killed when it has not done so five seconds later; Run returns after that.
type Runner interface {
	Run(ctx context.Context, c Command) ([]byte, error)
}

// Local is the Runner of this machine.
type Local struct{}

// Run implements Runner.
func (Local) Run(ctx context.Context, c Command) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	cmd.Dir, cmd.Stdin = c.Dir, c.Stdin
	if len(c.Env) > 0 {
		cmd.Env = append(os.Environ(), c.Env...)
	}
	var out bytes.Buffer
	said := &tail{}
	cmd.Stdout = tee(&out, said, c.Stdout)
	cmd.Stderr = tee(said, c.Stderr)
	// A group of its own: Ctrl-C reaches us alone, and we say when and in which order others stop.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	err := cmd.Run()
	if ctx.Err() != nil && cmd.Process != nil {
		// What the program left behind in its group goes too; ESRCH, all gone already, is the usual answer.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err == nil {
		return out.Bytes(), nil
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return out.Bytes(), &Error{Command: c, Output: said.String(), Err: err}
}

// tee is a writer to all that are there.
func tee(writers ...io.Writer) io.Writer {
	kept := writers[:0:0]
	for _, w := range writers {
		if w != nil {
			kept = append(kept, w)
		}
	}
	return io.MultiWriter(kept...)
}
