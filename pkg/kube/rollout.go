package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"platformctl/pkg/fault"
)

// Workload names a Deployment, a StatefulSet or a DaemonSet.
type Workload struct{ Kind, Namespace, Name string }

func (w Workload) String() string { return named(w.Kind, w.Namespace, w.Name) }

// controller is what the three kinds have in common.
type controller struct {
	generation, observed           int64
	want, updated, ready, replicas int32
	selector                       *metav1.LabelSelector
	revision                       string // of the newest template, for a Deployment
	reason, failure                string // of the controller itself, where it gave up or could not make its pods
}

// complete tells whether every pod is of the newest template and ready, else why not. It believes the controller's sums, which
// lag behind the pods: after a restart of the cluster by seconds.
func (c controller) complete() (bool, string) {
	switch {
	case c.observed < c.generation:
		return false, "its controller has not seen the change yet"
	case c.updated < c.want:
		return false, fmt.Sprintf("%d of %d pods are of the newest version", c.updated, c.want)
	case c.replicas > c.want:
		return false, fmt.Sprintf("%d pods of an older version are still there", c.replicas-c.want)
	case c.ready < c.want:
		return false, fmt.Sprintf("%d of %d pods are ready", c.ready, c.want)
	}
	return true, ""
}

func ofDeployment(d *appsv1.Deployment) controller {
	c := controller{
		generation: d.Generation, observed: d.Status.ObservedGeneration, want: one(d.Spec.Replicas),
		updated: d.Status.UpdatedReplicas, ready: d.Status.AvailableReplicas, replicas: d.Status.Replicas, selector: d.Spec.Selector,
		revision: d.Annotations[revisionKey],
	}
	for _, cond := range d.Status.Conditions {
		notMade := cond.Type == appsv1.DeploymentReplicaFailure && cond.Status == corev1.ConditionTrue
		gaveUp := cond.Type == appsv1.DeploymentProgressing && cond.Status == corev1.ConditionFalse
		if notMade || gaveUp && c.failure == "" {
			c.reason, c.failure = cond.Reason, cond.Message
		}
	}
	return c
}

func ofStatefulSet(s *appsv1.StatefulSet) controller {
	return controller{
		generation: s.Generation, observed: s.Status.ObservedGeneration, want: one(s.Spec.Replicas),
		updated: s.Status.UpdatedReplicas, ready: s.Status.ReadyReplicas, replicas: s.Status.Replicas, selector: s.Spec.Selector,
	}
}

func ofDaemonSet(d *appsv1.DaemonSet) controller {
	return controller{
		generation: d.Generation, observed: d.Status.ObservedGeneration, want: d.Status.DesiredNumberScheduled,
		updated: d.Status.UpdatedNumberScheduled, ready: d.Status.NumberAvailable, replicas: d.Status.CurrentNumberScheduled, selector: d.Spec.Selector,
	}
}

func one(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// controllerOf asks for a workload; nil where there is none.
func (c *Client) controllerOf(ctx context.Context, w Workload) (*controller, error) {
	var found controller
	var err error
	apps := c.typed.AppsV1()
	switch w.Kind {
	case "Deployment":
		var d *appsv1.Deployment
		if d, err = apps.Deployments(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{}); err == nil {
			found = ofDeployment(d)
		}
	case "StatefulSet":
		var s *appsv1.StatefulSet
		if s, err = apps.StatefulSets(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{}); err == nil {
			found = ofStatefulSet(s)
		}
	case "DaemonSet":
		var d *appsv1.DaemonSet
		if d, err = apps.DaemonSets(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{}); err == nil {
			found = ofDaemonSet(d)
		}
	default:
		return nil, fmt.Errorf("%s: %q is no kind of workload", w, w.Kind)
	}
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", w, err)
	}
	return &found, nil
}

