package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// held is how long a connection that comes while there is no pod waits for one: a restart takes some seconds, and a client
// that waits beyond that has its own idea of what to do.
const held = 15 * time.Second

// Forward is one port of a Service, reached by a listener on this machine.
type Forward struct {
	Namespace, Service string
	Port               string       // its name in the Service
	Listener           net.Listener // Forward closes it
}

// Lead is what a forward leads to.
type Lead struct {
	Pod string // "" while there is none
	Why string // why there is none; with a pod, why a connection to it failed
}

// Forward carries the listener's connections to a ready pod of the Service, until ctx ends (its cause). It follows the Service:
// where the pod goes away, or the API server, it goes on as soon as there is one again. A connection that comes meanwhile waits
// for some seconds; one that stands ends with its pod. say hears of each change, one at a time.
func (c *Client) Forward(ctx context.Context, f Forward, say func(Lead)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &forwarding{
		Forward: f, say: say, changed: make(chan struct{}),
		dial: func(pod string) (httpstream.Connection, error) { return c.dialPod(f.Namespace, pod) },
	}
	slices := c.typed.DiscoveryV1().EndpointSlices(f.Namespace)
	src := source(slices.List, slices.Watch, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + f.Service})
	var all sync.WaitGroup
	all.Go(func() {
		known := map[string]discoveryv1.EndpointSlice{}
		// Its error is ctx's.
		_ = follow(ctx, src, func(ch change) bool {
			w.see(known, ch)
			return false
		})
	})
	all.Go(func() { w.keep(ctx) })
	stop := context.AfterFunc(ctx, func() { _ = f.Listener.Close() }) // accept sees it
	defer stop()
	cancel(w.accept(ctx, &all))
	all.Wait()
	return context.Cause(ctx)
}

// target is a pod that is ready, and its port. A StatefulSet's next pod has the name of the one before.
type target struct {
	pod  string
	uid  types.UID
	port int32
}

// tunnel is a connection to a pod through the API server. It carries all connections to that pod, each in streams of its own.
type tunnel struct {
	target
	httpstream.Connection
	users   int  // connections that it carries
	retired bool // no more are to come: the last one closes it
}

func (t *tunnel) broken() bool {
	select {
	case <-t.CloseChan():
		return true
	default:
		return false
	}
}

// forwarding is a Forward at work.
type forwarding struct {
	Forward
	say  func(Lead)
	dial func(pod string) (httpstream.Connection, error)

	saying sync.Mutex
	last   Lead

	mu      sync.Mutex
	changed chan struct{} // closed at every change of what follows, and made anew
	ready   []target
	why     string  // why none is; "" before the first look
	current *tunnel // what new connections take; nil while there is none
	next    int     // number of a connection within its tunnel
}

// change changes what mu guards, and wakes who waits for that.
func (w *forwarding) change(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
	close(w.changed)
	w.changed = make(chan struct{})
}

// tell says what is new.
func (w *forwarding) tell(l Lead) {
	w.saying.Lock()
	defer w.saying.Unlock()
	if l != w.last {
		w.last = l
		w.say(l)
	}
}

// see takes in what the API server says of the Service's endpoints.
func (w *forwarding) see(known map[string]discoveryv1.EndpointSlice, ch change) {
	why := "no pod of it is ready"
	if ch.err != nil {
		clear(known) // what there was may be gone, and could not be reached
		why = "the API server does not answer: " + ch.err.Error()
	} else {
		update(known, ch, func(s *discoveryv1.EndpointSlice) string { return s.Name })
	}
	var ready []target
	for _, s := range known {
		port := slices.IndexFunc(s.Ports, func(p discoveryv1.EndpointPort) bool { return p.Name != nil && *p.Name == w.Port && p.Port != nil })
		if port < 0 {
			continue
		}
		for _, e := range s.Endpoints {
			if e.TargetRef != nil && e.TargetRef.Kind == "Pod" && serves(e.Conditions) {
				ready = append(ready, target{e.TargetRef.Name, e.TargetRef.UID, *s.Ports[port].Port})
			}
		}
	}
	slices.SortFunc(ready, func(a, b target) int { return strings.Compare(a.pod, b.pod) })
	w.change(func() { w.ready, w.why = ready, why })
}

// serves tells whether a pod is ready and is to stay. A Service that publishes all its pods calls each of them ready.
func serves(c discoveryv1.EndpointConditions) bool {
	return (c.Serving == nil || *c.Serving) && (c.Terminating == nil || !*c.Terminating)
}

