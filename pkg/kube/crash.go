package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

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
	var t Trouble
	pod, err := c.newestPod(ctx, b, w, func(p *corev1.Pod) (bad bool) {
		t, bad = diagnose(p, b.born, nil, "")
		return bad && t.Grade == Failing
	})
	if pod == nil || err != nil {
		return err
	}
	found := &Crash{Trouble: t, Serving: int(ctl.ready)}
	for _, s := range statuses(pod) {
		if ended(s) != nil && !s.Ready {
			found.Lines = c.lastLines(ctx, pod, s, shownLines)
			break
		}
	}
	return found
}

// exitMisconfigured is EX_CONFIG of BSD's sysexits.h: a program ends so that cannot run with the configuration it was given.
const exitMisconfigured = 78

// misconfigured is the error of Deployments whose newest version says that it cannot run as it is configured, by a container that was
// started since then; nil where none does.
func (c *Client) misconfigured(ctx context.Context, b *board, workloads []Workload, since time.Time) error {
	for _, w := range workloads {
		if ctl := b.controllers[w]; w.Kind != "Deployment" || ctl.observed < ctl.generation {
			continue
		}
		pod, err := c.newestPod(ctx, b, w, func(p *corev1.Pod) bool {
			return slices.ContainsFunc(statuses(p), func(s corev1.ContainerStatus) bool {
				e := ended(s)
				return crashed(s, b.born) && e.ExitCode == exitMisconfigured && !e.StartedAt.Time.Before(since.Truncate(time.Second))
			})
		})
		if err != nil {
			return err
		}
		if pod != nil {
			t, _ := diagnose(pod, b.born, nil, b.lines[crashID(pod, b.born)])
			return fault.New(fault.CodeFailed, "correct it in configmaps, secrets or values, then platformctl up",
				"the workloads cannot run as they are configured:\n%w", &Unready{Troubles: []Trouble{t}})
		}
	}
	return nil
}

// newestPod is a pod of a Deployment's newest version of which holds is true, nil where there is none.
func (c *Client) newestPod(ctx context.Context, b *board, w Workload, holds func(*corev1.Pod) bool) (*corev1.Pod, error) {
	ctl, there := b.controllers[w]
	if !there {
		return nil, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(ctl.selector)
	if err != nil {
		return nil, fmt.Errorf("reading the selector of %s: %w", w, err)
	}
	for _, pod := range b.pods {
		if pod.Namespace != w.Namespace || !selector.Matches(labels.Set(pod.Labels)) || !holds(&pod) {
			continue
		}
		if newest, err := c.isNewest(ctx, &pod, ctl.revision); newest || err != nil {
			return &pod, err
		}
	}
	return nil, nil
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