// Rollout tells whether all pods of a workload are of its newest version and ready, else why not. A workload that does not
// exist is not done.
func (c *Client) Rollout(ctx context.Context, w Workload) (done bool, why string, err error) {
	found, err := c.controllerOf(ctx, w)
	if err != nil {
		return false, "", err
	}
	if found == nil {
		return false, "it does not exist", nil
	}
	if done, why = found.complete(); !done {
		return done, why, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(found.selector)
	if err != nil {
		return false, "", fmt.Errorf("reading the selector of %s: %w", w, err)
	}
	list, err := c.typed.CoreV1().Pods(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return false, "", fmt.Errorf("listing the pods of %s: %w", w, err)
	}
	for i := range list.Items {
		if list.Items[i].Status.Phase == corev1.PodFailed {
			continue // evicted, and replaced
		}
		if t, bad := diagnose(&list.Items[i], c.born, nil, ""); bad {
			return false, t.String(), nil
		}
	}
	return true, "", nil
}

// board is all that is known of what is waited for.
type board struct {
	controllers map[Workload]controller
	pods        map[string]corev1.Pod
	events      map[string]corev1.Event
	lines       map[string]string // the last line of a crashed container, by its id
	born        time.Time         // of the cluster's present life
	unread      int               // how many collections have not been listed yet
	silent      error             // why the API server could not be asked, nil when it could
}

// AwaitRollouts waits until all pods of the workloads are of the newest version and ready. It hears of changes by watches on
// the workloads, their pods, and the events of their namespaces, and calls say with the worst trouble whenever that is another.
// Past ctx's deadline its error is a time-out that wraps *Unready, with every trouble. A crash may pass, for one of a program that
// starts before its servers is started again; only where a Deployment's container ends with exit code 78, which says that its
// configuration is wrong, the error comes at once, and wraps *Unready too.
func (c *Client) AwaitRollouts(ctx context.Context, workloads []Workload, say func(Trouble)) error {
	began := time.Now()
	return c.await(ctx, workloads, say, func(b *board) error { return c.misconfigured(ctx, b, workloads, began) })
}

// await is AwaitRollouts that gives up with hopeless' error when it has one. hopeless is asked whenever something has changed
// and the workloads are not complete.
func (c *Client) await(ctx context.Context, workloads []Workload, say func(Trouble), hopeless func(*board) error) error {
	b := &board{controllers: map[Workload]controller{}, pods: map[string]corev1.Pod{}, events: map[string]corev1.Event{}, lines: map[string]string{}, born: c.born}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	changes := make(chan func(), 16)
	sources := c.sources(workloads)
	b.unread = len(sources)
	running := len(sources)
	ended := make(chan struct{})
	for _, src := range sources {
		listed := false
		go func() {
			defer func() { ended <- struct{}{} }()
			// Its error is ctx's, which is looked at below.
			_ = follow(watching, src.listWatch, func(ch change) bool {
				select {
				case changes <- func() {
					b.silent = ch.err
					if ch.fresh && !listed {
						listed = true
						b.unread--
					}
					src.see(b, ch)
				}:
				case <-watching.Done():
				}
				return false
			})
		}()
	}
	defer func() {
		stop()
		for ; running > 0; running-- {
			<-ended
		}
	}()

	var troubles []Trouble
	last := ""
	for {
		select {
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return context.Cause(ctx)
			}
			return fault.TimedOut("platformctl status says more, and platformctl logs what a service printed",
				"the workloads were not ready in time:\n%w", &Unready{Troubles: troubles})
		case apply := <-changes:
			apply()
		}
		for drained := false; !drained; {
			select {
			case apply := <-changes:
				apply()
			default:
				drained = true
			}
		}
		if b.unread > 0 && b.silent == nil {
			continue
		}
		c.readLastLines(ctx, b)
		troubles = b.troubles(workloads)
		if len(troubles) == 0 {
			return nil
		}
		if err := hopeless(b); err != nil {
			return err
		}
		if now := troubles[0].String(); now != last {
			last = now
			say(troubles[0])
		}
	}
}

// followed is a collection and what to do with its changes.
type followed struct {
	listWatch
	see func(*board, change)
}

