package release

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// object is one object of a manifest.
type object struct{ unstructured.Unstructured }

// parse takes a manifest apart into its objects, in their order.
func parse(manifest string) ([]object, error) {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(manifest)))
	var objects []object
	for {
		text, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read a manifest: %w", err)
		}
		var o object
		if err := yaml.Unmarshal(text, &o.Object); err != nil {
			return nil, fmt.Errorf("read a manifest: %w", err)
		}
		if len(o.Object) > 0 {
			objects = append(objects, o)
		}
	}
}

// pod is the specification of the pods that the object makes, nil if it makes none.
func (o object) pod() (*corev1.PodSpec, error) {
	found, ok, err := unstructured.NestedMap(o.Object, "spec", "template", "spec")
	if err != nil || !ok {
		return nil, err
	}
	text, err := json.Marshal(found)
	if err != nil {
		return nil, fmt.Errorf("read the pod template of %s: %w", o.id(), err)
	}
	var pod corev1.PodSpec
	if err := json.Unmarshal(text, &pod); err != nil {
		return nil, fmt.Errorf("read the pod template of %s: %w", o.id(), err)
	}
	return &pod, nil
}

// template is the object's pod template as it is written, nil if it has none.
func (o object) template() any {
	spec, _ := o.Object["spec"].(map[string]any)
	return spec["template"]
}

// id is the object's kind and name, as kubectl takes them.
func (o object) id() string { return strings.ToLower(o.GetKind()) + "/" + o.GetName() }
