package command_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"platformctl/pkg/command"
)

func TestRunReturnsOutputAndSaysWhatFailed(t *testing.T) {
	out, err := command.Local{}.Run(t.Context(), command.New("sh", "-c", "echo out; echo err >&2"))
	if err != nil || string(out) != "out\n" {
		t.Fatalf("got %q, %v", out, err)
	}
	_, err = command.Local{}.Run(t.Context(), command.New("sh", "-c", "echo no room >&2; exit 7"))
	var failed *command.Error
	if !errors.As(err, &failed) {
		t.Fatalf("got %v, want a *command.Error", err)
	}
	if command.ExitCode(err) != 7 || !strings.Contains(err.Error(), "no room") || !strings.Contains(err.Error(), "sh -c 'echo no room >&2; exit 7'") {
		t.Errorf("the error does not say what was run and what it said: %v", err)
	}
	_, err = command.Local{}.Run(t.Context(), command.New("no-such-program"))
	if err == nil || command.ExitCode(err) != -1 {
		t.Errorf("got %v with code %d, want an error without one", err, command.ExitCode(err))
	}
}

func TestRunEndsTheWholeGroup(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "alive")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		// The grandchild holds the fifo open for as long as it lives, and is deaf to SIGTERM.
		_, err := command.Local{}.Run(ctx, command.New("sh", "-c", `sh -c 'trap "" TERM; exec sleep 1000' > "$0" & wait`, fifo))
		ended <- err
	}()
	alive, err := os.Open(fifo) // opens when the grandchild has
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := io.ReadAll(alive); err != nil { // ends when nobody holds the other end any more
		t.Error(err)
	}
}

func TestErrorKeepsTheEnd(t *testing.T) {
	_, err := command.Local{}.Run(t.Context(), command.New("sh", "-c", "seq 1 100000; echo the end; exit 1"))
	if err == nil || !strings.HasSuffix(err.Error(), "the end") || len(err.Error()) > 8<<10 {
		t.Errorf("%d bytes, ending %q", len(err.Error()), err.Error()[max(0, len(err.Error())-40):])
	}
}

func TestStringCanBePasted(t *testing.T) {
	c := command.Command{Name: "printf", Args: []string{"%s|", "a b", "it's", "", "$HOME"}, Dir: os.TempDir(), Env: []string{"A=b c"}}
	out, err := command.Local{}.Run(t.Context(), command.New("sh", "-c", c.String()))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(out), "a b|it's||$HOME|"; got != want {
		t.Errorf("the pasted line printed %q, want %q", got, want)
	}
}

func TestStringKeepsSecrets(t *testing.T) {
	c := command.Command{Name: "docker", Args: []string{"run"}, Env: []string{
		"RABBITMQ_ERLANG_COOKIE=biscuit", "DB_PASSWORD=hunter2", "DSN=postgres://shop:hunter2@127.0.0.1/shop", "PGHOST=127.0.0.1",
	}}
	const want = `RABBITMQ_ERLANG_COOKIE="$RABBITMQ_ERLANG_COOKIE" DB_PASSWORD="$DB_PASSWORD" DSN="$DSN" PGHOST=127.0.0.1 docker run`
	if got := c.String(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestFakeFails(t *testing.T) {
	fake := &command.Fake{Answers: map[string]command.Answer{
		"docker info":  {Stdout: "20.10"},
		"docker":       {Fail: "no such command"},
		"docker info2": {Stdout: "other"},
	}}
	out, err := fake.Run(t.Context(), command.New("docker", "info", "-f", "x"))
	if err != nil || string(out) != "20.10" {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := fake.Run(t.Context(), command.New("docker", "load")); err == nil || !strings.Contains(err.Error(), "no such command") {
		t.Errorf("got %v, want the scripted failure", err)
	}
	if _, err := fake.Run(t.Context(), command.New("kind")); err == nil {
		t.Error("a command out of the script passed")
	}
	if got := fmt.Sprint(fake.Runs()); got != "[docker info -f x docker load kind]" {
		t.Errorf("runs: %s", got)
	}
	var seen bytes.Buffer
	if _, err := fake.Run(t.Context(), command.Command{Name: "docker", Args: []string{"info"}, Stdout: &seen}); err != nil || seen.String() != "20.10" {
		t.Errorf("wrote %q, %v", seen.String(), err)
	}
}
