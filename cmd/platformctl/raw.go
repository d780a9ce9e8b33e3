package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"platformctl/pkg/kube"
)

// rawTerminal hands each key to the program at the other end, and tells it the terminal's size.
type rawTerminal struct {
	sizes   chan kube.Size // the first at once, then one a change
	file    *os.File
	before  *term.State
	changes chan os.Signal
	over    chan struct{}
	left    chan struct{}
}

// enterRaw makes in, a terminal, raw until leave is called.
func enterRaw(in io.Reader) (*rawTerminal, error) {
	file, ok := in.(*os.File)
	if !ok {
		return nil, errors.New("give the terminal away: standard input is no file")
	}
	before, err := term.MakeRaw(int(file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("give the terminal away: %w", err)
	}
	t := &rawTerminal{
		sizes: make(chan kube.Size), file: file, before: before,
		changes: make(chan os.Signal, 1), over: make(chan struct{}), left: make(chan struct{}),
	}
	signal.Notify(t.changes, syscall.SIGWINCH)
	go t.watch()
	return t, nil
}

func (t *rawTerminal) watch() {
	defer close(t.left)
	for {
		columns, rows, err := term.GetSize(int(t.file.Fd()))
		if err == nil { // else the far end goes on with the size that it has
			select {
			case t.sizes <- kube.Size{Columns: uint16(columns), Rows: uint16(rows)}:
			case <-t.over:
				return
			}
		}
		select {
		case <-t.changes:
		case <-t.over:
			return
		}
	}
}

// leave brings the terminal back as it was.
func (t *rawTerminal) leave() {
	signal.Stop(t.changes)
	close(t.over)
	<-t.left
	_ = term.Restore(int(t.file.Fd()), t.before) // it was possible to change it
}
