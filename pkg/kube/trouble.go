package kube

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Grade says how bad a trouble is; the greater the worse.
type Grade int

// The grades of trouble.
const (
	Waiting  Grade = iota // it has not begun: no room, a volume, an image on its way
	NotReady              // it runs and does not answer its probe
	Failing               // it crashed, or cannot start as it is
)

// Trouble is what a wait waits for, in the words of the API server.
type Trouble struct {
	Object  string // "pod apps/order-api-6f7d"
	Reason  string // "ImagePullBackOff"
	Message string // "0/1 nodes are available: …"
	Grade   Grade
}

func (t Trouble) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%s: %s: %s", t.Object, t.Reason, t.Message), ": ")
}

// diagnose decides why a pod is not ready, from the pod, the events about it and the volumes that it claims, and the last line
// that its crashed container printed ("" where that is not known). It returns false for a pod that is ready, done or going.
// born is when the cluster began its present life: what is said to run since before that is not known to run.
func diagnose(pod *corev1.Pod, born time.Time, events []corev1.Event, lastLine string) (Trouble, bool) {
	t := Trouble{Object: named("pod", pod.Namespace, pod.Name)}
	if pod.DeletionTimestamp == nil && outdated(pod, born) {
		t.Reason, t.Message = "Starting", "nothing is known of it since the cluster was started"
		return t, true
	}
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || podReady(pod) {
		return t, false
	}
	if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" { // Evicted, NodeLost
		t.Reason, t.Message, t.Grade = pod.Status.Reason, pod.Status.Message, Failing
		return t, true
	}
	for _, s := range statuses(pod) {
		if crashed(s, born) {
			t.Reason, t.Message, t.Grade = crash(s, lastLine)
			return t, true
		}
		if w := s.State.Waiting; w != nil && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" && w.Reason != "" {
			t.Reason, t.Message, t.Grade = w.Reason, w.Message, Failing
			return t, true
		}
	}
	if cond := condition(pod, corev1.PodScheduled); cond != nil && cond.Status == corev1.ConditionFalse {
		t.Reason, t.Message = cond.Reason, cond.Message
		// The scheduler only says that a claim is not bound; what its provisioner says is the cause.
		if e := latest(events, "PersistentVolumeClaim"); e != nil && e.Type == corev1.EventTypeWarning {
			t.Reason, t.Message = e.Reason, e.Message
		}
		return t, true
	}
	warning := latest(events, "Pod")
	for _, s := range pod.Status.InitContainerStatuses {
		if s.State.Running != nil && (s.Started == nil || !*s.Started || s.RestartCount == 0 && !restartable(pod, s.Name)) {
			t.Reason, t.Message = "PodInitializing", fmt.Sprintf("init container %s is at work", s.Name)
			return t, true
		}
	}
	if pod.Status.Phase == corev1.PodRunning {
		t.Reason, t.Grade, t.Message = "NotReady", NotReady, "no probe has succeeded yet"
		if cond := condition(pod, corev1.PodReady); cond != nil && cond.Reason != "" {
			t.Reason, t.Message = cond.Reason, cond.Message
		}
		if warning != nil && warning.Type == corev1.EventTypeWarning {
			t.Reason, t.Message = warning.Reason, warning.Message
		}
		return t, true
	}
	t.Reason = string(corev1.PodPending)
	for _, s := range statuses(pod) {
		if w := s.State.Waiting; w != nil && w.Reason != "" {
			t.Reason = w.Reason
			break
		}
	}
	if warning != nil {
		t.Message = warning.Message
		if warning.Type == corev1.EventTypeWarning {
			t.Reason = warning.Reason
		}
	}
	return t, true
}

// outdated tells a pod whose status is from before the cluster's present life.
func outdated(pod *corev1.Pod, born time.Time) bool {
	return slices.ContainsFunc(statuses(pod), func(s corev1.ContainerStatus) bool {
		return s.State.Running != nil && s.State.Running.StartedAt.Time.Before(born)
	})
}

// statuses are those of the init containers, then of the others: the order in which they must succeed.
func statuses(pod *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

// restartable tells an init container that stays, a sidecar.
func restartable(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == name && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	})
}

