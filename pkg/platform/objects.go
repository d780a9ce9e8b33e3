package platform

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
	"platformctl/pkg/release"
)

// manager is the field manager that platformctl's own objects are applied as.
const manager = "platformctl"

// objectsStep has the objects in the cluster as they should be; each carries the hash of that.
func (p *Platform) objectsStep(name string, objects func(context.Context) ([]*unstructured.Unstructured, error), after ...*plan.Step) *plan.Step {
	var changed []*unstructured.Unstructured
	var going []string // namespaces that are being deleted: what is applied to them would go with them
	return &plan.Step{
		Name: name, After: after, Timeout: p.set.Timeout,
		Check: func(ctx context.Context) (string, error) {
			wanted, err := objects(ctx)
			if err != nil {
				return "", err
			}
			changed, going = nil, nil
			var d difference
			defer func() { p.detail(name, d) }()
			for _, o := range wanted {
				if err := stamp(o); err != nil {
					return "", err
				}
				live, err := p.kube.Get(ctx, o)
				if err != nil {
					return "", err
				}
				if live != nil && live.GetDeletionTimestamp() != nil && live.GetKind() == "Namespace" {
					going = append(going, live.GetName())
				}
				if lines := objectDiffers(o, live); len(lines) > 0 {
					changed = append(changed, o)
					d.Lines = append(d.Lines, lines...)
				}
			}
			if len(going) > 0 {
				return "an earlier cleanup is still deleting " + strings.Join(going, ", "), nil
			}
			switch len(changed) {
			case 0:
				return "", nil
			case 1:
				return kube.Describe(changed[0]) + " is missing or differs", nil
			}
			return fmt.Sprintf("%s and %d more are missing or differ", kube.Describe(changed[0]), len(changed)-1), nil
		},
		Do: func(ctx context.Context, note func(plan.Note)) error {
			if len(going) > 0 {
				if err := p.kube.DeleteNamespaces(ctx, func(t kube.Trouble) { note(waitingFor(t)) }, going...); err != nil {
					return err
				}
			}
			return p.kube.Apply(ctx, manager, changed...)
		},
	}
}

// objectDiffers tells in what a live object differs from one of ours, a line each: it is not there, it was made for something else
// than is wanted now, or somebody has changed it since. What a Secret holds is nothing to print.
func objectDiffers(want, live *unstructured.Unstructured) []string {
	named := kube.Describe(want)
	if live == nil || live.GetDeletionTimestamp() != nil {
		return []string{named + " is missing"}
	}
	differs := live.GetAnnotations()[kube.HashKey] != want.GetAnnotations()[kube.HashKey]
	lacking := release.Lacks(stored(want).Object, live.Object)
	if !differs && len(lacking) == 0 {
		return nil
	}
	if want.GetKind() == "Secret" {
		return []string{named + " differs"}
	}
	var all []string
	for _, line := range lacking {
		all = append(all, named+": "+line)
	}
	if differs { // what is no longer wanted
		now, is := data(want), data(live)
		for _, key := range sorted(is) {
			if _, ok := now[key]; !ok {
				all = append(all, fmt.Sprintf("%s: data.%s is %s, and is to go", named, key, is[key]))
			}
		}
	}
	if len(all) == 0 {
		all = []string{named + " differs"}
	}
	return all
}

// stored is an object as the API server gives it back, without the hash.
func stored(o *unstructured.Unstructured) *unstructured.Unstructured {
	o = o.DeepCopy()
	unstructured.RemoveNestedField(o.Object, "metadata", "annotations", kube.HashKey)
	if text, ok, err := unstructured.NestedStringMap(o.Object, "stringData"); ok && err == nil {
		values := map[string]any{}
		for key, value := range text {
			values[key] = base64.StdEncoding.EncodeToString([]byte(value))
		}
		o.Object["data"] = values
		delete(o.Object, "stringData")
	}
	return o
}

// data is a ConfigMap's; what is not text was refused before.
func data(o *unstructured.Unstructured) map[string]string {
	values, _, err := unstructured.NestedStringMap(o.Object, "data")
	if err != nil {
		return nil
	}
	return values
}

// stamp gives the object our label, and the hash of all that it was before.
func stamp(o *unstructured.Unstructured) error {
	raw, err := o.MarshalJSON()
	if err != nil {
		return fmt.Errorf("hash %s: %w", kube.Describe(o), err)
	}
	sum := sha256.Sum256(raw)
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[kube.HashKey] = hex.EncodeToString(sum[:16])
	o.SetAnnotations(annotations)
	labels := o.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels["app.kubernetes.io/managed-by"] = manager
	o.SetLabels(labels)
	return nil
}

// namespaces are the platform's; what runs in them must meet the restricted level.
func namespaces(context.Context) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for _, name := range Namespaces() {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace"}}
		o.SetName(name)
		o.SetLabels(map[string]string{
			"pod-security.kubernetes.io/enforce": "restricted",
			"pod-security.kubernetes.io/warn":    "restricted",
		})
		all = append(all, o)
	}
	return all, nil
}

