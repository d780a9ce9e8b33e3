package release

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
)

// amiss is one thing in which the cluster is not as a manifest has it.
type amiss struct {
	object string // "deployment/order-api"
	path   string // of the field; "" where the object is gone
	line   string
}

func lines(all []amiss) []string {
	var out []string
	for _, a := range all {
		out = append(out, a.line)
	}
	return out
}

// Drift lists what of the release's manifest the cluster does not have, a line each: objects that are gone, and fields that
// somebody changed; and the workloads whose pods are replaced to put that right. What the manifest says nothing of counts for
// nothing. It asks for each object of the manifest once, and for nothing of Helm's.
func (c *Client) Drift(ctx context.Context, spec Spec) (differs, restarts []string, err error) {
	manifest, err := Render(spec)
	if err != nil {
		return nil, nil, err
	}
	all, err := c.amiss(ctx, spec, manifest)
	return lines(all), restarted(all), err
}

func (c *Client) amiss(ctx context.Context, spec Spec, manifest string) ([]amiss, error) {
	objects, err := parse(manifest)
	if err != nil {
		return nil, err
	}
	found := make([][]amiss, len(objects))
	asking, ctx := errgroup.WithContext(ctx)
	for i, o := range objects {
		asking.Go(func() (err error) {
			found[i], err = c.compare(ctx, spec, o)
			return err
		})
	}
	if err := asking.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(found...), nil
}

// compare asks for one object of a manifest and lists what of it the cluster has not.
func (c *Client) compare(ctx context.Context, spec Spec, o object) ([]amiss, error) {
	kind := o.GroupVersionKind()
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, fmt.Errorf("look up %s of release %s: %w", o.id(), spec.Name, err)
	}
	var client dynamic.ResourceInterface = c.live.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		namespace := o.GetNamespace()
		if namespace == "" {
			namespace = spec.Namespace
		}
		client = c.live.Resource(mapping.Resource).Namespace(namespace)
	}
	live, err := client.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return []amiss{{object: o.id(), line: o.id() + " is gone"}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s of release %s: %w", o.id(), spec.Name, err)
	}
	want, is := maps.Clone(o.Object), maps.Clone(live.Object)
	if o.GetKind() == "Secret" {
		// Its text is stored otherwise than it is written, and is nothing to print.
		for _, field := range []string{"data", "stringData"} {
			delete(want, field)
		}
	}
	var all []amiss
	for _, d := range lacks("", want, is) {
		all = append(all, amiss{o.id(), d.path, o.id() + " " + d.String()})
	}
	return all, nil
}

// Lacks lists the fields of want that the live object is has not, a line each: "data.DB_PORT is 1, 5432 is wanted".
func Lacks(want, is map[string]any) []string {
	var all []string
	for _, d := range lacks("", want, is) {
		all = append(all, d.String())
	}
	return all
}

// difference is a leaf in which two trees differ.
type difference struct {
	path     string
	is, want any
}

func (d difference) String() string {
	return fmt.Sprintf("%s is %s, %s is wanted", d.path, show(d.is), show(d.want))
}

// lacks lists the leaves of want that is has not. The API server adds fields, and elements of lists; it leaves out what is
// empty, and writes quantities in its own way.
func lacks(path string, want, is any) []difference {
	switch want := want.(type) {
	case nil:
		return nil
	case map[string]any:
		tree, ok := is.(map[string]any)
		if !ok && len(want) == 0 {
			return nil
		}
		var all []difference
		for _, key := range sortedKeys(want) {
			all = append(all, lacks(join(path, key), want[key], tree[key])...)
		}
		return all
	case []any:
		have, _ := is.([]any)
		var all []difference
		for i, element := range want {
			at, name := i, fmt.Sprint(i)
			if key := identity(element); key != "" {
				at, name = slices.IndexFunc(have, func(other any) bool { return identity(other) == key }), key
			}
			var other any
			if at >= 0 && at < len(have) {
				other = have[at]
			}
			all = append(all, lacks(fmt.Sprintf("%s[%s]", path, name), element, other)...)
		}
		return all
	}
	if same(want, is) {
		return nil
	}
	return []difference{{path, is, want}}
}

// identity is by what the API server knows an element of a list, "" where it is by its place.
func identity(element any) string {
	tree, ok := element.(map[string]any)
	if !ok {
		return ""
	}
	for _, field := range []string{"name", "mountPath", "containerPort"} {
		switch value := tree[field].(type) {
		case string:
			return value
		case int64, float64:
			return fmt.Sprint(value)
		}
	}
	if meta, ok := tree["metadata"].(map[string]any); ok { // a volumeClaimTemplate
		name, _ := meta["name"].(string)
		return name
	}
	return ""
}

func same(want, is any) bool {
	if is == nil {
		return want == "" || want == false || want == int64(0) || want == float64(0)
	}
	text, other := scalarText(want), scalarText(is)
	if text == other {
		return true
	}
	a, err := resource.ParseQuantity(text)
	b, otherErr := resource.ParseQuantity(other)
	return err == nil && otherErr == nil && a.Cmp(b) == 0
}

func scalarText(value any) string {
	if text, ok := value.(string); ok {
		return text
	}
	return show(value)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// restarted names the workloads whose pods a change of these fields replaces.
func restarted(all []amiss) []string {
	var workloads []string
	for _, a := range all {
		if strings.HasPrefix(a.path, "spec.template.") && !slices.Contains(workloads, a.object) {
			workloads = append(workloads, a.object)
		}
	}
	return workloads
}
