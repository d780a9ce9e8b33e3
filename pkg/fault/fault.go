// Package fault is an error that knows how a user gets out of it, and with which exit code a program ends on it.
//
// An error is wrapped once with what was attempted; where there is something to type or to change, it carries that as its
// cure. Only the program's top prints it.
package fault

import (
	"context"
	"errors"
	"fmt"
)

// Exit codes of platformctl.
const (
	CodeOK          = 0
	CodeFailed      = 1   // what was asked for failed
	CodeUsage       = 2   // it was asked for wrongly
	CodeUnfit       = 3   // the machine lacks something, or the platform is not running
	CodeTimedOut    = 4   // it was waited for in vain
	CodeBroken      = 5   // an invariant of the data is broken
	CodeInterrupted = 130 // the user stopped it
)

// Error is an error with a cure and an exit code.
type Error struct {
	Code int    // one of the codes above
	Err  error  // what was attempted and what went wrong
	Cure string // what to type or to change, a line or several; empty where nothing helps
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap lets errors.Is and errors.As look at the cause.
func (e *Error) Unwrap() error { return e.Err }

// New returns an error of the given code, whose message is made as fmt.Errorf makes it (%w wraps).
func New(code int, cure, format string, args ...any) error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...), Cure: cure}
}

// Usage says that the command was called wrongly.
func Usage(cure, format string, args ...any) error { return New(CodeUsage, cure, format, args...) }

// Unfit says that the machine lacks something or that the platform is not running.
func Unfit(cure, format string, args ...any) error { return New(CodeUnfit, cure, format, args...) }

// TimedOut says that something was waited for in vain.
func TimedOut(cure, format string, args ...any) error {
	return New(CodeTimedOut, cure, format, args...)
}

// CodeOf is the exit code for err: that of the outermost Error in its chain, CodeInterrupted for a cancelled context,
// CodeTimedOut for one past its deadline, CodeOK for nil, else CodeFailed.
func CodeOf(err error) int {
	var e *Error
	switch {
	case err == nil:
		return CodeOK
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.Canceled):
		return CodeInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return CodeTimedOut
	}
	return CodeFailed
}

// CureOf is the cure of the first Error in err's chain that has one, or "".
func CureOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Cure != "" {
			return e.Cure
		}
		err = e.Err
	}
	return ""
}