// configMaps are those of the checkout's configmaps folder.
func (p *Platform) configMaps(context.Context) ([]*unstructured.Unstructured, error) {
	paths, err := filepath.Glob(filepath.Join(p.set.Project, "configmaps", "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("list the ConfigMaps: %w", err)
	}
	if len(paths) == 0 {
		return nil, fault.Usage("get the checkout's files back: git checkout configmaps", "there are no ConfigMaps in %s", filepath.Join(p.set.Project, "configmaps"))
	}
	var all []*unstructured.Unstructured
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read the ConfigMaps: %w", err)
		}
		objects, err := kube.Decode(raw)
		if err != nil {
			return nil, fault.Usage("mend the file", "%s: %w", path, err)
		}
		for _, o := range objects {
			if why := notAConfigMap(o); why != "" {
				return nil, fault.Usage("mend the file", "%s: %s", path, why)
			}
		}
		all = append(all, objects...)
	}
	return all, nil
}

// secretsStep has the platform's Secrets in the cluster and in the checkout's secrets folder. What is in neither is generated
// once; where the cluster has a value, that one counts.
func (p *Platform) secretsStep(after ...*plan.Step) *plan.Step {
	files := secretFiles{dir: filepath.Join(p.set.Project, "secrets")}
	step := p.objectsStep("secrets", func(ctx context.Context) (_ []*unstructured.Unstructured, err error) {
		if p.filled, err = p.fillSecrets(ctx, files); err != nil {
			return nil, err
		}
		return secretObjects(p.filled)
	}, after...)
	check, apply := step.Check, step.Do
	step.Check = func(ctx context.Context) (string, error) {
		why, err := check(ctx)
		if err != nil || why != "" {
			return why, err
		}
		for _, name := range sorted(p.filled) {
			if _, err := os.Stat(filepath.Join(files.dir, name)); err != nil {
				return "secrets/" + name + " is not there", nil
			}
		}
		return "", nil
	}
	step.Do = func(ctx context.Context, note func(plan.Note)) error {
		// First the files: what is only in them can be applied by the next run, what is only in the cluster could be lost.
		if err := files.write(p.filled); err != nil {
			return err
		}
		return apply(ctx, note)
	}
	return step
}

func (p *Platform) fillSecrets(ctx context.Context, files secretFiles) (map[string]secret, error) {
	examples, err := files.read("examples")
	if err != nil {
		return nil, err
	}
	if len(examples) == 0 {
		return nil, fault.Usage("get the checkout's files back: git checkout secrets", "there are no Secrets in %s", filepath.Join(files.dir, "examples"))
	}
	written, err := files.read("")
	if err != nil {
		return nil, err
	}
	var failed error
	inCluster := known(examples, func(namespace, name string) map[string]string {
		data, err := p.kube.Secret(ctx, namespace, name)
		if err != nil {
			failed = err
		}
		values := map[string]string{}
		for key, value := range data {
			values[key] = string(value)
		}
		return values
	})
	if failed != nil {
		return nil, failed
	}
	inFiles := known(examples, func(namespace, name string) map[string]string {
		for _, s := range written {
			if s.Metadata.Namespace == namespace && s.Metadata.Name == name {
				return s.StringData
			}
		}
		return nil
	})
	return fill(examples, inCluster, inFiles)
}

func secretObjects(secrets map[string]secret) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for _, name := range sorted(secrets) {
		s := secrets[name]
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&s)
		if err != nil {
			return nil, fmt.Errorf("make the Secret of %s: %w", name, err)
		}
		all = append(all, &unstructured.Unstructured{Object: object})
	}
	return all, nil
}

// configHash is a hash over the ConfigMaps and Secrets of a namespace. Pods read them when they start, so a change has to
// replace the pods. The Secrets must have been looked at.
func (p *Platform) configHash(ctx context.Context, namespace string) (string, error) {
	configs, err := p.configMaps(ctx)
	if err != nil {
		return "", err
	}
	secrets, err := secretObjects(p.filled)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, o := range append(configs, secrets...) {
		if o.GetNamespace() != namespace {
			continue
		}
		raw, err := o.MarshalJSON()
		if err != nil {
			return "", fmt.Errorf("hash %s: %w", kube.Describe(o), err)
		}
		sum.Write(raw)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

// notAConfigMap says what the API server would refuse in an object that is to be a ConfigMap, "" where it is one.
func notAConfigMap(o *unstructured.Unstructured) string {
	if o.GetKind() != "ConfigMap" || o.GetName() == "" || o.GetNamespace() == "" {
		return "it is no ConfigMap with metadata.name and metadata.namespace"
	}
	data, _, err := unstructured.NestedMap(o.Object, "data")
	if err != nil {
		return "data is not a map"
	}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if _, ok := data[key].(string); !ok {
			return fmt.Sprintf("%s is not a string; put it in quotes: %s: %q", key, key, fmt.Sprint(data[key]))
		}
	}
	return ""
}
