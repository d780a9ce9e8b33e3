// Package kube is what platformctl asks of a Kubernetes API server: apply objects, wait for workloads and say what they wait
// for, read logs, run programs in pods, and keep the evidence when something failed.
package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"platformctl/pkg/fault"
)

// The client's own limits. client-go's default of 5 requests a second makes any real work wait.
const (
	qps   = 50
	burst = 100
)

// answerTime is how long a running API server may take to answer a Check.
const answerTime = 5 * time.Second

// Client is a connection to one API server. It may be used by several goroutines at once.
type Client struct {
	config    *rest.Config
	typed     kubernetes.Interface
	dynamic   dynamic.Interface
	discovery discovery.CachedDiscoveryInterface
	mapper    meta.ResettableRESTMapper
	usual     *meta.DefaultRESTMapper // of kinds that every API server has: it is not asked for them
	born      time.Time               // of the cluster's present life
}

// Connect makes a client from the text of a kubeconfig. It sends nothing. Warnings of the API server go to log.
//
// born is when the cluster's nodes began their present life. What a node's kubelet reported before that is still in the API
// server after a stop and a start, "ready" and all, and is not believed. Zero believes everything.
func Connect(kubeconfig []byte, born time.Time, log io.Writer) (*Client, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.QPS, config.Burst = qps, burst
	config.UserAgent = "platformctl"
	config.WarningHandler = rest.NewWarningWriter(log, rest.WarningWriterOptions{Deduplicate: true})
	// The API server writes times in whole seconds, cut off.
	c := &Client{config: config, born: born.Truncate(time.Second)}
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", config.Host, err)
	}
	c.typed = typed
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", config.Host, err)
	}
	// In memory only: a cache on the disk is found again by host and port, and lies after a cluster was made anew.
	c.discovery = memory.NewMemCacheClient(typed.Discovery())
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(c.discovery)
	// Most commands ask for a kind or two of these, and discovery takes longer than all that they ask.
	c.usual = meta.NewDefaultRESTMapper(nil)
	c.usual.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	for _, kind := range []schema.GroupVersionKind{
		corev1.SchemeGroupVersion.WithKind("Secret"), appsv1.SchemeGroupVersion.WithKind("Deployment"), appsv1.SchemeGroupVersion.WithKind("StatefulSet"),
	} {
		c.usual.Add(kind, meta.RESTScopeNamespace)
	}
	return c, nil
}

// CaptureLog sends what the Kubernetes libraries of the whole process log to w. Call it once, before any of them is used.
func CaptureLog(w io.Writer) {
	klog.SetSlogLogger(slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelInfo})))
}

// RESTConfig is a copy of the client's configuration, for others that talk to the same API server.
func (c *Client) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }

// Discovery is the client's own, cached in memory, to be shared.
func (c *Client) Discovery() discovery.CachedDiscoveryInterface { return c.discovery }

// Mapper is the client's own, on top of Discovery, to be shared.
func (c *Client) Mapper() meta.ResettableRESTMapper { return c.mapper }

// Ready is the cause why the API server or a node is not ready, "" when all are. An API server that does not answer is a
// cause, not an error. It makes one call.
func (c *Client) Ready(ctx context.Context) (why string, err error) {
	asking, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	nodes, err := c.typed.CoreV1().Nodes().List(asking, metav1.ListOptions{})
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return fmt.Sprintf("the API server is not ready: %v", err), nil
	}
	return nodesReady(nodes.Items, c.born), nil
}

// nodesReady is the cause why nodes are not all ready, in the API server's words, as far as these are from this life.
func nodesReady(nodes []corev1.Node, born time.Time) string {
	if len(nodes) == 0 {
		return "no node has registered"
	}
	for _, n := range nodes {
		why := fmt.Sprintf("node %s has not reported yet", n.Name)
		for _, cond := range n.Status.Conditions {
			if cond.Type != corev1.NodeReady {
				continue
			}
			why = ""
			if cond.LastHeartbeatTime.Time.Before(born) {
				why = fmt.Sprintf("node %s has not reported since the cluster was started", n.Name)
			} else if cond.Status != corev1.ConditionTrue {
				why = fmt.Sprintf("node %s: %s: %s", n.Name, cond.Reason, cond.Message)
			}
		}
		if why != "" {
			return why
		}
	}
	return ""
}

// AwaitReady waits until the API server answers and all nodes are ready, and says what it waits for whenever that changes.
// Past ctx's deadline its error is a time-out that tells the last cause.
func (c *Client) AwaitReady(ctx context.Context, say func(string)) error {
	nodes := map[string]corev1.Node{}
	last := ""
	tell := func(why string) {
		if why != last && why != "" {
			say(why)
		}
		last = why
	}
	api := c.typed.CoreV1().Nodes()
	err := follow(ctx, source(api.List, api.Watch, metav1.ListOptions{}), func(change change) bool {
		if change.err != nil {
			tell(fmt.Sprintf("the API server is not ready: %v", change.err))
			return false
		}
		update(nodes, change, func(n *corev1.Node) string { return n.Name })
		all := make([]corev1.Node, 0, len(nodes))
		for _, n := range nodes {
			all = append(all, n)
		}
		why := nodesReady(all, c.born)
		tell(why)
		return why == ""
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.TimedOut("see what the node does: docker logs, or platformctl down and up again",
			"waiting for the cluster to be ready: %s: %w", last, err)
	}
	return err
}
