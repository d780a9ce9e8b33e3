// Command order-api takes orders over HTTP and brings each to its end.
//
//	order-api          serves, configured by its environment
//	order-api migrate  makes the services' roles and brings the database's schema up, as the database's owner
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"platformctl/pkg/daemon"
)

func main() {
	// The first signal drains; a second one ends the process at once.
	ctx, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, release)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	release()
	os.Exit(code)
}

func run(ctx context.Context, args, environ []string, logs, stderr io.Writer) int {
	var err error
	switch {
	case len(args) == 0:
		err = serve(ctx, environ, logs)
	case len(args) == 1 && args[0] == "migrate":
		err = migrate(ctx, environ, logs)
	default:
		fmt.Fprintln(stderr, "usage: order-api [migrate]")
		return 2
	}
	return daemon.Report(stderr, name, err)
}
