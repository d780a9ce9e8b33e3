package kube

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// started is when the cluster of these tests began its present life.
var started = time.Date(2026, 11, 25, 22, 31, 7, 900_000_000, time.UTC)

// since is a ready pod whose container is said to run from then on.
func since(at time.Time) *corev1.Pod {
	return pod(func(p *corev1.Pod) {
		s := running("main")
		s.Ready, s.State.Running.StartedAt = true, metav1.Time{Time: at.Truncate(time.Second)}
		p.Status.Phase, p.Status.ContainerStatuses = corev1.PodRunning, []corev1.ContainerStatus{s}
		p.Status.Conditions = []corev1.PodCondition{ready(corev1.ConditionTrue)}
	})
}

func client(born time.Time, set *fake.Clientset) *Client {
	return &Client{typed: set, born: born.Truncate(time.Second)}
}

// After a stop and a start the API server says for some seconds what was true before.
func TestWhatIsFromBeforeTheStartIsNotBelieved(t *testing.T) {
	old, now := since(started.Add(-time.Minute)), since(started.Add(50*time.Millisecond))
	c := client(started, fake.NewClientset(deployment(1), old))
	if done, why, err := c.Rollout(t.Context(), orderAPI); err != nil || done || !strings.Contains(why, "since the cluster was started") {
		t.Errorf("Rollout = %v, %q, %v", done, why, err)
	}
	pods, err := c.Pods(t.Context(), "apps", "")
	if err != nil || len(pods) != 1 || pods[0].Ready || pods[0].Up != 0 || pods[0].Reason != "Starting" {
		t.Errorf("Pods = %+v, %v", pods, err)
	}
	c = client(started, fake.NewClientset(deployment(1), now))
	if done, why, err := c.Rollout(t.Context(), orderAPI); err != nil || !done {
		t.Errorf("of this life: %v, %q, %v", done, why, err)
	}
	// One that is being deleted says nothing of the workload.
	old.DeletionTimestamp, old.Finalizers = &metav1.Time{Time: started}, []string{"x"}
	c = client(started, fake.NewClientset(deployment(1), old))
	if done, why, err := c.Rollout(t.Context(), orderAPI); err != nil || !done {
		t.Errorf("with one that goes: %v, %q, %v", done, why, err)
	}
}

func TestALifeThatEndedWithTheClusterIsNoCrash(t *testing.T) {
	p := since(started)
	p.Status.Conditions = []corev1.PodCondition{ready(corev1.ConditionFalse)}
	s := &p.Status.ContainerStatuses[0]
	s.Ready, s.RestartCount, s.LastTerminationState = false, 3, died(255, "Unknown", "")
	s.LastTerminationState.Terminated.StartedAt = metav1.Time{Time: started.Add(-time.Hour)}
	if got, bad := diagnose(p, started.Truncate(time.Second), nil, ""); !bad || got.Grade != NotReady {
		t.Errorf("%v, %+v", bad, got)
	}
	s.LastTerminationState.Terminated.StartedAt = metav1.Time{Time: started.Add(time.Second)}
	if got, bad := diagnose(p, started.Truncate(time.Second), nil, ""); !bad || got.Grade != Failing {
		t.Errorf("of this life: %v, %+v", bad, got)
	}
}

func TestAwaitRolloutsWaitsForThisLife(t *testing.T) {
	set := fake.NewClientset(deployment(1), since(started.Add(-time.Minute)))
	var told []string
	err := client(started, set).AwaitRollouts(t.Context(), []Workload{orderAPI}, func(tr Trouble) {
		told = append(told, tr.Reason)
		if _, err := set.CoreV1().Pods("apps").Update(t.Context(), since(started), metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
	})
	if err != nil || len(told) != 1 || told[0] != "Starting" {
		t.Errorf("told %q, %v", told, err)
	}
}

func TestANodeMustHaveReportedInThisLife(t *testing.T) {
	node := func(heartbeat time.Time) []corev1.Node {
		n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
		n.Status.Conditions = []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Time{Time: heartbeat},
		}}
		return []corev1.Node{n}
	}
	if why := nodesReady(node(started.Add(-time.Second)), started); !strings.Contains(why, "has not reported since") {
		t.Errorf("of before: %q", why)
	}
	if why := nodesReady(node(started.Add(time.Second)), started); why != "" {
		t.Errorf("of now: %q", why)
	}
}

func TestPodsThatRun(t *testing.T) {
	old, now, waits := since(started.Add(-time.Minute)), since(started.Add(time.Second)), since(started.Add(time.Second))
	old.Name, now.Name, waits.Name = "old", "now", "waits"
	waits.Status.Phase = corev1.PodPending
	names, err := client(started, fake.NewClientset(deployment(1), old, now, waits)).Running(t.Context(), orderAPI)
	if err != nil || len(names) != 1 || names[0] != "now" {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := client(started, fake.NewClientset()).Running(t.Context(), orderAPI); err == nil {
		t.Error("pods of what is not there")
	}
}
