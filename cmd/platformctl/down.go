package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
)

type downFlags struct{ engine, yes, noSnapshot bool }

func newDown(e *env) *cobra.Command {
	var f downFlags
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Delete the cluster and all in it; the caches stay",
		Long: `down deletes the cluster with all its data, and takes its context out of your
kubeconfig. What would be lost is listed, and asked about. The data is saved
first, and how to get it back is said; where that fails, nothing is deleted.
Images and other caches stay, so that the next up is quick.`,
		Args:        noArgs,
		Annotations: map[string]string{annotationRerun: "down   # deletes what is left"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	cmd.Flags().BoolVar(&f.engine, "engine", false, "also stop the container engine, if up --fix started it")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&f.noSnapshot, "no-snapshot", false, "do not save the data first")
	return cmd
}

func (f downFlags) run(ctx context.Context, e *env) error {
	p, err := e.platform()
	if err != nil {
		return err
	}
	losses, err := p.Losses(ctx)
	if err != nil {
		return err
	}
	if len(losses) > 0 && !f.yes {
		e.ui().Say("This would be lost:")
		ok, err := e.confirm(ctx, losses, fmt.Sprintf("Delete the cluster %q?", e.cluster))
		if err != nil {
			return err
		}
		if !ok {
			e.ui().Say("nothing was deleted")
			return exit(1)
		}
	}
	if len(losses) > 0 && !f.noSnapshot {
		if err := e.keep(ctx, p, "down"); err != nil {
			return err
		}
	}
	if err := p.Down(ctx, f.engine, e.ui().Event); err != nil {
		return err
	}
	if err := os.Remove(p.Faults()); !errors.Is(err, fs.ErrNotExist) { // whatever hurt the cluster is gone with it
		return err
	}
	return nil
}
