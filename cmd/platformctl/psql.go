package main

import (
	"context"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/platform"
	"platformctl/pkg/terminal"
)

type psqlFlags struct{ statement string }

func newPsql(e *env) *cobra.Command {
	var f psqlFlags
	cmd := &cobra.Command{
		Use:   "psql [-c SQL] [-- ARGUMENT...]",
		Short: "psql in the platform's database; no password is asked",
		Long: `psql runs psql in the database's pod: interactive, fed by a pipe, or for one
statement. It ends with psql's exit code. What follows -- goes to psql.

The server ends a transaction in which nothing is done for a minute: the rows
that it has locked are orders that wait.`,
		Example: `  platformctl psql
  platformctl psql -c "SELECT status, count(*) FROM orders GROUP BY status"
  platformctl psql -- --csv -c "TABLE shows" > shows.csv`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				return fault.Usage(e.self()+` psql -c "SELECT 1"`, "psql takes a statement by -c and psql's own arguments after --, and got %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), e, args) },
	}
	cmd.Flags().StringVarP(&f.statement, "command", "c", "", "run one `statement`")
	return cmd
}

// exec is the call of psql in the database's pod. A terminal is given to it where a person sits at one.
func (f psqlFlags) exec(args []string, person bool) (kube.Exec, error) {
	s, err := platform.FindService("postgres")
	if err != nil {
		return kube.Exec{}, err
	}
	argv := []string{"psql", "-U", "postgresdb", "-d", "postgresdb"}
	if f.statement != "" {
		argv = append(argv, "-c", f.statement)
	}
	return kube.Exec{
		Namespace: s.Namespace, Pod: s.Workload + "-0", Container: s.Container, Argv: append(argv, args...),
		TTY: person && f.statement == "" && len(args) == 0,
	}, nil
}

func (f psqlFlags) run(ctx context.Context, e *env, args []string) error {
	x, err := f.exec(args, terminal.IsTerminal(e.In) && terminal.IsTerminal(e.Out))
	if err != nil {
		return err
	}
	p, err := e.platform()
	if err != nil {
		return err
	}
	client, err := p.Kube(ctx)
	if err != nil {
		return err
	}
	x.Stdout, x.Stderr = e.Out, e.Err
	if x.TTY || !terminal.IsTerminal(e.In) {
		x.Stdin = e.In
	}
	e.ui().Pause()
	if x.TTY {
		raw, err := enterRaw(e.In)
		if err != nil {
			return err
		}
		defer raw.leave()
		x.Resize = raw.sizes
	}
	code, err := client.Exec(ctx, x)
	switch {
	case err != nil:
		return fault.New(fault.CodeOf(err), e.line("status"), "%w", err)
	case code != 0:
		return exit(code)
	}
	return nil
}
