package kube

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func pod(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "order-api-1", Namespace: "apps", UID: "u1", Labels: map[string]string{"app": "order-api"}}}
	p.Spec.Containers = []corev1.Container{{Name: "main"}}
	p.Status.Phase = corev1.PodPending
	if change != nil {
		change(p)
	}
	return p
}

func waiting(name, reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
}

func running(name string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, ContainerID: "c://now", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
}

func died(code int32, reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, Message: message, ContainerID: "c://dead"}}
}

func ready(status corev1.ConditionStatus) corev1.PodCondition {
	return corev1.PodCondition{Type: corev1.PodReady, Status: status, Reason: "ContainersNotReady", Message: "containers with unready status: [main]"}
}

func event(kind, name, typ, reason, message string, minute int) corev1.Event {
	return corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Name: name + reason, Namespace: "apps"},
		InvolvedObject: corev1.ObjectReference{Kind: kind, Namespace: "apps", Name: name},
		Type:           typ, Reason: reason, Message: message,
		LastTimestamp: metav1.Time{Time: time.Date(2026, 11, 24, 12, minute, 0, 0, time.UTC)},
	}
}

func TestDiagnose(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	for name, test := range map[string]struct {
		pod    *corev1.Pod
		events []corev1.Event
		line   string
		want   string // "grade reason: message", "" for no trouble
	}{
		"ready": {pod: pod(func(p *corev1.Pod) { p.Status.Conditions = []corev1.PodCondition{ready(corev1.ConditionTrue)} })},
		"done":  {pod: pod(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })},
		"going": {pod: pod(func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} })},
		"no room": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available: 1 Insufficient memory."}}
			}),
			want: "0 Unschedulable: 0/1 nodes are available: 1 Insufficient memory.",
		},
		"no volume": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "unbound claims"}}
				p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-0"}}}}
			}),
			events: []corev1.Event{
				event("PersistentVolumeClaim", "data-0", "Warning", "ProvisioningFailed", `storageclass "fast" not found`, 1),
				event("PersistentVolumeClaim", "data-9", "Warning", "ProvisioningFailed", "of another", 2),
			},
			want: `0 ProvisioningFailed: storageclass "fast" not found`,
		},
		"image cannot be pulled": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("main", "ImagePullBackOff", `Back-off pulling image "x"`)}
			}),
			want: `2 ImagePullBackOff: Back-off pulling image "x"`,
		},
		"image on its way": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("main", "ContainerCreating", "")}
			}),
			events: []corev1.Event{event("Pod", "order-api-1", "Normal", "Scheduled", "assigned", 1), event("Pod", "order-api-1", "Normal", "Pulling", `Pulling image "x"`, 2)},
			want:   `0 ContainerCreating: Pulling image "x"`,
		},
		"image that is not there, tried again just now": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("main", "ContainerCreating", "")}
			}),
			events: []corev1.Event{
				event("Pod", "order-api-1", "Warning", "ErrImageNeverPull", "not present", 1),
				event("Pod", "order-api-1", "Warning", "Failed", "Error: ErrImageNeverPull", 2),
			},
			want: "0 ErrImageNeverPull: not present",
		},
		"volume cannot be mounted": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("main", "ContainerCreating", "")}
			}),
			events: []corev1.Event{event("Pod", "order-api-1", "Warning", "FailedMount", `secret "x" not found`, 1), event("Pod", "order-api-1", "Normal", "Scheduled", "assigned", 2)},
			want:   `0 FailedMount: secret "x" not found`,
		},
		"events of a namesake before it do not count": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("main", "ContainerCreating", "")}
			}),
			events: []corev1.Event{func() corev1.Event {
				e := event("Pod", "order-api-1", "Warning", "FailedMount", "old", 1)
				e.InvolvedObject.UID = "u0"
				return e
			}()},
			want: "0 ContainerCreating:",
		},
		"secret missing": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("main", "CreateContainerConfigError", `secret "x" not found`)}
			}),
			want: `2 CreateContainerConfigError: secret "x" not found`,
		},
		"crashed once, in this instant down": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.Phase = corev1.PodRunning
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: died(1, "Error", "")}}
			}),
			line: "panic: no database",
			want: "2 Error: container main ended with exit code 1: panic: no database",
		},
		"crash loop, waiting": {
			pod: pod(func(p *corev1.Pod) {
				s := waiting("main", "CrashLoopBackOff", "back-off 10s restarting failed container")
				s.LastTerminationState, s.RestartCount = died(2, "Error", "a\nlast words\n"), 1
				p.Status.Phase, p.Status.ContainerStatuses = corev1.PodRunning, []corev1.ContainerStatus{s}
			}),
			line: "the message on the status counts more",
			want: "2 CrashLoopBackOff: container main ended with exit code 2: last words",
		},
		"crash loop, in this instant up": {
			pod: pod(func(p *corev1.Pod) {
				s := running("main")
				s.LastTerminationState, s.RestartCount = died(2, "Error", ""), 4
				p.Status.Phase, p.Status.ContainerStatuses = corev1.PodRunning, []corev1.ContainerStatus{s}
			}),
			want: "2 CrashLoopBackOff: container main ended with exit code 2",
		},
		"out of memory": {
			pod: pod(func(p *corev1.Pod) {
				s := waiting("main", "CrashLoopBackOff", "")
				s.LastTerminationState, s.RestartCount = died(137, "OOMKilled", ""), 5
				p.Status.ContainerStatuses = []corev1.ContainerStatus{s}
			}),
			want: "2 OOMKilled: container main ended with exit code 137",
		},
		"init container crashes": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "migrate", State: died(1, "Error", "")}}
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("main", "PodInitializing", "")}
			}),
			line: "relation does not exist",
			want: "2 Error: container migrate ended with exit code 1: relation does not exist",
		},
		"init container works": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{running("migrate")}
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("main", "PodInitializing", "")}
			}),
			want: "0 PodInitializing: init container migrate is at work",
		},
		"a sidecar that started does not hold it up": {
			pod: pod(func(p *corev1.Pod) {
				started := true
				p.Spec.InitContainers = []corev1.Container{{Name: "proxy", RestartPolicy: &always}}
				s := running("proxy")
				s.Started = &started
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{s}
				p.Status.Phase, p.Status.ContainerStatuses = corev1.PodRunning, []corev1.ContainerStatus{running("main")}
				p.Status.Conditions = []corev1.PodCondition{ready(corev1.ConditionFalse)}
			}),
			want: "1 ContainersNotReady: containers with unready status: [main]",
		},
		"its probe fails": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.Phase, p.Status.ContainerStatuses = corev1.PodRunning, []corev1.ContainerStatus{running("main")}
				p.Status.Conditions = []corev1.PodCondition{ready(corev1.ConditionFalse)}
			}),
			events: []corev1.Event{event("Pod", "order-api-1", "Warning", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", 1)},
			want:   "1 Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 503",
		},
		"evicted": {
			pod: pod(func(p *corev1.Pod) {
				p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "low on memory"
			}),
			want: "2 Evicted: low on memory",
		},
		"just born": {pod: pod(nil), want: "0 Pending:"},
	} {
		t.Run(name, func(t *testing.T) {
			got, bad := diagnose(test.pod, time.Time{}, about(test.pod, test.events), test.line)
			if bad != (test.want != "") {
				t.Fatalf("diagnose = %v, %v", got, bad)
			}
			if text := strings.TrimSpace(string('0'+rune(got.Grade)) + " " + got.Reason + ": " + got.Message); bad && text != test.want {
				t.Errorf("diagnose = %q\nwant       %q", text, test.want)
			}
			if got.Object != "pod apps/order-api-1" {
				t.Errorf("it names %q", got.Object)
			}
		})
	}
}

func TestUnreadyListsTheWorstFirst(t *testing.T) {
	u := &Unready{Troubles: []Trouble{
		{Object: "pod a/waits", Reason: "Unschedulable", Message: "0/1 nodes", Grade: Waiting},
		{Object: "pod a/probe", Reason: "Unhealthy", Message: "503", Grade: NotReady},
		{Object: "pod a/dead", Reason: "OOMKilled", Grade: Failing},
		{Object: "pod a/bad", Reason: "CrashLoopBackOff", Message: "exit 1", Grade: Failing},
	}}
	want := `failed: pod a/bad: CrashLoopBackOff: exit 1
failed: pod a/dead: OOMKilled
was not ready: pod a/probe: Unhealthy: 503
waited: pod a/waits: Unschedulable: 0/1 nodes`
	if diff := cmp.Diff(want, u.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
