package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// secretive matches the names of environment variables whose values are nobody's business.
var secretive = regexp.MustCompile(`(?i)pass|secret|token|cookie|credential|key`)

// Evidence writes what helps to understand a failure into dir: of each namespace the events, each pod as YAML, and the logs of
// all containers, of their life before too. No Secret is read. It returns the files that it wrote; what could not be had is
// told in the file where it would be.
func (c *Client) Evidence(ctx context.Context, dir string, namespaces []string) ([]string, error) {
	e := &evidence{client: c}
	for _, ns := range namespaces {
		if err := e.namespace(ctx, filepath.Join(dir, ns), ns); err != nil {
			return e.files, fmt.Errorf("keeping the evidence of namespace %s: %w", ns, err)
		}
	}
	return e.files, nil
}

type evidence struct {
	client *Client
	files  []string
}

func (e *evidence) write(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	e.files = append(e.files, path)
	return nil
}

func (e *evidence) namespace(ctx context.Context, dir, ns string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	events, err := e.client.typed.CoreV1().Events(ns).List(ctx, metav1.ListOptions{})
	text := ""
	if err != nil {
		text = fmt.Sprintf("listing the events: %v\n", err)
	} else {
		text = eventTable(events.Items)
	}
	if err := e.write(filepath.Join(dir, "events.txt"), text); err != nil {
		return err
	}
	pods, err := e.client.typed.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return e.write(filepath.Join(dir, "pods.txt"), fmt.Sprintf("listing the pods: %v\n", err))
	}
	for i := range pods.Items {
		if err := e.pod(ctx, dir, &pods.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

func (e *evidence) pod(ctx context.Context, dir string, pod *corev1.Pod) error {
	shown := pod.DeepCopy()
	shown.ManagedFields = nil
	for _, list := range [][]corev1.Container{shown.Spec.InitContainers, shown.Spec.Containers} {
		for i := range list {
			for j := range list[i].Env {
				if v := &list[i].Env[j]; v.Value != "" && secretive.MatchString(v.Name) {
					v.Value = "(hidden)"
				}
			}
		}
	}
	raw, err := yaml.Marshal(shown)
	if err != nil {
		return err
	}
	if err := e.write(filepath.Join(dir, pod.Name+".yaml"), string(raw)); err != nil {
		return err
	}
	for _, s := range statuses(pod) {
		for _, previous := range []bool{false, true} {
			name := pod.Name + "." + s.Name + ".log"
			if previous {
				name = pod.Name + "." + s.Name + ".previous.log"
			}
			switch before := s.LastTerminationState.Terminated; {
			case previous && (before == nil || before.ContainerID == ""):
				continue
			case !previous && s.ContainerID == "":
				continue
			}
			if err := e.log(ctx, filepath.Join(dir, name), pod, s.Name, previous); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *evidence) log(ctx context.Context, path string, pod *corev1.Pod, container string, previous bool) (err error) {
	options := &corev1.PodLogOptions{Container: container, Previous: previous, Timestamps: true}
	body, err := e.client.typed.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, options).Stream(ctx)
	if err != nil {
		return e.write(path, fmt.Sprintf("reading the log: %v\n", err))
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	e.files = append(e.files, path)
	if _, err := io.Copy(f, body); err != nil {
		_, err = fmt.Fprintf(f, "\nreading the log: %v\n", err)
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// eventTable is a line an event, in the order of their times.
func eventTable(events []corev1.Event) string {
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return when(&a).Compare(when(&b)) })
	var b strings.Builder
	for i := range events {
		e := &events[i]
		fmt.Fprintf(&b, "%s %-7s %s %s: %s", when(e).UTC().Format(time.RFC3339), e.Type,
			named(e.InvolvedObject.Kind, e.InvolvedObject.Namespace, e.InvolvedObject.Name), e.Reason, e.Message)
		if e.Count > 1 {
			fmt.Fprintf(&b, " (%d times)", e.Count)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
