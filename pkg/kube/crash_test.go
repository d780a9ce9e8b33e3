package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"platformctl/pkg/fault"
)

// version is a ReplicaSet of order-api, of the revision and named after it.
func version(revision string) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "order-api-" + revision, Namespace: "apps", Annotations: map[string]string{revisionKey: revision}}}
}

// ofVersion is a pod of that ReplicaSet.
func ofVersion(revision string, status corev1.ContainerStatus, podReady corev1.ConditionStatus) *corev1.Pod {
	return pod(func(p *corev1.Pod) {
		yes := true
		p.Name, p.UID = "order-api-"+revision+"-x", ""
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "order-api-" + revision, Controller: &yes}}
		p.Status.Phase, p.Status.ContainerStatuses = corev1.PodRunning, []corev1.ContainerStatus{status}
		p.Status.Conditions = []corev1.PodCondition{ready(podReady)}
	})
}

func rolling(revision string) *appsv1.Deployment {
	d := deployment(1)
	d.Annotations = map[string]string{revisionKey: revision}
	d.Status.Replicas = 2
	return d
}

var dead = corev1.ContainerStatus{Name: "main", State: died(2, "Error", "")}

func TestACrashOfTheNewestVersionEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serving := running("main")
		serving.Ready = true
		old := ofVersion("1", serving, corev1.ConditionTrue)
		c := &Client{typed: fake.NewClientset(rolling("2"), version("1"), version("2"), old, ofVersion("2", dead, corev1.ConditionFalse))}
		err := c.AwaitDeployment(t.Context(), orderAPI, func(Trouble) {})
		var crash *Crash
		if !errors.As(err, &crash) || crash.Object != "pod apps/order-api-2-x" || crash.Message != "container main ended with exit code 2" || crash.Serving != 1 {
			t.Fatalf("AwaitDeployment = %v (%+v)", err, crash)
		}
		crash.Lines = []string{"panic: boom", "", "goroutine 1 [running]:"}
		if want := "pod apps/order-api-2-x: Error: container main ended with exit code 2; it said last:\n  panic: boom\n  \n  goroutine 1 [running]:"; err.Error() != want {
			t.Errorf("it says\n%s\nwant\n%s", err, want)
		}
	})
}

// A crash of a version that the newest takes the place of, or before its controller has seen the change, is none of ours.
func TestACrashOfAnotherVersionDoesNotEndTheWait(t *testing.T) {
	unseen := rolling("1")
	unseen.Generation = 2
	for name, d := range map[string]*appsv1.Deployment{"an older version": rolling("2"), "before the change was seen": unseen} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c := &Client{typed: fake.NewClientset(d, version("1"), version("2"), ofVersion("1", dead, corev1.ConditionFalse))}
			if err := c.AwaitDeployment(ctx, orderAPI, func(Trouble) {}); fault.CodeOf(err) != fault.CodeTimedOut {
				t.Errorf("%s: AwaitDeployment = %v", name, err)
			}
		})
	}
}

// A program that says by its exit code that its configuration is wrong is not waited for. What an older version said does not count,
// nor what was said before the wait, perhaps of another configuration.
func TestAWrongConfigurationEndsTheWait(t *testing.T) {
	const second = time.Second
	for name, test := range map[string]struct {
		version string
		code    int32
		started time.Duration // after the wait began
		ends    bool
	}{
		"of the newest version":   {"2", exitMisconfigured, 0, true},
		"of an older version":     {"1", exitMisconfigured, 0, false},
		"of a life before":        {"2", exitMisconfigured, -2 * second, false},
		"another crash, may pass": {"2", 1, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			wrong := corev1.ContainerStatus{Name: "main", State: died(test.code, "Error", "PORT is not a valid uint16")}
			wrong.State.Terminated.StartedAt = metav1.NewTime(time.Now().Add(test.started))
			c := &Client{typed: fake.NewClientset(rolling("2"), version("1"), version("2"), ofVersion(test.version, wrong, corev1.ConditionFalse))}
			err := c.AwaitRollouts(ctx, []Workload{orderAPI}, func(Trouble) {})
			if !test.ends && fault.CodeOf(err) != fault.CodeTimedOut {
				t.Errorf("%s: AwaitRollouts = %v", name, err)
			}
			const want = "the workloads cannot run as they are configured:\nfailed: pod apps/order-api-2-x: Error: container main ended with exit code 78: PORT is not a valid uint16"
			if test.ends && (fault.CodeOf(err) != fault.CodeFailed || err.Error() != want || ctx.Err() != nil) {
				t.Errorf("%s: AwaitRollouts = %v", name, err)
			}
		})
	}
}

// What has crashed may be up again, and silent, by the time that its log is asked for.
func TestTheLastLinesAreOfTheLifeThatEnded(t *testing.T) {
	const line = "2026-11-30T12:00:00.000000001Z %s\n"
	for name, test := range map[string]struct{ now, before, want string }{
		"it is down":                      {now: "panic: boom", before: "of long ago", want: "panic: boom"},
		"it is up again, and silent":      {before: "panic: boom", want: "panic: boom"},
		"it said nothing in either life":  {},
		"it is up again as far as we saw": {now: "hello", before: "panic: boom", want: "panic: boom"},
	} {
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			said := test.now
			if r.URL.Query().Get("previous") == "true" {
				said = test.before
			}
			if said != "" {
				fmt.Fprintf(w, line, said)
			}
		}))
		typed, err := kubernetes.NewForConfig(&rest.Config{Host: api.URL})
		if err != nil {
			t.Fatal(err)
		}
		s := dead
		if test.now == "hello" {
			s = running("main")
			s.RestartCount, s.LastTerminationState = 1, dead.State
		}
		if got := (&Client{typed: typed}).lastLine(t.Context(), ofVersion("1", s, corev1.ConditionFalse), s); got != test.want {
			t.Errorf("%s: the last line is %q, want %q", name, got, test.want)
		}
		api.Close()
	}
}

func TestRetryDeletesWhatHasCrashed(t *testing.T) {
	serving := running("main")
	serving.Ready = true
	set := fake.NewClientset(rolling("2"), ofVersion("1", serving, corev1.ConditionTrue), ofVersion("2", dead, corev1.ConditionFalse), ofVersion("3", running("main"), corev1.ConditionFalse))
	c := &Client{typed: set}
	gone, err := c.Retry(t.Context(), orderAPI)
	if err != nil || !slices.Equal(gone, []string{"order-api-2-x"}) {
		t.Errorf("Retry = %q, %v", gone, err)
	}
	if left, err := c.podsOf(t.Context(), orderAPI); err != nil || len(left) != 2 {
		t.Errorf("%d pods are left, %v", len(left), err)
	}
}
