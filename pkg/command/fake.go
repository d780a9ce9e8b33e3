package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Fake is a Runner for tests: it answers from a script, fails where the script says so, and fails a command that the
// script does not know. Its zero value knows none.
type Fake struct {
	// Answers maps the beginning of a command line, as Command.String prints it, to its answer; the longest match counts.
	Answers map[string]Answer

	mu   sync.Mutex
	runs []string
}

// Answer is what a faked program does.
type Answer struct {
	Stdout string
	Fail   string // not empty: the program fails, and this is what it printed
}

// Run implements Runner.
func (f *Fake) Run(ctx context.Context, c Command) ([]byte, error) {
	line := c.String()
	f.mu.Lock()
	f.runs = append(f.runs, line)
	f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, &Error{Command: c, Err: err}
	}
	best, found := "", false
	for prefix := range f.Answers {
		if strings.HasPrefix(line, prefix) && (!found || len(prefix) > len(best)) {
			best, found = prefix, true
		}
	}
	if !found {
		return nil, &Error{Command: c, Err: fmt.Errorf("the fake knows no such command")}
	}
	answer := f.Answers[best]
	if c.Stdout != nil {
		if _, err := c.Stdout.Write([]byte(answer.Stdout)); err != nil {
			return nil, &Error{Command: c, Err: err}
		}
	}
	if answer.Fail != "" {
		return []byte(answer.Stdout), &Error{Command: c, Output: answer.Fail, Err: errors.New("exit status 1")}
	}
	return []byte(answer.Stdout), nil
}

// Runs lists the command lines that were run, in order.
func (f *Fake) Runs() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.runs...)
}
