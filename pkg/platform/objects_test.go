package platform

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestObjectDiffers(t *testing.T) {
	decode := func(json string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON([]byte(json)); err != nil {
			t.Fatal(err)
		}
		return o
	}
	const (
		config = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"apps"},"data":{"PORT":"1","HOST":"h"}}`
		space  = `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"apps","labels":{"level":"restricted"}}}`
		secret = `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","namespace":"apps"},"stringData":{"PASSWORD":"p"}}`
		kept   = `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","namespace":"apps"},"data":{"PASSWORD":"cA=="},"type":"Opaque"}`
	)
	for name, test := range map[string]struct {
		want, applied, live string // what is wanted, what was applied once, "" for the same, and what is there, "" for what was applied
		change              func(live *unstructured.Unstructured)
		lines               []string
	}{
		"nothing": {want: config},
		"what others add": {want: config, change: func(o *unstructured.Unstructured) {
			o.SetResourceVersion("7")
			o.SetLabels(map[string]string{"app.kubernetes.io/managed-by": "platformctl", "theirs": "x"})
		}},
		"deleted just now": {want: config, change: func(o *unstructured.Unstructured) {
			if err := unstructured.SetNestedField(o.Object, "2026-01-01T00:00:00Z", "metadata", "deletionTimestamp"); err != nil {
				t.Fatal(err)
			}
		}, lines: []string{"configmap apps/c is missing"}},
		"another is wanted": {want: config,
			applied: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"apps"},"data":{"PORT":"2","OLD":"o"}}`,
			lines:   []string{"configmap apps/c: data.HOST is absent, h is wanted", "configmap apps/c: data.PORT is 2, 1 is wanted", "configmap apps/c: data.OLD is o, and is to go"}},
		"somebody edited it": {want: config, change: func(o *unstructured.Unstructured) {
			if err := unstructured.SetNestedField(o.Object, "3", "data", "PORT"); err != nil {
				t.Fatal(err)
			}
		}, lines: []string{"configmap apps/c: data.PORT is 3, 1 is wanted"}},
		"somebody took a label": {want: space, change: func(o *unstructured.Unstructured) {
			unstructured.RemoveNestedField(o.Object, "metadata", "labels", "level")
		}, lines: []string{"namespace apps: metadata.labels.level is absent, restricted is wanted"}},
		"a secret": {want: secret, live: kept},
		"somebody edited a secret": {want: secret, live: kept, change: func(o *unstructured.Unstructured) {
			if err := unstructured.SetNestedField(o.Object, "cQ==", "data", "PASSWORD"); err != nil {
				t.Fatal(err)
			}
		}, lines: []string{"secret apps/s differs"}},
	} {
		t.Run(name, func(t *testing.T) {
			want := decode(test.want)
			applied := want.DeepCopy()
			if test.applied != "" {
				applied = decode(test.applied)
			}
			for _, o := range []*unstructured.Unstructured{want, applied} {
				if err := stamp(o); err != nil {
					t.Fatal(err)
				}
			}
			live := applied
			if test.live != "" {
				live = decode(test.live)
				live.SetAnnotations(applied.GetAnnotations())
				live.SetLabels(applied.GetLabels())
			}
			if test.change != nil {
				test.change(live)
			}
			if diff := cmp.Diff(test.lines, objectDiffers(want, live)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := objectDiffers(decode(config), nil); !cmp.Equal(got, []string{"configmap apps/c is missing"}) {
		t.Error(got)
	}
}
