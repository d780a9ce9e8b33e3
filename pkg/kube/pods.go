package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pod is what a status table shows of a pod.
type Pod struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       string    `json:"uid"`   // also in the name of the cgroup that its processes are in
	Phase     string    `json:"phase"` // Pending, Running, Succeeded, Failed, Unknown; Terminating while it is being deleted
	Ready     bool      `json:"ready"`
	Up        int       `json:"up"`                // containers that are ready
	Of        int       `json:"of"`                // containers that it has
	Restarts  int       `json:"restarts"`          // of all its containers
	Reason    string    `json:"reason,omitempty"`  // why it is not ready, in the API server's words; "" when it is
	Message   string    `json:"message,omitempty"` // the sentence to it
	Node      string    `json:"node,omitempty"`
	Created   time.Time `json:"created"`
}

// Pods lists the pods of a namespace that match a label selector; "" is all. The events are asked for too where a pod is not
// ready.
func (c *Client) Pods(ctx context.Context, namespace, selector string) ([]Pod, error) {
	list, err := c.typed.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of namespace %s: %w", namespace, err)
	}
	var events []corev1.Event
	for i := range list.Items {
		if _, bad := diagnose(&list.Items[i], c.born, nil, ""); !bad {
			continue
		}
		all, err := c.typed.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("listing the events of namespace %s: %w", namespace, err)
		}
		events = all.Items
		break
	}
	pods := make([]Pod, 0, len(list.Items))
	for i := range list.Items {
		pods = append(pods, summary(&list.Items[i], events, c.born))
	}
	return pods, nil
}

func summary(pod *corev1.Pod, events []corev1.Event, born time.Time) Pod {
	p := Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Phase: string(pod.Status.Phase), Ready: podReady(pod),
		Of: len(pod.Spec.Containers), Node: pod.Spec.NodeName, Created: pod.CreationTimestamp.Time,
	}
	if pod.DeletionTimestamp != nil {
		p.Phase = "Terminating"
	}
	for _, s := range statuses(pod) {
		p.Restarts += int(s.RestartCount)
	}
	for _, s := range pod.Status.ContainerStatuses {
		if s.Ready {
			p.Up++
		}
	}
	if t, bad := diagnose(pod, born, about(pod, events), ""); bad {
		p.Ready, p.Reason, p.Message = false, t.Reason, t.Message
	}
	if outdated(pod, born) {
		p.Up = 0
	}
	return p
}

// podsOf lists the pods of a workload, the oldest first.
func (c *Client) podsOf(ctx context.Context, w Workload) ([]corev1.Pod, error) {
	selector, err := c.selectorOf(ctx, w)
	if err != nil {
		return nil, err
	}
	list, err := c.typed.CoreV1().Pods(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of %s: %w", w, err)
	}
	return list.Items, nil
}

// selectorOf is the label selector by which a workload knows its pods.
func (c *Client) selectorOf(ctx context.Context, w Workload) (string, error) {
	found, err := c.controllerOf(ctx, w)
	if err != nil {
		return "", err
	}
	if found == nil {
		return "", missing(w)
	}
	selector, err := metav1.LabelSelectorAsSelector(found.selector)
	if err != nil {
		return "", fmt.Errorf("reading the selector of %s: %w", w, err)
	}
	return selector.String(), nil
}
