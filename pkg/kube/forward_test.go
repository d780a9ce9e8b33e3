package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// apiServer is as much of an API server as a forward asks: one Service's endpoints, listed and watched, and its pods' ports,
// by the protocol that the real one speaks. A pod answers each line with its name before it; one that is dead refuses.
type apiServer struct {
	t *testing.T
	*httptest.Server

	mu      sync.Mutex
	pods    []target // ready
	dead    map[types.UID]bool
	changed chan struct{}
	tunnels map[string][]httpstream.Connection // by pod
}

func newAPIServer(t *testing.T) (*apiServer, *Client) {
	t.Helper()
	s := &apiServer{t: t, changed: make(chan struct{}), dead: map[types.UID]bool{}, tunnels: map[string][]httpstream.Connection{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /apis/discovery.k8s.io/v1/namespaces/apps/endpointslices", s.slices)
	mux.HandleFunc("POST /api/v1/namespaces/apps/pods/{pod}/portforward", s.forward)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	c, err := Connect(fmt.Appendf(nil, `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}],
  clusters: [{name: c, cluster: {server: %q}}]}`, s.URL), time.Time{}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

// has makes these pods the Service's ready ones. Tunnels of the others end as a kubelet ends them.
func (s *apiServer) has(pods ...target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods = pods
	close(s.changed)
	s.changed = make(chan struct{})
}

// cut ends all tunnels to a pod.
func (s *apiServer) cut(pod string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tunnels[pod] {
		_ = t.Close() // the other end may have been quicker
	}
	delete(s.tunnels, pod)
}

func (s *apiServer) slice() (*discoveryv1.EndpointSlice, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, number, yes, no := "http", int32(8080), true, false
	slice := &discoveryv1.EndpointSlice{
		TypeMeta:   metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Name: "shop-1", Namespace: "apps", ResourceVersion: "1"},
		Ports:      []discoveryv1.EndpointPort{{Name: &name, Port: &number}},
		// Of a Service that publishes pods that are not ready, too: it calls them all ready.
		Endpoints: []discoveryv1.Endpoint{
			{TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "a-not-ready"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &no}},
			{TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "b-ending"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &yes}},
		},
	}
	for _, p := range s.pods {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: p.pod, UID: p.uid}})
	}
	return slice, s.changed
}

func (s *apiServer) slices(w http.ResponseWriter, r *http.Request) {
	if got := r.URL.Query().Get("labelSelector"); got != "kubernetes.io/service-name=shop" {
		s.t.Errorf("it asks for %q", got)
	}
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	slice, changed := s.slice()
	if r.URL.Query().Get("watch") == "" {
		list := discoveryv1.EndpointSliceList{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"}, Items: []discoveryv1.EndpointSlice{*slice}}
		if err := out.Encode(list); err != nil {
			s.t.Error(err)
		}
		return
	}
	for {
		// The first says again what the list said: between the two something may have changed.
		if err := out.Encode(map[string]any{"type": "MODIFIED", "object": slice}); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
			slice, changed = s.slice()
		case <-r.Context().Done():
			return
		}
	}
}

func (s *apiServer) forward(w http.ResponseWriter, r *http.Request) {
	pod := r.PathValue("pod")
	var uid types.UID
	s.mu.Lock()
	for _, p := range s.pods {
		if p.pod == pod {
			uid = p.uid
		}
	}
	s.mu.Unlock()
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		return // the websocket, which this server does not speak
	}
	failures := make(chan httpstream.Stream, 16)
	tunnel := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, reply <-chan struct{}) error {
		if stream.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
			failures <- stream
			return nil
		}
		failure := <-failures
		go func() {
			<-reply
			defer failure.Close()
			defer stream.Close()
			s.mu.Lock()
			dead := s.dead[uid]
			s.mu.Unlock()
			if dead {
				_, _ = io.WriteString(failure, "connection refused")
				return
			}
			for lines := bufio.NewScanner(stream); lines.Scan(); {
				if _, err := fmt.Fprintf(stream, "%s/%s:%s %s\n", pod, uid, stream.Headers().Get(corev1.PortHeader), lines.Text()); err != nil {
					return
				}
			}
		}()
		return nil
	})
	if tunnel == nil {
		return
	}
	s.mu.Lock()
	s.tunnels[pod] = append(s.tunnels[pod], tunnel)
	s.mu.Unlock()
	<-tunnel.CloseChan()
}

// begin begins a forward and returns its address, what it says, and what ends it.
func begin(t *testing.T, c *Client) (address string, said <-chan Lead) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	leads := make(chan Lead, 64)
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context())) // which ends before the cleanup
	done := make(chan error)
	over := errors.New("over")
	go func() {
		done <- c.Forward(ctx, Forward{Namespace: "apps", Service: "shop", Port: "http", Listener: l}, func(l Lead) { leads <- l })
	}()
	t.Cleanup(func() {
		cancel(over)
		if err := <-done; !errors.Is(err, over) {
			t.Errorf("it ended with %v", err)
		}
		if conn, err := net.Dial("tcp4", l.Addr().String()); err == nil {
			t.Error("the port is still open")
			_ = conn.Close()
		}
	})
	return l.Addr().String(), leads
}