// sources are the collections to watch: in each namespace its pods, its events, and the kinds of workload that are asked for.
func (c *Client) sources(workloads []Workload) []followed {
	var all []followed
	seen := map[string]bool{}
	once := func(what string) bool { first := !seen[what]; seen[what] = true; return first }
	for _, w := range workloads {
		ns := w.Namespace
		if once(ns) {
			pods, events := c.typed.CoreV1().Pods(ns), c.typed.CoreV1().Events(ns)
			all = append(all,
				followed{source(pods.List, pods.Watch, metav1.ListOptions{}), func(b *board, ch change) {
					merge(b.pods, ns, ch, func(p *corev1.Pod) string { return p.Name })
				}},
				followed{source(events.List, events.Watch, metav1.ListOptions{}), func(b *board, ch change) {
					merge(b.events, ns, ch, func(e *corev1.Event) string { return e.Name })
				}})
		}
		if !once(ns + " " + w.Kind) {
			continue
		}
		apps := c.typed.AppsV1()
		switch w.Kind {
		case "Deployment":
			api := apps.Deployments(ns)
			all = append(all, followed{source(api.List, api.Watch, metav1.ListOptions{}), controllers(w.Kind, ns, ofDeployment)})
		case "StatefulSet":
			api := apps.StatefulSets(ns)
			all = append(all, followed{source(api.List, api.Watch, metav1.ListOptions{}), controllers(w.Kind, ns, ofStatefulSet)})
		case "DaemonSet":
			api := apps.DaemonSets(ns)
			all = append(all, followed{source(api.List, api.Watch, metav1.ListOptions{}), controllers(w.Kind, ns, ofDaemonSet)})
		}
	}
	return all
}

// controllers keeps a board's controllers of one kind in one namespace up to date.
func controllers[T any, P interface {
	*T
	metav1.Object
	runtime.Object
}](kind, ns string, read func(P) controller) func(*board, change) {
	objects := map[string]T{}
	return func(b *board, ch change) {
		update(objects, ch, func(p P) string { return p.GetName() })
		for w := range b.controllers {
			if w.Kind == kind && w.Namespace == ns {
				delete(b.controllers, w)
			}
		}
		for name, o := range objects {
			b.controllers[Workload{kind, ns, name}] = read(P(&o))
		}
	}
}

// merge is update for one namespace of a map that holds several.
func merge[T any, P interface {
	*T
	runtime.Object
}](have map[string]T, ns string, ch change, name func(P) string) {
	if ch.fresh {
		for key := range have {
			if strings.HasPrefix(key, ns+"/") {
				delete(have, key)
			}
		}
		ch.fresh = false
	}
	update(have, ch, func(p P) string { return ns + "/" + name(p) })
}

// troubles lists why the workloads are not complete, the worst first; none when all are.
func (b *board) troubles(workloads []Workload) []Trouble {
	events := make([]corev1.Event, 0, len(b.events))
	for _, e := range b.events {
		events = append(events, e)
	}
	var all []Trouble
	if b.silent != nil {
		all = append(all, Trouble{Object: "the API server", Reason: "NoAnswer", Message: b.silent.Error(), Grade: Failing})
	}
	for _, w := range workloads {
		ctl, there := b.controllers[w]
		if !there {
			all = append(all, Trouble{Object: w.String(), Reason: "NotFound", Message: "it does not exist yet"})
			continue
		}
		all = append(all, b.troublesOf(w, ctl, events)...)
	}
	slices.SortFunc(all, worst)
	return all
}

