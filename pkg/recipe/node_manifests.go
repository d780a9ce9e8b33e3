package recipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/yaml"
)

// manifests are grants that kubeadm leaves out, the storage provisioner and CoreDNS, as kind applies them to a new cluster.
func (n *node) manifests(ctx context.Context, tools string) ([]byte, error) {
	access, err := file("access.yaml", nil)
	if err != nil {
		return nil, err
	}
	storage, err := file("storage.yaml", map[string]string{"Image": n.storageImage()})
	if err != nil {
		return nil, err
	}
	dns, err := n.kitchen.run.Run(ctx, n.tool(tools, "kubeadm", "init", "phase", "addon", "coredns", "--print-manifest", "--kubernetes-version="+n.version))
	if err != nil {
		return nil, fmt.Errorf("ask kubeadm for CoreDNS' manifest: %w", err)
	}
	dns, err = forOneNode(dns)
	if err != nil {
		return nil, fmt.Errorf("read CoreDNS' manifest: %w", err)
	}
	return bytes.Join([][]byte{access, storage, dns}, []byte("\n---\n")), nil
}

// forOneNode makes CoreDNS one pod that is ready as soon as it is: a second one on the same node serves nobody, and ten seconds
// between two looks at its readiness would be spent waiting. Its Service leads to it before it is seen to be ready: who comes too early
// asks again, and there is nobody else to ask. It asks the API server by the node's name: by its Service, while
// kube-proxy is still starting, the API server would seem away for seconds, and all who ask for names would wait.
func forOneNode(manifest []byte) ([]byte, error) {
	var documents [][]byte
	deployments, services := 0, 0
	for _, text := range bytes.Split(manifest, []byte("\n---")) {
		var object map[string]any
		if err := yaml.Unmarshal(bytes.TrimPrefix(text, []byte("---")), &object); err != nil {
			return nil, err
		}
		if len(object) == 0 {
			continue
		}
		if metadata, ok := object["metadata"].(map[string]any); ok {
			delete(metadata, "resourceVersion") // for an update; ours creates
		}
		if object["kind"] == "Deployment" {
			deployments++
			if err := oneReadyPod(object); err != nil {
				return nil, err
			}
		}
		if object["kind"] == "Service" {
			services++
			spec, ok := object["spec"].(map[string]any)
			if !ok {
				return nil, errors.New("the service has no spec")
			}
			spec["publishNotReadyAddresses"] = true
		}
		document, err := yaml.Marshal(object)
		if err != nil {
			return nil, err
		}
		documents = append(documents, document)
	}
	if deployments != 1 || services != 1 {
		return nil, fmt.Errorf("there are %d deployments and %d services in it", deployments, services)
	}
	return bytes.Join(documents, []byte("---\n")), nil
}

func oneReadyPod(deployment map[string]any) error {
	var at any = deployment
	for _, field := range []string{"spec", "template", "spec", "containers"} {
		object, ok := at.(map[string]any)
		if !ok {
			return errors.New("the deployment has no containers")
		}
		at = object[field]
	}
	containers, ok := at.([]any)
	if !ok || len(containers) != 1 {
		return errors.New("the deployment has not one container")
	}
	container, _ := containers[0].(map[string]any)
	probe, ok := container["readinessProbe"].(map[string]any)
	if !ok {
		return errors.New("the container has no readiness probe")
	}
	probe["periodSeconds"] = 1
	container["env"] = []any{
		map[string]any{"name": "KUBERNETES_SERVICE_HOST", "valueFrom": map[string]any{"fieldRef": map[string]any{"fieldPath": "spec.nodeName"}}},
		map[string]any{"name": "KUBERNETES_SERVICE_PORT", "value": "6443"},
	}
	deployment["spec"].(map[string]any)["replicas"] = 1
	return nil
}
