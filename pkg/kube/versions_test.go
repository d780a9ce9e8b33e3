package kube

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
)

func TestVersionImages(t *testing.T) {
	set := func(name, owner, revision, image string) runtime.Object {
		s := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{
			Namespace: "apps", Name: name, Annotations: map[string]string{revisionKey: revision},
			OwnerReferences: []metav1.OwnerReference{{Kind: "Deployment", Name: owner, Controller: new(true)}},
		}}
		s.Spec.Template.Spec.Containers = []corev1.Container{{Image: image}}
		return s
	}
	c := &Client{typed: fake.NewClientset(
		set("a", "order-api", "2", "order-api:2"), set("b", "order-api", "10", "order-api:4"), set("c", "order-api", "9", "order-api:3"),
		set("d", "order-api", "8", "order-api:3"), set("e", "payment", "99", "payment:1"), set("f", "order-api", "", "order-api:5"),
	)}
	got, err := c.VersionImages(t.Context(), Workload{Kind: "Deployment", Namespace: "apps", Name: "order-api"})
	if err != nil || !slices.Equal(got, []string{"order-api:5", "order-api:4", "order-api:3", "order-api:2"}) {
		t.Errorf("%q %v", got, err)
	}
	if got, err := c.VersionImages(t.Context(), Workload{Kind: "Deployment", Namespace: "apps", Name: "nosuch"}); err != nil || len(got) > 0 {
		t.Errorf("%q %v", got, err)
	}
}
