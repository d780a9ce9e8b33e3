package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

type kubeconfigFlags struct{ path bool }

func newKubeconfig(e *env) *cobra.Command {
	var f kubeconfigFlags
	cmd := &cobra.Command{
		Use:   "kubeconfig",
		Short: "The cluster's own kubeconfig",
		Long: `kubeconfig prints the kubeconfig of the cluster, or with --path where it lies.
platformctl itself works with this file and never reads yours.`,
		Example: "  KUBECONFIG=$(platformctl kubeconfig --path) kubectl get pods -A",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), e) },
	}
	cmd.Flags().BoolVar(&f.path, "path", false, "print the file's path instead")
	return cmd
}

func (f kubeconfigFlags) run(ctx context.Context, e *env) error {
	p, err := e.platform()
	if err != nil {
		return err
	}
	path, err := p.Kubeconfig(ctx)
	if err != nil {
		return err
	}
	if f.path {
		_, err = fmt.Fprintln(e.Out, path)
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	_, err = e.Out.Write(text)
	return err
}
