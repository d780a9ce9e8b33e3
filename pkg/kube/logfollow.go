package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// settle is how long a line waits for older ones of other pods to arrive.
const settle = 100 * time.Millisecond

// printer prints lines once each and labels them. Its methods may be called from several goroutines.
type printer struct {
	out        io.Writer
	timestamps bool
	keep       func(string) bool // nil keeps all
	always     bool              // label each line with its pod, also where there is only one

	mu    sync.Mutex
	pods  map[string]bool      // all pods that were seen: where there is more than one, each line tells its own
	mains map[logKey]bool      // the first containers of their pods
	last  map[logKey]time.Time // of each container's last printed line
}

// know makes a pod known before its lines come.
func (p *printer) know(pod *corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pods[pod.Namespace+"/"+pod.Name] = true
	if len(pod.Spec.Containers) > 0 {
		p.mains[logKey{pod.Namespace, pod.Name, pod.Spec.Containers[0].Name}] = true
	}
}

func (p *printer) label(key logKey) string {
	switch main, several := p.mains[key], p.always || len(p.pods) > 1; {
	case main && several:
		return key.pod
	case main:
		return ""
	case several:
		return key.pod + "/" + key.container
	}
	return key.container
}

func (p *printer) print(l line) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.at.After(p.last[l.key]) {
		p.last[l.key] = l.at
	}
	if p.keep != nil && !p.keep(l.text) {
		return nil
	}
	return l.write(p.out, p.label(l.key), p.timestamps)
}

// seen is the time of a container's last printed line; zero where it has none.
func (p *printer) seen(key logKey) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last[key]
}

// follower follows the containers of pods that come and go.
type follower struct {
	client  *Client
	printer *printer
	lines   chan line
	note    func(string)
	readers sync.WaitGroup

	mu    sync.Mutex
	lives map[string]bool // ids of the container lives that are read, or were
}

// from has a container's lines printed from that time on, where none of them was printed yet.
func (p *printer) from(key logKey, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last[key].IsZero() {
		p.last[key] = at
	}
}

// followLogs prints what the workloads' containers print from now on. What was wanted of what the given pods had printed until
// then was printed already.
func (c *Client) followLogs(ctx context.Context, workloads []Workload, known []corev1.Pod, then time.Time, p *printer, note func(string)) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var noting sync.Mutex
	f := &follower{client: c, printer: p, lines: make(chan line), lives: map[string]bool{}, note: func(s string) {
		noting.Lock()
		defer noting.Unlock()
		note(s)
	}}
	for i := range known {
		for _, s := range statuses(&known[i]) {
			if before := s.LastTerminationState.Terminated; before != nil {
				f.lives[before.ContainerID] = true
			}
			if s.State.Terminated != nil {
				f.lives[s.ContainerID] = true
			} else if s.State.Running != nil {
				p.from(logKey{known[i].Namespace, known[i].Name, s.Name}, then)
			}
		}
	}
	for _, w := range workloads {
		selector, err := c.selectorOf(ctx, w)
		if err != nil {
			return err
		}
		api := c.typed.CoreV1().Pods(w.Namespace)
		f.readers.Go(func() {
			// Its error is ctx's.
			_ = follow(ctx, source(api.List, api.Watch, metav1.ListOptions{LabelSelector: selector}), func(ch change) bool {
				if ch.err != nil {
					f.note(fmt.Sprintf("the API server does not answer: %v", ch.err))
				}
				for _, o := range append(ch.all, ch.put) {
					if pod, ok := o.(*corev1.Pod); ok {
						f.pod(ctx, pod)
					}
				}
				return false
			})
		})
	}
	err := f.print(ctx)
	stop(err)
	f.readers.Wait()
	return err
}

// pod begins to read those lives of a pod's containers that are new.
func (f *follower) pod(ctx context.Context, pod *corev1.Pod) {
	f.printer.know(pod)
	for _, s := range statuses(pod) {
		key := logKey{pod.Namespace, pod.Name, s.Name}
		if before := s.LastTerminationState.Terminated; before != nil {
			// It came and went between two looks at the pod.
			f.begin(ctx, key, before.ContainerID, true)
		}
		if s.State.Running != nil || s.State.Terminated != nil {
			f.begin(ctx, key, s.ContainerID, false)
		}
	}
}

func (f *follower) begin(ctx context.Context, key logKey, id string, previous bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id == "" || f.lives[id] {
		return
	}
	f.lives[id] = true
	f.readers.Go(func() {
		for again := true; again && ctx.Err() == nil; {
			err := f.read(ctx, key, previous)
			if again = !previous && f.alive(ctx, key, id); !again {
				return
			}
			if err != nil {
				f.note(fmt.Sprintf("%s: container %s: %v", named("pod", key.namespace, key.pod), key.container, err))
			}
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
	})
}

// read hands on the lines that a container prints, from the one after the last that was printed, until its life ends.
func (f *follower) read(ctx context.Context, key logKey, previous bool) (err error) {
	from := f.printer.seen(key)
	options := corev1.PodLogOptions{Container: key.container, Timestamps: true, Follow: !previous, Previous: previous}
	if !from.IsZero() {
		options.SinceTime = &metav1.Time{Time: from} // in whole seconds, so some lines come again
	}
	body, err := f.client.typed.CoreV1().Pods(key.namespace).GetLogs(key.pod, &options).Stream(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	s := newStream(body, key)
	for {
		if err := s.fetch(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		s.held = false
		if !s.next.at.After(from) {
			continue
		}
		select {
		case f.lines <- s.next:
		case <-ctx.Done():
			return nil
		}
	}
}

// alive tells whether that life of a container still runs: then its log ended because the connection did.
func (f *follower) alive(ctx context.Context, key logKey, id string) bool {
	pod, err := f.client.typed.CoreV1().Pods(key.namespace).Get(ctx, key.pod, metav1.GetOptions{})
	if err != nil {
		return false
	}
	return slices.ContainsFunc(statuses(pod), func(s corev1.ContainerStatus) bool {
		return s.ContainerID == id && s.State.Running != nil
	})
}

// print prints lines as they come, each after it has had time to be overtaken by older ones, until ctx ends.
func (f *follower) print(ctx context.Context) error {
	var held []line
	flush := func() error {
		slices.SortStableFunc(held, func(a, b line) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
		for _, l := range held {
			if err := f.printer.print(l); err != nil {
				return err
			}
		}
		held = held[:0]
		return nil
	}
	timer := time.NewTimer(settle)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), flush())
		case <-timer.C:
			if err := flush(); err != nil {
				return err
			}
		case l := <-f.lines:
			if len(held) == 0 {
				timer.Reset(settle)
			}
			held = append(held, l)
		}
	}
}
