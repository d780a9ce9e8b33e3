// Command payment-service takes the payments of orders and tells how they ended. It is configured by its environment.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"platformctl/pkg/daemon"
)

func main() {
	// Two batches at a time are all that it has to do. Threads that wake each other for that took a fifth of what it needs.
	runtime.GOMAXPROCS(1)
	// The first signal drains; a second one ends the process at once.
	ctx, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, release)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	release()
	os.Exit(code)
}

func run(ctx context.Context, args, environ []string, logs, stderr io.Writer) int {
	if len(args) > 0 {
		fmt.Fprintln(stderr, "usage: payment-service")
		return 2
	}
	return daemon.Report(stderr, name, serve(ctx, environ, logs))
}