// client is a connection that asks and is answered line by line.
type lineClient struct {
	t *testing.T
	net.Conn
	*bufio.Reader
}

func connect(t *testing.T, address string) *lineClient {
	t.Helper()
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &lineClient{t, conn, bufio.NewReader(conn)}
}

func (l *lineClient) asks(text, want string) {
	l.t.Helper()
	if _, err := io.WriteString(l.Conn, text+"\n"); err != nil {
		l.t.Fatal(err)
	}
	got, err := l.ReadString('\n')
	if err != nil || got != want+"\n" {
		l.t.Fatalf("the answer is %q (%v), want %q", got, err, want)
	}
}

// ends fails unless the connection is closed by the other side.
func (l *lineClient) ends() {
	l.t.Helper()
	if got, err := l.ReadString('\n'); err == nil || errors.Is(err, context.DeadlineExceeded) {
		l.t.Errorf("it goes on: %q, %v", got, err)
	}
}

func hears(t *testing.T, said <-chan Lead, want Lead) {
	t.Helper()
	select {
	case got := <-said:
		if got.Pod != want.Pod || !strings.Contains(got.Why, want.Why) {
			t.Fatalf("it says %+v, want %+v", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("it says nothing, want %+v", want)
	}
}

func TestForwardFollowsTheService(t *testing.T) {
	s, c := newAPIServer(t)
	s.has(target{pod: "shop-0", uid: "u1"})
	address, said := begin(t, c)
	hears(t, said, Lead{Pod: "shop-0"})
	first, second := connect(t, address), connect(t, address)
	first.asks("hello", "shop-0/u1:8080 hello")
	second.asks("both", "shop-0/u1:8080 both")
	first.asks("at once", "shop-0/u1:8080 at once")

	// A second pod beside it changes nothing; one in its place is taken, and what stands goes on as long as the old one does.
	s.has(target{pod: "shop-0", uid: "u1"}, target{pod: "another", uid: "u2"})
	connect(t, address).asks("x", "shop-0/u1:8080 x")
	s.has(target{pod: "another", uid: "u2"})
	hears(t, said, Lead{Pod: "another"})
	connect(t, address).asks("x", "another/u2:8080 x")
	first.asks("still", "shop-0/u1:8080 still")
	s.cut("shop-0")
	first.ends()
}

func TestForwardHoldsAConnectionUntilThereIsAPod(t *testing.T) {
	s, c := newAPIServer(t)
	address, said := begin(t, c)
	hears(t, said, Lead{Why: "no pod of it is ready"})
	early := connect(t, address)
	s.has(target{pod: "shop-0", uid: "u1"})
	hears(t, said, Lead{Pod: "shop-0"})
	early.asks("hello", "shop-0/u1:8080 hello")
	s.has()
	hears(t, said, Lead{Why: "no pod of it is ready"})
	// A StatefulSet's next pod has the same name.
	s.has(target{pod: "shop-0", uid: "u2"})
	hears(t, said, Lead{Pod: "shop-0"})
	connect(t, address).asks("again", "shop-0/u2:8080 again")
}

func TestForwardGoesOnAfterATunnelBroke(t *testing.T) {
	s, c := newAPIServer(t)
	s.has(target{pod: "shop-0", uid: "u1"})
	address, said := begin(t, c)
	hears(t, said, Lead{Pod: "shop-0"})
	connect(t, address).asks("x", "shop-0/u1:8080 x")
	s.cut("shop-0")
	connect(t, address).asks("y", "shop-0/u1:8080 y")
}

func TestForwardTellsWhatThePodSays(t *testing.T) {
	s, c := newAPIServer(t)
	s.dead["u1"] = true
	s.has(target{pod: "shop-0", uid: "u1"})
	address, said := begin(t, c)
	hears(t, said, Lead{Pod: "shop-0"})
	connect(t, address).ends()
	hears(t, said, Lead{Pod: "shop-0", Why: "connection refused"})
}

func TestForwardTellsThatTheAPIServerIsAway(t *testing.T) {
	s, c := newAPIServer(t)
	s.has(target{pod: "shop-0", uid: "u1"})
	_, said := begin(t, c)
	hears(t, said, Lead{Pod: "shop-0"})
	s.Listener.Close() // first, or who is cut off connects again in between
	s.cut("shop-0")
	s.CloseClientConnections()
	for {
		select {
		case l := <-said:
			if strings.Contains(l.Why, "does not answer") {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it says nothing of it")
		}
	}
}