func (b *board) troublesOf(w Workload, ctl controller, events []corev1.Event) []Trouble {
	done, why := ctl.complete()
	selector, err := metav1.LabelSelectorAsSelector(ctl.selector)
	if err != nil {
		return []Trouble{{Object: w.String(), Reason: "InvalidSelector", Message: err.Error(), Grade: Failing}}
	}
	var all []Trouble
	pods := int32(0)
	for _, pod := range b.pods {
		if pod.Namespace != w.Namespace || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		pods++
		if done && pod.Status.Phase == corev1.PodFailed {
			continue // evicted, and replaced
		}
		if t, bad := diagnose(&pod, b.born, about(&pod, events), b.lines[crashID(&pod, b.born)]); bad {
			all = append(all, t)
		}
	}
	if done {
		return all
	}
	if pods < ctl.want {
		if t, bad := notMade(w, events); bad {
			all = append(all, t)
		}
	}
	if len(all) == 0 {
		t := Trouble{Object: w.String(), Reason: "Progressing", Message: why}
		if ctl.failure != "" {
			t.Reason, t.Message, t.Grade = ctl.reason, ctl.failure, Failing
		}
		all = append(all, t)
	}
	return all
}

// notMade tells why a controller could not make its pods: a quota, or a pod security level that they do not meet.
func notMade(w Workload, events []corev1.Event) (Trouble, bool) {
	var found *corev1.Event
	for i := range events {
		e := &events[i]
		o := e.InvolvedObject
		// A Deployment's pods are made by a ReplicaSet that is named after it.
		made := o.Kind == w.Kind && o.Name == w.Name || w.Kind == "Deployment" && o.Kind == "ReplicaSet" && strings.HasPrefix(o.Name, w.Name+"-")
		if made && o.Namespace == w.Namespace && e.Reason == "FailedCreate" && (found == nil || when(e).After(when(found))) {
			found = e
		}
	}
	if found == nil {
		return Trouble{}, false
	}
	return Trouble{Object: w.String(), Reason: found.Reason, Message: found.Message, Grade: Failing}, true
}

// crashID is the id of the pod's crashed container's last life, "" if none crashed.
func crashID(pod *corev1.Pod, born time.Time) string {
	for _, s := range statuses(pod) {
		if crashed(s, born) {
			return ended(s).ContainerID
		}
	}
	return ""
}

// readLastLines asks for the last line of each crashed container that left no message, once a life.
func (c *Client) readLastLines(ctx context.Context, b *board) {
	for _, pod := range b.pods {
		for _, s := range statuses(&pod) {
			if !crashed(s, b.born) {
				continue
			}
			id := ended(s).ContainerID
			if _, known := b.lines[id]; known || id == "" || ended(s).Message != "" {
				break
			}
			b.lines[id] = c.lastLine(ctx, &pod, s)
			break
		}
	}
}

// lastLine is the last line of the container's last life, "" where it cannot be had: it is a help, not a need.
func (c *Client) lastLine(ctx context.Context, pod *corev1.Pod, s corev1.ContainerStatus) string {
	lines := c.lastLines(ctx, pod, s, 1)
	if len(lines) == 0 {
		return ""
	}
	return strings.TrimSpace(lines[len(lines)-1])
}

// lastLines are at most n lines that the container's last life ended with; none where they cannot be had.
func (c *Client) lastLines(ctx context.Context, pod *corev1.Pod, s corev1.ContainerStatus, n int64) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if s.State.Running == nil {
		if lines := c.tail(ctx, pod, s.Name, n, false); len(lines) > 0 {
			return lines
		}
		// The kubelet may have started it again since, and that life has said nothing yet.
	}
	return c.tail(ctx, pod, s.Name, n, true)
}

// tail are at most n lines of a container's life, or of the one before.
func (c *Client) tail(ctx context.Context, pod *corev1.Pod, container string, n int64, previous bool) (lines []string) {
	limit := n * 4096
	body, err := c.typed.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{
		Container: container, TailLines: &n, LimitBytes: &limit, Previous: previous, Timestamps: true,
	}).Stream(ctx)
	if err != nil {
		return nil
	}
	log := newStream(body, logKey{pod.Namespace, pod.Name, container})
	for err = log.fetch(); err == nil; err = log.fetch() {
		lines = append(lines, log.next.text)
		log.held = false
	}
	// What was read before the log broke off is worth showing too.
	_ = body.Close()
	return lines
}
