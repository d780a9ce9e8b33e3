package platform

import (
	"context"
	"path/filepath"

	"platformctl/pkg/command"
)

// Node is the name of the cluster's node, which is a container of the engine's.
func (p *Platform) Node() string { return p.cluster.Node() }

// Shell runs a script in the node, by its sh, and returns what that printed on standard output.
func (p *Platform) Shell(ctx context.Context, script string) ([]byte, error) {
	return p.run.Run(ctx, command.New("docker", "exec", p.Node(), "sh", "-c", script))
}

// Engine runs docker on this machine.
func (p *Platform) Engine(ctx context.Context, argv ...string) error {
	_, err := p.run.Run(ctx, command.New("docker", argv...))
	return err
}

// Faults is FaultsFile of this cluster.
func (p *Platform) Faults() string { return FaultsFile(p.set.State, p.set.Cluster) }

// FaultsFile is the file that tells which fault was made in a cluster and not healed. It lies beside the cluster's folder.
func FaultsFile(state, cluster string) string {
	return filepath.Join(state, "clusters", cluster+".fault")
}
