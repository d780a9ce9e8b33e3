package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// VersionImages lists the images of a Deployment's versions, the newest first and each once: what its ReplicaSets' pods run, or
// ran. It is empty where there is no such Deployment, or no version yet.
func (c *Client) VersionImages(ctx context.Context, w Workload) ([]string, error) {
	sets, err := c.typed.AppsV1().ReplicaSets(w.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the versions of %s: %w", w, err)
	}
	mine := slices.DeleteFunc(sets.Items, func(s appsv1.ReplicaSet) bool {
		owner := metav1.GetControllerOf(&s)
		return owner == nil || owner.Kind != w.Kind || owner.Name != w.Name
	})
	slices.SortFunc(mine, func(a, b appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(b), revisionOf(a)) })
	var images []string
	for _, s := range mine {
		for _, container := range s.Spec.Template.Spec.Containers {
			if !slices.Contains(images, container.Image) {
				images = append(images, container.Image)
			}
		}
	}
	return images, nil
}

// revisionOf counts a Deployment's versions; a ReplicaSet that is not numbered yet has just been made.
func revisionOf(s appsv1.ReplicaSet) int64 {
	n, err := strconv.ParseInt(s.Annotations[revisionKey], 10, 64)
	if err != nil {
		return 1 << 62
	}
	return n
}
