package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"platformctl/pkg/fault"
)

// revisionKey is where Kubernetes notes which of a Deployment's ReplicaSets is of its newest template.
const revisionKey = "deployment.kubernetes.io/revision"

// shownLines is how much of a crashed container's log an error shows: a Go program's panic with the calls that led to it.
const shownLines = 20

// Crash is the error of a wait for a pod that cannot start as it is.
type Crash struct {
	Trouble          // of the pod
	Lines   []string // what its container printed last; none where it printed nothing
	Serving int      // pods of the workload that go on serving all the same
}

func (c *Crash) Error() string {
	text := c.Trouble.String()
	if len(c.Lines) > 0 {
		text += "; it said last:\n  " + strings.Join(c.Lines, "\n  ")
	}
	return text
}

// AwaitDeployment is AwaitRollouts for one Deployment, but for this: what it waits for must start at the first attempt. Its
// error is a *Crash as soon as a container of the newest version has crashed or cannot be started; pods of older versions may
// be in whatever state.
func (c *Client) AwaitDeployment(ctx context.Context, w Workload, say func(Trouble)) error {
	if w.Kind != "Deployment" {
		return fmt.Errorf("%s is no Deployment", w)
	}
	return c.await(ctx, []Workload{w}, say, func(b *board) error { return c.crash(ctx, b, w) })
}

// crash is the *Crash of the Deployment's newest version, nil where it has none.
func (c *Client) crash(ctx context.Context, b *board, w Workload) error {
	ctl, there := b.controllers[w]
	if !there || ctl.observed < ctl.generation {
		return nil // which version is the newest is not known yet
	}
	selector, err := metav1.LabelSelectorAsSelector(ctl.selector)
	if err != nil {
		return fmt.Errorf("reading the selector of %s: %w", w, err)
	}
	for _, pod := range b.pods {
		if pod.Namespace != w.Namespace || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		t, bad := diagnose(&pod, b.born, nil, "")
		if !bad || t.Grade != Failing {
			continue
		}
		newest, err := c.isNewest(ctx, &pod, ctl.revision)
		if err != nil {
			return err
		}
		if !newest {
			continue
		}
		found := &Crash{Trouble: t, Serving: int(ctl.ready)}
		for _, s := range statuses(&pod) {
			if ended(s) != nil && !s.Ready {
				found.Lines = c.lastLines(ctx, &pod, s, shownLines)
				break
			}
		}
		return found
	}
	return nil
}

// isNewest tells whether a Deployment's pod was made by its ReplicaSet of that revision.
func (c *Client) isNewest(ctx context.Context, pod *corev1.Pod, revision string) (bool, error) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != "ReplicaSet" {
		return false, nil
	}
	set, err := c.typed.AppsV1().ReplicaSets(pod.Namespace).Get(ctx, owner.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking for the version of %s: %w", named("pod", pod.Namespace, pod.Name), err)
	}
	return set.Annotations[revisionKey] == revision, nil
}

// Retry deletes the workload's crashed pods, so that new ones are tried at once instead of after the kubelet's pause, which
// grows to minutes. Pods that serve stay. It returns the names of the deleted.
func (c *Client) Retry(ctx context.Context, w Workload) ([]string, error) {
	pods, err := c.podsOf(ctx, w)
	if err != nil {
		return nil, err
	}
	var gone []string
	for i := range pods {
		pod := &pods[i]
		if pod.DeletionTimestamp != nil || podReady(pod) || !slices.ContainsFunc(statuses(pod), func(s corev1.ContainerStatus) bool { return crashed(s, c.born) }) {
			continue
		}
		err := c.typed.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, *metav1.NewPreconditionDeleteOptions(string(pod.UID)))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return gone, fault.New(fault.CodeFailed, "", "deleting the crashed %s: %w", named("pod", pod.Namespace, pod.Name), err)
		}
		gone = append(gone, pod.Name)
	}
	return gone, nil
}
