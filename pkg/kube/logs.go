package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"

	"platformctl/pkg/fault"
)

// LogRequest says which logs are wanted, and how.
type LogRequest struct {
	Workloads  []Workload
	Follow     bool          // go on with what is printed from now on, until the context ends
	Tail       int64         // at most so many of the last lines of each container; negative is all
	Since      time.Duration // nothing older; 0 is no bound
	Previous   bool          // only the life before the current one of each container
	Timestamps bool          // show each line's time
	Pods       bool          // show each line's pod also where there is only one

	Keep func(line string) bool // which lines to show; nil is all
}

// logKey names one container, whichever life it is in.
type logKey struct{ namespace, pod, container string }

// life is one life of a container whose log is to be read.
type life struct {
	key      logKey
	previous bool // the one before the current
	ifEmpty  bool // only where the current one has printed nothing
}

// Logs writes the logs of all containers of the workloads' pods to out, merged in the order of their times. Where a container
// has crashed, or is up again and has printed nothing yet, its life before comes too. Lines carry their pod's name where there
// are several pods, and the container's where it is not the pod's first. note hears what cannot be read, and why.
//
// When following, pods that come are followed too; Logs returns ctx's cause then, or out's error.
func (c *Client) Logs(ctx context.Context, req LogRequest, out io.Writer, note func(string)) error {
	var pods []corev1.Pod
	for _, w := range req.Workloads {
		of, err := c.podsOf(ctx, w)
		if err != nil {
			return err
		}
		if len(of) == 0 {
			note(fmt.Sprintf("%s has no pods", w))
		}
		pods = append(pods, of...)
	}
	p := &printer{out: out, keep: req.Keep, timestamps: req.Timestamps, always: req.Pods, pods: map[string]bool{}, mains: map[logKey]bool{}, last: map[logKey]time.Time{}}
	var lives []life
	for i := range pods {
		p.know(&pods[i])
		of, why := livesOf(&pods[i], req.Previous)
		lives = append(lives, of...)
		for _, w := range why {
			note(w)
		}
	}
	if req.Previous && len(lives) == 0 {
		return fault.New(fault.CodeFailed, "", "none of the containers has had a life before its current one")
	}
	began := time.Now()
	if err := c.printLives(ctx, req, lives, p, note); err != nil {
		return err
	}
	if !req.Follow || req.Previous {
		return nil
	}
	return c.followLogs(ctx, req.Workloads, pods, began, p, note)
}

// livesOf decides which lives of a pod's containers to read, and tells of the containers that have none, why.
func livesOf(pod *corev1.Pod, previous bool) (lives []life, why []string) {
	for _, s := range statuses(pod) {
		key := logKey{pod.Namespace, pod.Name, s.Name}
		before := s.LastTerminationState.Terminated
		hasBefore := before != nil && before.ContainerID != ""
		switch {
		case previous:
			if hasBefore {
				lives = append(lives, life{key: key, previous: true})
			}
		case s.State.Running != nil || s.State.Terminated != nil:
			if hasBefore && (crashed(s, time.Time{}) || s.State.Running != nil) {
				lives = append(lives, life{key: key, previous: true, ifEmpty: !crashed(s, time.Time{})})
			}
			lives = append(lives, life{key: key})
		case hasBefore:
			lives = append(lives, life{key: key}) // while it waits to be started again, its current life is the one that ended
		case s.State.Waiting != nil:
			text := fmt.Sprintf("%s: container %s has not started", named("pod", pod.Namespace, pod.Name), s.Name)
			if s.State.Waiting.Reason != "" {
				text += ": " + s.State.Waiting.Reason
			}
			if s.State.Waiting.Message != "" {
				text += ": " + s.State.Waiting.Message
			}
			why = append(why, text)
		}
	}
	if len(pod.Status.ContainerStatuses) == 0 && !previous {
		if t, bad := diagnose(pod, time.Time{}, nil, ""); bad {
			why = append(why, t.String())
		}
	}
	return lives, why
}

// printLives reads the lives as far as they have come and prints them merged.
func (c *Client) printLives(ctx context.Context, req LogRequest, lives []life, p *printer, note func(string)) (err error) {
	var streams []*stream
	defer func() {
		for _, s := range streams {
			err = errors.Join(err, s.body.Close())
		}
	}()
	printed := map[logKey]bool{} // containers whose current life has lines
	open := func(l life) error {
		options := corev1.PodLogOptions{Container: l.key.container, Previous: l.previous, Timestamps: true}
		if req.Tail >= 0 {
			options.TailLines = &req.Tail
		}
		if req.Since > 0 {
			// Whole seconds is all that the API server takes; more is better than less.
			seconds := int64((req.Since + time.Second - 1) / time.Second)
			options.SinceSeconds = &seconds
		}
		body, err := c.typed.CoreV1().Pods(l.key.namespace).GetLogs(l.key.pod, &options).Stream(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			note(fmt.Sprintf("%s: container %s: %v", named("pod", l.key.namespace, l.key.pod), l.key.container, err))
			return nil
		}
		s := newStream(body, l.key)
		streams = append(streams, s)
		if err := s.fetch(); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading the log of %s: %w", named("pod", l.key.namespace, l.key.pod), err)
		}
		for _, remark := range s.remarks {
			note(fmt.Sprintf("%s: container %s: %s", named("pod", l.key.namespace, l.key.pod), l.key.container, remark))
		}
		printed[l.key] = printed[l.key] || s.held
		return nil
	}
	for _, l := range lives {
		if !l.ifEmpty {
			if err := open(l); err != nil {
				return err
			}
		}
	}
	for _, l := range lives {
		if l.ifEmpty && !printed[l.key] {
			if err := open(l); err != nil {
				return err
			}
		}
	}
	if err := mergeByTime(streams, p.print); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("reading logs: %w", err)
	}
	return nil
}

func missing(w Workload) error {
	return fault.Unfit("platformctl up brings it, platformctl status tells what is there", "%s does not exist", w)
}
