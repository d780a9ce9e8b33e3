package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"

	"platformctl/pkg/fault"
)

// HashKey is the label or annotation that carries the hash of the state an object was applied for.
const HashKey = "platformctl/hash"

// Decode reads the objects of a manifest: YAML or JSON documents, empty ones left out, lists taken apart.
func Decode(manifest []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := dec.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading a manifest: %w", err)
		}
		switch {
		case len(o.Object) == 0:
		case o.IsList():
			if err := o.EachListItem(func(item runtime.Object) error {
				objects = append(objects, item.(*unstructured.Unstructured))
				return nil
			}); err != nil {
				return nil, fmt.Errorf("reading a manifest: %w", err)
			}
		case o.GetKind() == "" || o.GetAPIVersion() == "":
			return nil, fmt.Errorf("reading a manifest: an object named %q has no kind or no apiVersion", o.GetName())
		default:
			objects = append(objects, o)
		}
	}
}

// resource is the client for the kind, and within the namespace, of an object.
func (c *Client) resource(o *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	gvk := o.GroupVersionKind()
	mapping, err := c.usual.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		mapping, err = c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	}
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		return c.dynamic.Resource(mapping.Resource).Namespace(o.GetNamespace()), nil
	}
	return c.dynamic.Resource(mapping.Resource), nil
}

// Describe names an object for people: "configmap apps/rabbitmq-config-apps".
func Describe(o *unstructured.Unstructured) string {
	return named(o.GetKind(), o.GetNamespace(), o.GetName())
}

func named(kind, namespace, name string) string {
	if namespace != "" {
		name = namespace + "/" + name
	}
	return strings.ToLower(kind) + " " + name
}

// Apply applies objects one after the other, on the server's side, as the given field manager. Fields that another manager
// claims are taken over; fields that were ours and are no longer named go.
func (c *Client) Apply(ctx context.Context, manager string, objects ...*unstructured.Unstructured) error {
	for _, o := range objects {
		r, err := c.resource(o)
		if err == nil {
			_, err = r.Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: manager, Force: true})
		}
		if err != nil {
			return fmt.Errorf("applying %s: %w", Describe(o), err)
		}
	}
	return nil
}

// Get returns the live object of o's kind, namespace and name, or nil where there is none.
func (c *Client) Get(ctx context.Context, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	r, err := c.resource(o)
	if err != nil {
		return nil, fmt.Errorf("getting %s: %w", Describe(o), err)
	}
	live, err := r.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("getting %s: %w", Describe(o), err)
	}
	return live, nil
}

// Hash is what the live object carries under HashKey as a label or an annotation, "" where there is no object or no hash.
func (c *Client) Hash(ctx context.Context, o *unstructured.Unstructured) (string, error) {
	live, err := c.Get(ctx, o)
	if err != nil || live == nil {
		return "", err
	}
	if h := live.GetLabels()[HashKey]; h != "" {
		return h, nil
	}
	return live.GetAnnotations()[HashKey], nil
}

// Delete deletes objects in the background; those that are not there are fine.
func (c *Client) Delete(ctx context.Context, objects ...*unstructured.Unstructured) error {
	background := metav1.DeletePropagationBackground
	for _, o := range objects {
		r, err := c.resource(o)
		if err == nil {
			err = r.Delete(ctx, o.GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting %s: %w", Describe(o), err)
		}
	}
	return nil
}

// Secret returns a Secret's data, nil where there is none.
func (c *Client) Secret(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	s, err := c.typed.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading secret %s/%s: %w", namespace, name, err)
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	return s.Data, nil
}

// DeleteNamespaces deletes namespaces with all that is in them and waits until they are gone; those that are not there are
// fine. say hears what holds one up.
func (c *Client) DeleteNamespaces(ctx context.Context, say func(Trouble), names ...string) error {
	api := c.typed.CoreV1().Namespaces()
	for _, name := range names {
		if err := api.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("deleting namespace %s: %w", name, err)
		}
	}
	left := map[string]corev1.Namespace{}
	var last Trouble
	err := follow(ctx, source(api.List, api.Watch, metav1.ListOptions{}), func(change change) bool {
		if change.err != nil {
			last = Trouble{Object: "the API server", Reason: "NoAnswer", Message: change.err.Error()}
			say(last)
			return false
		}
		update(left, change, func(n *corev1.Namespace) string { return n.Name })
		for _, name := range names {
			n, there := left[name]
			if !there {
				continue
			}
			if t := terminating(n); t != last {
				last = t
				say(t)
			}
			return false
		}
		return true
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.TimedOut("see what is left: kubectl get all -n "+strings.TrimPrefix(last.Object, "namespace "),
			"the namespaces were not gone in time:\n%w", &Unready{Troubles: []Trouble{last}})
	}
	return err
}

// terminating tells what a namespace that is being deleted waits for.
func terminating(n corev1.Namespace) Trouble {
	t := Trouble{Object: "namespace " + n.Name, Reason: "Terminating", Message: "what is in it is being deleted", Grade: Waiting}
	i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NamespaceCondition) bool {
		return c.Status == corev1.ConditionTrue && c.Message != ""
	})
	if i >= 0 {
		t.Reason, t.Message = n.Status.Conditions[i].Reason, n.Status.Conditions[i].Message
	}
	return t
}
