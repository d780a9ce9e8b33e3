// Command platformctl brings the ticket platform up on this machine, takes it down again, and talks to it in between.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set when the product is built: -ldflags "-X main.version=…".
var version = "dev"

func main() {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(run(context.Background(), streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Getenv: os.Getenv, Program: os.Args[0], Signals: signals, Exit: os.Exit,
	}, os.Args[1:]))
}

// run is the program: it does what args say and returns the exit code.
func run(ctx context.Context, std streams, args []string) int { return newEnv(std).run(ctx, args) }
