package release

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Status is the newest revision of a release.
type Status struct {
	Name      string
	Namespace string
	Revision  int
	Status    string // Helm's word: deployed, failed, pending-install, pending-upgrade, uninstalling, …
	Hash      string // what it was made of, see Hash; empty where somebody else installed it
	Claims    string // stands for its volumes; empty as above
}

// Holds tells whether the release is there as a Spec with this hash wants it.
func (s Status) Holds(hash string) bool { return s.Status == "deployed" && s.Hash == hash }

var secrets = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}

// List returns the newest revision of every release in the namespaces, sorted by namespace and name. It is one request,
// which reads labels only.
func (c *Client) List(ctx context.Context, namespaces ...string) ([]Status, error) {
	list, err := c.objects.Resource(secrets).List(ctx, metav1.ListOptions{
		LabelSelector: "owner=helm",
		FieldSelector: "type=helm.sh/release.v1",
	})
	if err != nil {
		return nil, fmt.Errorf("list releases: %w", err)
	}
	newest := map[string]Status{}
	for _, item := range list.Items {
		if !slices.Contains(namespaces, item.Namespace) {
			continue
		}
		labels := item.Labels
		revision, err := strconv.Atoi(labels["version"])
		if err != nil {
			return nil, fmt.Errorf("list releases: secret %s in namespace %s has version %q", item.Name, item.Namespace, labels["version"])
		}
		found := Status{Name: labels["name"], Namespace: item.Namespace, Revision: revision, Status: labels["status"], Hash: labels[hashLabel], Claims: labels[claimsLabel]}
		key := found.Namespace + "/" + found.Name
		if revision > newest[key].Revision {
			newest[key] = found
		}
	}
	all := make([]Status, 0, len(newest))
	for _, status := range newest {
		all = append(all, status)
	}
	slices.SortFunc(all, func(a, b Status) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return all, nil
}
