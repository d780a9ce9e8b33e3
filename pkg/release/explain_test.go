package release

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	helm "helm.sh/helm/v3/pkg/release"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// deployed is postgresql, installed with these values.
const deployed = "image: {registry: r, repository: pg, tag: \"1\"}\nauth: {existingSecret: s, username: shop}\nprimary: {resources: {limits: {memory: 1Gi}}, podAnnotations: {platformctl/config: one}}\n"

func TestExplainNamesWhatDiffers(t *testing.T) {
	const workload = "statefulset/postgresql"
	b := newBench()
	b.apply(t, with(t, "postgresql", deployed))
	chart := filepath.Join(t.TempDir(), "postgresql")
	if err := os.CopyFS(chart, os.DirFS(filepath.Join(checkout, "charts", "postgresql"))); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(chart, "files", "start.sh")
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, append(text, "# more\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*Spec)
		want   Difference
	}{
		{"nothing", func(*Spec) {}, Difference{Revision: 1}},
		{"a value that its pods see", func(s *Spec) {
			s.Override = map[string]any{"primary": map[string]any{"settings": map[string]any{"jit": "on"}}}
		},
			Difference{Revision: 1, Lines: []string{"values: primary.settings.jit is absent, on is wanted"}, Restarts: []string{workload}}},
		{"a value that they do not", func(s *Spec) {
			s.Override = map[string]any{"primary": map[string]any{"service": map[string]any{"annotations": map[string]any{"a": "b"}}}}
		},
			Difference{Revision: 1, Lines: []string{"values: primary.service.annotations.a is absent, b is wanted"}}},
		{"the image", func(s *Spec) {
			s.Override = map[string]any{"image": map[string]any{"registry": "r", "repository": "pg", "tag": "2"}}
		},
			Difference{Revision: 1, Lines: []string{"image: r/pg:2 is wanted in place of r/pg:1"}, Restarts: []string{workload}}},
		{"what its pods read", func(s *Spec) {
			s.Override = map[string]any{"primary": map[string]any{"podAnnotations": map[string]any{"platformctl/config": "two"}}}
		},
			Difference{Revision: 1, Lines: []string{"ConfigMaps or Secrets that its pods read have changed"}, Restarts: []string{workload}}},
		{"a file of the chart", func(s *Spec) { s.Chart = chart },
			Difference{Revision: 1, Lines: []string{"chart: files/start.sh differs"}, Restarts: []string{workload}}},
		{"another release", func(s *Spec) { s.Name = "second" }, Difference{Lines: []string{"it is not installed"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := with(t, "postgresql", deployed)
			test.change(&spec)
			got, err := b.Explain(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if images, err := b.Installed(t.Context(), "postgresql", "database"); err != nil || !slices.Equal(images, []string{"r/pg:1"}) {
		t.Errorf("it runs %q, %v", images, err)
	}
	b.leave(t, "postgresql", helm.StatusPendingUpgrade)
	if got, err := b.Explain(t.Context(), with(t, "postgresql", deployed)); err != nil || !slices.Equal(got.Lines, []string{"revision 1 was left pending-upgrade"}) {
		t.Errorf("left half-way: %+v, %v", got, err)
	}
}

func TestPasswordsAreNotPrinted(t *testing.T) {
	is := map[string]any{"auth": map[string]any{"password": "old", "existingSecretPasswordKey": "a"}}
	want := map[string]any{"auth": map[string]any{"password": "new", "existingSecretPasswordKey": "b"}}
	got := valueChanges(is, want, false)
	if !slices.Equal(got, []string{"values: auth.existingSecretPasswordKey is a, b is wanted", "values: auth.password is another one"}) {
		t.Errorf("%q", got)
	}
}

// Somebody's edit is put back by the next Apply; what the manifest does not say is theirs.
func TestDriftIsWhatTheManifestSaysAndTheClusterHasNot(t *testing.T) {
	spec := with(t, "postgresql", deployed)
	container := func(o *unstructured.Unstructured) map[string]any {
		all, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		return all[0].(map[string]any)
	}
	put := func(o *unstructured.Unstructured, c map[string]any) {
		if err := unstructured.SetNestedSlice(o.Object, []any{map[string]any{"name": "a-sidecar"}, c}, "spec", "template", "spec", "containers"); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name     string
		edit     func(o *unstructured.Unstructured)
		want     []string
		restarts bool
	}{
		{"what the API server adds and rewrites", func(o *unstructured.Unstructured) {
			c := container(o)
			c["terminationMessagePath"] = "/dev/termination-log"
			limits := c["resources"].(map[string]any)["limits"].(map[string]any)
			limits["memory"] = "1024Mi"
			put(o, c)
			unstructured.RemoveNestedField(o.Object, "spec", "template", "spec", "nodeSelector")
		}, nil, false},
		{"the number of pods", func(o *unstructured.Unstructured) {
			if err := unstructured.SetNestedField(o.Object, int64(3), "spec", "replicas"); err != nil {
				t.Fatal(err)
			}
		}, []string{"statefulset/postgresql spec.replicas is 3, 1 is wanted"}, false},
		{"a field of the pods", func(o *unstructured.Unstructured) {
			c := container(o)
			c["imagePullPolicy"] = "Sometimes"
			put(o, c)
		}, []string{"statefulset/postgresql spec.template.spec.containers[postgresql].imagePullPolicy is Sometimes, IfNotPresent is wanted"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench()
			b.apply(t, spec)
			b.edited = func(o *unstructured.Unstructured) {
				if o.GetKind() == "StatefulSet" {
					test.edit(o)
				}
			}
			differs, restarts, err := b.Drift(t.Context(), spec)
			if err != nil || !slices.Equal(differs, test.want) || (len(restarts) > 0) != test.restarts {
				t.Errorf("it differs in %q, restarts %q, %v", differs, restarts, err)
			}
			if got := b.apply(t, spec); (got.Action == Repaired) != (len(test.want) > 0) {
				t.Errorf("Apply: %+v", got)
			}
		})
	}
}

func TestLacks(t *testing.T) {
	for name, test := range map[string]struct {
		want, is any
		paths    []string
	}{
		"equal":                {map[string]any{"a": int64(1)}, map[string]any{"a": float64(1), "b": true}, nil},
		"a quantity":           {"0.5", "500m", nil},
		"another quantity":     {"1Gi", "2Gi", []string{""}},
		"empty, and left out":  {map[string]any{"a": map[string]any{}, "b": []any{}, "c": nil, "d": false, "e": ""}, map[string]any{}, nil},
		"left out":             {map[string]any{"a": "x"}, map[string]any{}, []string{"a"}},
		"a list in its order":  {[]any{"a", "b"}, []any{"b", "a"}, []string{"[0]", "[1]"}},
		"a shorter list":       {[]any{"a", "b"}, []any{"a"}, []string{"[1]"}},
		"a list by name":       {[]any{map[string]any{"name": "x", "v": "1"}}, []any{map[string]any{"name": "w"}, map[string]any{"name": "x", "v": "1"}}, nil},
		"one of it is changed": {[]any{map[string]any{"name": "x", "v": "1"}}, []any{map[string]any{"name": "x", "v": "2"}}, []string{"[x].v"}},
		"one of it is gone":    {[]any{map[string]any{"name": "x"}}, []any{map[string]any{"name": "w"}}, []string{"[x].name"}},
	} {
		var paths []string
		for _, d := range lacks("", test.want, test.is) {
			paths = append(paths, d.path)
		}
		if !slices.Equal(paths, test.paths) {
			t.Errorf("%s: %q, want %q", name, paths, test.paths)
		}
	}
}
