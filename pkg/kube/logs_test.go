package kube

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func key(pod, container string) logKey { return logKey{"apps", pod, container} }

func stamped(second int, text string) string {
	return fmt.Sprintf("2026-11-24T12:00:%02d.000000001Z %s\n", second, text)
}

func TestLogsAreMergedByTime(t *testing.T) {
	a := newStream(io.NopCloser(strings.NewReader(stamped(1, "a1")+stamped(4, "a4")+"and its second line\n"+stamped(6, ""))), key("a", "main"))
	b := newStream(io.NopCloser(strings.NewReader(stamped(2, "b2")+stamped(3, "b3")+strings.TrimSuffix(stamped(5, "b5 cut off"), "\n"))), key("b", "main"))
	empty := newStream(io.NopCloser(strings.NewReader("unable to retrieve container logs for c\n")), key("c", "main"))
	var got []string
	err := mergeByTime([]*stream{a, b, empty}, func(l line) error {
		got = append(got, l.key.pod+" "+l.text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a a1", "b b2", "b b3", "a a4", "a and its second line", "b b5 cut off", "a "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(empty.remarks) != 1 {
		t.Errorf("what the node said in place of a log: %q", empty.remarks)
	}
}

type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }

func TestMergeStopsAtErrors(t *testing.T) {
	broken := errors.New("connection reset")
	s := newStream(io.NopCloser(io.MultiReader(strings.NewReader(stamped(1, "a")), brokenReader{broken})), key("a", "main"))
	if err := mergeByTime([]*stream{s}, func(line) error { return nil }); !errors.Is(err, broken) {
		t.Errorf("reading: %v", err)
	}
	full := errors.New("pipe closed")
	s = newStream(io.NopCloser(strings.NewReader(stamped(1, "a"))), key("a", "main"))
	if err := mergeByTime([]*stream{s}, func(line) error { return full }); !errors.Is(err, full) {
		t.Errorf("writing: %v", err)
	}
}

func TestLinesTellWhoseTheyAre(t *testing.T) {
	var out strings.Builder
	p := &printer{out: &out, pods: map[string]bool{}, mains: map[logKey]bool{}, last: map[logKey]time.Time{}}
	print := func(k logKey, text string) {
		t.Helper()
		if err := p.print(line{at: time.Date(2026, 11, 24, 12, 0, 0, 5000, time.UTC), key: k, text: text}); err != nil {
			t.Fatal(err)
		}
	}
	one, two := pod(func(p *corev1.Pod) { p.Name = "one" }), pod(func(p *corev1.Pod) { p.Name = "two" })
	p.know(one)
	print(key("one", "main"), "alone")
	print(key("one", "migrate"), "before it")
	p.know(two)
	print(key("one", "main"), "not alone")
	print(key("two", "migrate"), "before it")
	p.timestamps = true
	print(key("two", "main"), "timed")
	want := "alone\nmigrate| before it\none| not alone\ntwo/migrate| before it\ntwo| 2026-11-24T12:00:00.000005Z timed\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLivesOf(t *testing.T) {
	before := func(s corev1.ContainerStatus, code int32) corev1.ContainerStatus {
		s.LastTerminationState, s.RestartCount = died(code, "Error", ""), 1
		return s
	}
	serving := running("main")
	serving.Ready = true
	for name, test := range map[string]struct {
		status   corev1.ContainerStatus
		previous bool
		want     []life
		why      int
	}{
		"runs":                                {status: running("main"), want: []life{{key: key("order-api-1", "main")}}},
		"crashed and runs again, not ready":   {status: before(running("main"), 1), want: []life{{key: key("order-api-1", "main"), previous: true}, {key: key("order-api-1", "main")}}},
		"crashed, and serves again":           {status: before(serving, 1), want: []life{{key: key("order-api-1", "main"), previous: true, ifEmpty: true}, {key: key("order-api-1", "main")}}},
		"ended":                               {status: corev1.ContainerStatus{Name: "main", ContainerID: "c", State: died(0, "Completed", "")}, want: []life{{key: key("order-api-1", "main")}}},
		"waits to be started again":           {status: before(waiting("main", "CrashLoopBackOff", ""), 1), want: []life{{key: key("order-api-1", "main")}}},
		"has never started":                   {status: waiting("main", "ImagePullBackOff", "x"), why: 1},
		"previous only":                       {status: before(running("main"), 1), previous: true, want: []life{{key: key("order-api-1", "main"), previous: true}}},
		"previous only, and there was none":   {status: running("main"), previous: true},
		"previous only, and never ran at all": {status: waiting("main", "ImagePullBackOff", "x"), previous: true},
	} {
		lives, why := livesOf(pod(func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{test.status} }), test.previous)
		if diff := cmp.Diff(test.want, lives, cmp.AllowUnexported(life{}, logKey{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if len(why) != test.why {
			t.Errorf("%s: it says %q", name, why)
		}
	}
}