// keep has a tunnel to a ready pod, as far as there is one, and stays with that pod while it is ready.
func (w *forwarding) keep(ctx context.Context) {
	defer w.change(func() { w.replace(nil) })
	for ctx.Err() == nil {
		w.mu.Lock()
		ready, why, current, changed := w.ready, w.why, w.current, w.changed
		w.mu.Unlock()
		var closed <-chan bool
		var again <-chan time.Time
		switch {
		case len(ready) == 0 && current != nil:
			w.change(func() { w.replace(nil) })
			continue
		case len(ready) == 0:
			if why != "" {
				w.tell(Lead{Why: why})
			}
		case current != nil && !current.broken() && slices.Contains(ready, current.target):
			closed = current.CloseChan()
		default:
			connection, err := w.dial(ready[0].pod)
			if err != nil {
				w.tell(Lead{Why: fmt.Sprintf("pod %s cannot be reached: %v", ready[0].pod, err)})
				again = time.After(pause)
				break
			}
			w.change(func() { w.replace(&tunnel{target: ready[0], Connection: connection}) })
			w.tell(Lead{Pod: ready[0].pod})
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-closed:
		case <-again:
		}
	}
}

// replace has new connections take another tunnel; those of the old one go on. mu is held.
func (w *forwarding) replace(t *tunnel) {
	old := w.current
	w.current = t
	if old != nil {
		old.retired = true
		if old.users == 0 {
			_ = old.Close() // its far end may have gone before it
		}
	}
}

// take returns the current tunnel, for a connection that leaves it again; it waits for one as long as ctx lasts.
func (w *forwarding) take(ctx context.Context) (t *tunnel, number int, ok bool) {
	for {
		w.mu.Lock()
		t, changed := w.current, w.changed
		if t != nil && !t.broken() {
			t.users++
			w.next++
			number := w.next
			w.mu.Unlock()
			return t, number, true
		}
		w.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, 0, false
		}
	}
}

func (w *forwarding) leave(t *tunnel) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.users--; t.users == 0 && t.retired {
		_ = t.Close()
	}
}

// accept takes connections until ctx ends or the listener fails.
func (w *forwarding) accept(ctx context.Context, all *sync.WaitGroup) error {
	for {
		conn, err := w.Listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("listening on %s: %w", w.Listener.Addr(), errors.Join(err, w.Listener.Close()))
		}
		all.Go(func() {
			defer func() { _ = conn.Close() }() // nobody is left to hear of it
			waiting, cancel := context.WithTimeout(ctx, held)
			defer cancel()
			for {
				t, number, ok := w.take(waiting)
				if !ok {
					return
				}
				begun, err := carry(ctx, conn, t, number)
				if err != nil {
					// What a tunnel is good for ends with the pod's sandbox: the kubelet has found that once, when it was made.
					_ = t.Close()
				}
				w.leave(t)
				if begun {
					if err != nil && ctx.Err() == nil {
						w.tell(Lead{Pod: t.pod, Why: err.Error()})
					}
					return
				}
			}
		})
	}
}

// carry carries a connection until one end is done. begun is false where the tunnel could not take it; nothing of it was read
// then. The error is the tunnel's or the pod's, not that of a client who left.
func carry(ctx context.Context, conn net.Conn, t *tunnel, number int) (begun bool, err error) {
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(int(t.port)))
	headers.Set(corev1.PortForwardRequestIDHeader, strconv.Itoa(number))
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failure, err := t.CreateStream(headers)
	if err != nil {
		return false, err
	}
	defer t.RemoveStreams(failure)
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := t.CreateStream(headers)
	if err != nil {
		return false, errors.Join(err, failure.Reset())
	}
	defer t.RemoveStreams(data)
	// We have nothing to say on it. Errors of either stream show where they are read.
	_ = failure.Close()
	cut := context.AfterFunc(ctx, func() {
		_ = conn.Close()
		_ = data.Reset()
		_ = failure.Reset()
	})
	defer cut()

	var copies sync.WaitGroup
	copies.Go(func() {
		if _, err := io.Copy(data, conn); err != nil {
			_ = data.Reset()
			return
		}
		_ = data.Close() // the client has said all
	})
	copies.Go(func() {
		_, _ = io.Copy(conn, data)
		_ = conn.Close()
		_ = data.Reset() // else what nobody reads would stop up the tunnel
	})
	message, err := io.ReadAll(failure)
	if len(message) > 0 {
		err = errors.New(strings.TrimSpace(string(message)))
		_ = data.Reset()
		_ = conn.Close()
	}
	copies.Wait()
	return true, err
}

// dialPod makes a connection to the pod's forwarding, as kubectl does: by a websocket, and by SPDY alone where a proxy or an old
// server cannot.
func (c *Client) dialPod(namespace, pod string) (httpstream.Connection, error) {
	at := c.typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	socket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(at, c.config)
	if err != nil {
		return nil, err
	}
	plain, err := c.plainDialer(at)
	if err != nil {
		return nil, err
	}
	connection, _, err := portforward.NewFallbackDialerForStreaming(socket, plain, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}).Dial(portforward.PortForwardProtocolV1Name)
	return connection, err
}

func (c *Client) plainDialer(at *url.URL) (httpstream.Dialer, error) {
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	return spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, at), nil
}
