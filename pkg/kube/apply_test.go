package kube

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestDecode(t *testing.T) {
	objects, err := Decode([]byte(`# a comment alone
---
apiVersion: v1
kind: Namespace
metadata: {name: apps}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: apps}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: b, namespace: apps}}
---
`))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range objects {
		names = append(names, Describe(o))
	}
	if got, want := strings.Join(names, "|"), "namespace apps|configmap apps/a|configmap apps/b"; got != want {
		t.Errorf("Decode = %s, want %s", got, want)
	}
	for name, bad := range map[string]string{"broken": "a: b: c\n", "no kind": "metadata: {name: x}\n"} {
		if objects, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%s: %v", name, objects)
		}
	}
}

func TestConnectRefusesWhatIsNoKubeconfig(t *testing.T) {
	if _, err := Connect([]byte("clusters: 7\n"), time.Time{}, io.Discard); err == nil {
		t.Error("it was taken")
	}
}

func TestEvidenceHidesPasswords(t *testing.T) {
	p := pod(func(p *corev1.Pod) {
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "DB_PASSWORD", Value: "hunter2"}, {Name: "DB_HOST", Value: "postgresql"}}
		p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "somebody"}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{running("main")}
	})
	e := event("Pod", p.Name, "Warning", "Unhealthy", "503", 1)
	c := &Client{typed: fake.NewClientset(p, &e)}
	dir := t.TempDir()
	files, err := c.Evidence(t.Context(), dir, []string{"apps", "empty"})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(dir, f)
		if err != nil {
			t.Fatal(err)
		}
		all[rel] = string(raw)
	}
	if len(all) != 4 || !strings.Contains(all["apps/events.txt"], "Unhealthy: 503") {
		t.Errorf("it kept %v", all)
	}
	if yaml := all["apps/order-api-1.yaml"]; strings.Contains(yaml, "hunter2") || strings.Contains(yaml, "somebody") || !strings.Contains(yaml, "value: postgresql") {
		t.Errorf("the pod is shown as\n%s", yaml)
	}
	if _, logged := all["apps/order-api-1.main.log"]; !logged {
		t.Error("there is no log")
	}
}

func TestDeleteNamespacesWaitsUntilTheyAreGone(t *testing.T) {
	set := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps"}}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
	c := &Client{typed: set}
	if err := c.DeleteNamespaces(t.Context(), func(Trouble) {}, "apps", "absent"); err != nil {
		t.Fatal(err)
	}
	left, err := set.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(left.Items) != 1 || left.Items[0].Name != "other" {
		t.Errorf("left: %v, %v", left.Items, err)
	}
}
