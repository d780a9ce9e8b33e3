package main

import (
	"context"

	"github.com/spf13/cobra"
)

type cleanupFlags struct{ yes, noSnapshot bool }

func newCleanup(e *env) *cobra.Command {
	var f cleanupFlags
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Delete releases, namespaces and data; the cluster stays",
		Long: `cleanup uninstalls the four releases and deletes the three namespaces with all
that is in them, volumes included. It lists them first, and asks. The data is
saved before, as down does it. The cluster stays; up installs everything anew.`,
		Args:        noArgs,
		Annotations: map[string]string{annotationRerun: "cleanup   # deletes what is left"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&f.noSnapshot, "no-snapshot", false, "do not save the data first")
	return cmd
}

func (f cleanupFlags) run(ctx context.Context, e *env) error {
	p, err := e.platform()
	if err != nil {
		return err
	}
	list, err := p.CleanupList(ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		e.ui().Say("nothing to clean up")
		return nil
	}
	e.ui().Say("This would be deleted:")
	if f.yes {
		for _, line := range list {
			e.ui().Say("  " + line)
		}
	} else {
		ok, err := e.confirm(ctx, list, "Delete it?")
		if err != nil {
			return err
		}
		if !ok {
			e.ui().Say("nothing was deleted")
			return exit(1)
		}
	}
	if !f.noSnapshot {
		if err := e.keep(ctx, p, "cleanup"); err != nil {
			return err
		}
	}
	return p.Cleanup(ctx, e.ui().Event)
}
