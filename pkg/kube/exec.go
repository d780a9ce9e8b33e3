package kube

import (
	"context"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
)

// Exec is one run of a program in a container of a pod.
type Exec struct {
	Namespace, Pod string
	Container      string // "" is the pod's first, or the one its annotation names
	Argv           []string
	Stdin          io.Reader // nil is none
	Stdout, Stderr io.Writer // nil is nowhere
	TTY            bool      // give it a terminal; what it says on both streams comes by Stdout then
	Resize         <-chan Size
}

// Size is that of a terminal, in characters.
type Size struct{ Columns, Rows uint16 }

// Exec runs a program in a pod and returns its exit code when it has ended. The error is that of reaching it; a program that
// ended with another code than 0 is none. When ctx ends the connection is cut; what the program does then is its own matter.
func (c *Client) Exec(ctx context.Context, x Exec) (exitCode int, err error) {
	fail := func(err error) (int, error) {
		return -1, fmt.Errorf("running %s in %s: %w", x.Argv[0], named("pod", x.Namespace, x.Pod), err)
	}
	if len(x.Argv) == 0 {
		return -1, fmt.Errorf("running nothing in %s", named("pod", x.Namespace, x.Pod))
	}
	req := c.typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(x.Namespace).Name(x.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: x.Container, Command: x.Argv, TTY: x.TTY,
			Stdin: x.Stdin != nil, Stdout: x.Stdout != nil, Stderr: x.Stderr != nil && !x.TTY,
		}, scheme.ParameterCodec)
	// As kubectl does: by a websocket, and by SPDY where a proxy or an old server cannot.
	socket, err := remotecommand.NewWebSocketExecutor(c.config, "GET", req.URL().String())
	if err != nil {
		return fail(err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, "POST", req.URL())
	if err != nil {
		return fail(err)
	}
	executor, err := remotecommand.NewFallbackExecutor(socket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return fail(err)
	}
	options := remotecommand.StreamOptions{Stdin: x.Stdin, Stdout: x.Stdout, Stderr: x.Stderr, Tty: x.TTY}
	if x.TTY {
		options.Stderr = nil
		if x.Resize != nil {
			options.TerminalSizeQueue = sizes{ctx.Done(), x.Resize}
		}
	}
	err = executor.StreamWithContext(ctx, options)
	var exit utilexec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case ctx.Err() != nil:
		return fail(context.Cause(ctx))
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitStatus(), nil
	}
	return fail(err)
}

// sizes is the queue that client-go reads a terminal's new sizes from.
type sizes struct {
	done <-chan struct{}
	next <-chan Size
}

// Next implements remotecommand.TerminalSizeQueue; nil is the end.
func (s sizes) Next() *remotecommand.TerminalSize {
	select {
	case <-s.done:
		return nil
	case size, open := <-s.next:
		if !open {
			return nil
		}
		return &remotecommand.TerminalSize{Width: size.Columns, Height: size.Rows}
	}
}
