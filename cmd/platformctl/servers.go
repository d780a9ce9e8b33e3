package main

import (
	"context"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
)

func newServers(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "servers -- COMMAND [ARGUMENT...]",
		Short: "Run a command beside PostgreSQL and RabbitMQ servers of its own",
		Long: `servers starts PostgreSQL and RabbitMQ from the platform's own images as
containers on loopback, runs the command, and removes them when it has ended.
It ends with the command's exit code. The command finds the servers in
PLATFORMCTL_TEST_POSTGRES (a URL of a superuser), PLATFORMCTL_TEST_RABBITMQ
(one of an administrator) and PLATFORMCTL_TEST_RABBITMQ_API (its HTTP API).`,
		Example: "  platformctl servers -- go test ./pkg/...",
		Hidden:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() == 0 {
				return nil
			}
			return fault.Usage(e.self()+" servers -- go test ./pkg/...", "servers wants a command after --")
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runServers(cmd.Context(), e, args) },
	}
}

func runServers(ctx context.Context, e *env, argv []string) error {
	set, err := e.checkout()
	if err != nil {
		return err
	}
	p, err := e.open(set)
	if err != nil {
		return err
	}
	code, err := p.Servers(ctx, argv, e.In, e.Out, e.Err)
	if err == nil && code != 0 {
		return exit(code)
	}
	return err
}
