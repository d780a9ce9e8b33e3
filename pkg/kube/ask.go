package kube

import (
	"context"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// Ask is what a pod answers to GET path at one of its ports, by plain HTTP and through the API server.
func (c *Client) Ask(ctx context.Context, namespace, pod string, port int, path string) ([]byte, error) {
	answer, err := c.typed.CoreV1().Pods(namespace).ProxyGet("http", pod, strconv.Itoa(port), path, nil).DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking %s for %s: %w", named("pod", namespace, pod), path, err)
	}
	return answer, nil
}

// Running are the names of a workload's pods whose containers run, ready or not, the oldest first.
func (c *Client) Running(ctx context.Context, w Workload) ([]string, error) {
	pods, err := c.podsOf(ctx, w)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range pods {
		if pods[i].Status.Phase == corev1.PodRunning && !outdated(&pods[i], c.born) {
			names = append(names, pods[i].Name)
		}
	}
	return names, nil
}