// ended is how the container's current or else its last life ended, nil if none did.
func ended(s corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	if s.State.Terminated != nil {
		return s.State.Terminated
	}
	return s.LastTerminationState.Terminated
}

// crashed tells a container that is down for its own fault or was so a moment ago. In a loop of crashes it is down, waiting
// and up in turn; all three are the same trouble. A life from before the cluster's own ended with that, and is no crash.
func crashed(s corev1.ContainerStatus, born time.Time) bool {
	e := ended(s)
	if e == nil || e.ExitCode == 0 || s.Ready || e.StartedAt.Time.Before(born) {
		return false
	}
	return s.State.Terminated != nil || s.State.Waiting != nil || s.RestartCount > 0
}

// crash puts a crash into words that stay the same while it repeats.
func crash(s corev1.ContainerStatus, lastLine string) (reason, message string, grade Grade) {
	e := ended(s)
	reason = e.Reason
	switch {
	case e.Reason == "OOMKilled":
	case s.RestartCount > 1 || s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff":
		reason = "CrashLoopBackOff"
	case reason == "":
		reason = "Error"
	}
	if text := strings.TrimSpace(e.Message); text != "" {
		lines := strings.Split(text, "\n")
		lastLine = lines[len(lines)-1]
	}
	message = fmt.Sprintf("container %s ended with exit code %d", s.Name, e.ExitCode)
	if lastLine != "" {
		message += ": " + lastLine
	}
	return reason, message, Failing
}

func podReady(pod *corev1.Pod) bool {
	cond := condition(pod, corev1.PodReady)
	return cond != nil && cond.Status == corev1.ConditionTrue
}

func condition(pod *corev1.Pod, of corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == of {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// latest is the last event about an object of that kind; a warning counts more than what is normal.
func latest(events []corev1.Event, kind string) *corev1.Event {
	var found *corev1.Event
	for i := range events {
		e := &events[i]
		if e.InvolvedObject.Kind != kind || strings.HasPrefix(e.Message, "Error: ") {
			continue // the kubelet sends "Error: ErrImagePull" after the event that says why
		}
		switch {
		case found == nil,
			e.Type == corev1.EventTypeWarning && found.Type != corev1.EventTypeWarning,
			e.Type == found.Type && !when(e).Before(when(found)):
			found = e
		}
	}
	return found
}

// when is the last time that an event was seen; there are three ways to write it down.
func when(e *corev1.Event) time.Time {
	t := e.LastTimestamp.Time
	if e.Series != nil && e.Series.LastObservedTime.After(t) {
		t = e.Series.LastObservedTime.Time
	}
	if e.EventTime.After(t) {
		t = e.EventTime.Time
	}
	if e.FirstTimestamp.After(t) {
		t = e.FirstTimestamp.Time
	}
	return t
}

// about keeps the events that concern a pod or a volume that it claims.
func about(pod *corev1.Pod, events []corev1.Event) []corev1.Event {
	var mine []corev1.Event
	for _, e := range events {
		o := e.InvolvedObject
		if o.Namespace != pod.Namespace {
			continue
		}
		claims := o.Kind == "PersistentVolumeClaim" && slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == o.Name
		})
		if claims || o.Kind == "Pod" && o.Name == pod.Name && (o.UID == "" || o.UID == pod.UID) {
			mine = append(mine, e)
		}
	}
	return mine
}

// worst orders troubles: what failed first, then what is not ready, then what waits; by name among equals.
func worst(a, b Trouble) int {
	if a.Grade != b.Grade {
		return int(b.Grade) - int(a.Grade)
	}
	return strings.Compare(a.String(), b.String())
}

// Unready is the error of a wait that was in vain: what failed, then what was not ready, then what waited.
type Unready struct{ Troubles []Trouble }

func (u *Unready) Error() string {
	words := map[Grade]string{Failing: "failed", NotReady: "was not ready", Waiting: "waited"}
	sorted := slices.SortedFunc(slices.Values(u.Troubles), worst)
	var lines []string
	for _, t := range sorted {
		lines = append(lines, fmt.Sprintf("%s: %s", words[t.Grade], t))
	}
	return strings.Join(lines, "\n")
}
