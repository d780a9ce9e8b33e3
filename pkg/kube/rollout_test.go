package kube

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"platformctl/pkg/fault"
)

func TestComplete(t *testing.T) {
	whole := controller{generation: 2, observed: 2, want: 2, updated: 2, ready: 2, replicas: 2}
	for name, test := range map[string]struct {
		change func(*controller)
		why    string
	}{
		"all ready":        {change: func(*controller) {}},
		"none wanted":      {change: func(c *controller) { *c = controller{generation: 1, observed: 1} }},
		"change not seen":  {change: func(c *controller) { c.observed = 1 }, why: "has not seen the change"},
		"old versions":     {change: func(c *controller) { c.updated = 1 }, why: "1 of 2 pods are of the newest version"},
		"old ones linger":  {change: func(c *controller) { c.replicas = 3 }, why: "1 pods of an older version"},
		"one is not ready": {change: func(c *controller) { c.ready = 1 }, why: "1 of 2 pods are ready"},
	} {
		c := whole
		test.change(&c)
		done, why := c.complete()
		if done != (test.why == "") || !strings.Contains(why, test.why) || done && why != "" {
			t.Errorf("%s: %v, %q", name, done, why)
		}
	}
}

func deployment(ready int32) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "order-api", Namespace: "apps", Generation: 1}}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "order-api"}}
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: ready, AvailableReplicas: ready}
	return d
}

func unschedulable() *corev1.Pod {
	return pod(func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available"}}
	})
}

var orderAPI = Workload{Kind: "Deployment", Namespace: "apps", Name: "order-api"}

func TestRolloutOfWhatIsNotThereIsNotDone(t *testing.T) {
	c := &Client{typed: fake.NewClientset(deployment(1))}
	if done, why, err := c.Rollout(t.Context(), orderAPI); err != nil || !done || why != "" {
		t.Errorf("Rollout = %v, %q, %v", done, why, err)
	}
	done, why, err := c.Rollout(t.Context(), Workload{Kind: "StatefulSet", Namespace: "database", Name: "postgresql"})
	if err != nil || done || why == "" {
		t.Errorf("of an absent one: %v, %q, %v", done, why, err)
	}
	if _, _, err := c.Rollout(t.Context(), Workload{Kind: "Job", Namespace: "a", Name: "b"}); err == nil {
		t.Error("a Job was taken for a workload")
	}
}

// Each trouble is told once, in turn, and the wait ends when the workload is complete.
func TestAwaitRolloutsTellsEachTroubleAndEnds(t *testing.T) {
	// The pod is there before its Deployment: of two objects made together either may be heard of first.
	set := fake.NewClientset(unschedulable())
	c := &Client{typed: set}
	var told []string
	err := c.AwaitRollouts(t.Context(), []Workload{orderAPI}, func(tr Trouble) {
		told = append(told, tr.String())
		var err error
		switch len(told) {
		case 1:
			_, err = set.AppsV1().Deployments("apps").Create(t.Context(), deployment(0), metav1.CreateOptions{})
		case 2:
			_, err = set.CoreV1().Pods("apps").Update(t.Context(), pod(func(p *corev1.Pod) {
				p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("main", "ErrImageNeverPull", "not present")}
			}), metav1.UpdateOptions{})
		case 3:
			// A controller that counts a pod which is not ready lags behind: both must say so.
			if _, err = set.AppsV1().Deployments("apps").Update(t.Context(), deployment(1), metav1.UpdateOptions{}); err == nil {
				_, err = set.CoreV1().Pods("apps").Update(t.Context(), since(started), metav1.UpdateOptions{})
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "deployment apps/order-api: NotFound: it does not exist yet|" +
		"pod apps/order-api-1: Unschedulable: 0/1 nodes are available|" +
		"pod apps/order-api-1: ErrImageNeverPull: not present"
	// Where the pod is heard of before its Deployment, what is left is told too.
	got := strings.TrimSuffix(strings.Join(told, "|"), "|deployment apps/order-api: Progressing: 0 of 1 pods are ready")
	if got != want {
		t.Errorf("told %s\nwant %s", got, want)
	}
}

func TestAwaitRolloutsPastItsDeadlineListsTheTroubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c := &Client{typed: fake.NewClientset(deployment(0), unschedulable())}
		err := c.AwaitRollouts(ctx, []Workload{orderAPI, {Kind: "StatefulSet", Namespace: "database", Name: "postgresql"}}, func(Trouble) {})
		var unready *Unready
		if fault.CodeOf(err) != fault.CodeTimedOut || !errors.As(err, &unready) || len(unready.Troubles) != 2 {
			t.Errorf("AwaitRollouts = %v (%v)", err, unready)
		}
	})
}

func TestAwaitRolloutsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := &Client{typed: fake.NewClientset(deployment(0))}
	err := c.AwaitRollouts(ctx, []Workload{orderAPI}, func(Trouble) { cancel() })
	if fault.CodeOf(err) != fault.CodeInterrupted {
		t.Errorf("AwaitRollouts = %v", err)
	}
}

// A controller that may not make its pods has none to ask; its events tell.
func TestPodsThatMayNotBeMade(t *testing.T) {
	d := deployment(0)
	d.Status.Replicas, d.Status.UpdatedReplicas = 0, 0
	e := event("ReplicaSet", "order-api-6f7d", "Warning", "FailedCreate", `pods is forbidden: violates PodSecurity "restricted"`, 1)
	c := &Client{typed: fake.NewClientset(d, &e)}
	ctx, cancel := context.WithCancel(t.Context())
	var told Trouble
	if err := c.AwaitRollouts(ctx, []Workload{orderAPI}, func(tr Trouble) { told = tr; cancel() }); err == nil {
		t.Error("it ended well")
	}
	if told.Object != "deployment apps/order-api" || told.Reason != "FailedCreate" || told.Grade != Failing || !strings.Contains(told.Message, "PodSecurity") {
		t.Errorf("told %+v", told)
	}
}

func node(status corev1.ConditionStatus) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status, Reason: "KubeletNotReady", Message: "no network"}}
	return n
}

// The API server comes up late: it is asked again, each cause is told, and the watch does the rest.
func TestAwaitReadyGoesOnAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := fake.NewClientset(node(corev1.ConditionFalse))
		c := &Client{typed: set}
		asked := 0
		set.PrependReactor("list", "nodes", func(ktesting.Action) (bool, runtime.Object, error) {
			asked++
			if asked < 3 {
				return true, nil, errors.New("connection refused")
			}
			return false, nil, nil
		})
		var said []string
		err := c.AwaitReady(t.Context(), func(why string) {
			said = append(said, why)
			if len(said) == 2 {
				if _, err := set.CoreV1().Nodes().Update(t.Context(), node(corev1.ConditionTrue), metav1.UpdateOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		want := "the API server is not ready: connection refused|node n: KubeletNotReady: no network"
		if got := strings.Join(said, "|"); got != want {
			t.Errorf("said %q", got)
		}
	})
}

func TestReadyTellsTheCause(t *testing.T) {
	for want, objects := range map[string][]runtime.Object{
		"":                                    {node(corev1.ConditionTrue)},
		"node n: KubeletNotReady: no network": {node(corev1.ConditionFalse)},
		"no node has registered":              nil,
		"node m has not reported yet":         {&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "m"}}},
	} {
		c := &Client{typed: fake.NewClientset(objects...)}
		if why, err := c.Ready(t.Context()); err != nil || why != want {
			t.Errorf("Ready = %q, %v; want %q", why, err, want)
		}
	}
}
