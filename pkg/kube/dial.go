package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// Dial connects to a port of a pod, through the API server. ctx covers the connecting; the caller closes the connection. What
// the node says where nothing listens there is the error of the first Read.
func (c *Client) Dial(ctx context.Context, namespace, pod string, port int) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, fmt.Errorf("connecting to port %d of %s: %w", port, named("pod", namespace, pod), err)
	}
	url := c.typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	// As kubectl does: by a websocket, and by SPDY where a proxy or an old server cannot.
	socket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, c.config)
	if err != nil {
		return fail(err)
	}
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return fail(err)
	}
	dialer := portforward.NewFallbackDialerForStreaming(socket, spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url),
		func(err error) bool { return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err) })
	type dialed struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialed, 1)
	go func() { // the library's dial knows no context
		conn, err := forward(dialer, port)
		if ctx.Err() != nil && err == nil {
			err = errors.Join(context.Cause(ctx), conn.Close())
		}
		done <- dialed{conn, err}
	}()
	select {
	case d := <-done:
		if d.err != nil {
			return fail(d.err)
		}
		return d.conn, nil
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	}
}

// forward opens one connection of its own and the two streams of a forwarded port in it.
func forward(dialer httpstream.Dialer, port int) (net.Conn, error) {
	under, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, err
	}
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	complaints, err := under.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, under.Close())
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := under.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, under.Close())
	}
	// A pipe, for it has the deadlines that a stream lacks.
	ours, theirs := net.Pipe()
	f := &forwarded{Conn: ours, under: under, over: make(chan struct{})}
	go func() {
		_, _ = io.Copy(data, theirs) // it ends with the pipe or with the stream, which the other direction tells of
		_ = data.Close()
	}()
	go func() {
		defer close(f.over)
		_, f.lost = io.Copy(theirs, data)
		if f.lost == nil {
			_ = data.Reset()                  // else what was not sent could hold up the other stream
			said, _ := io.ReadAll(complaints) // what has come of it
			if said = bytes.TrimSpace(said); len(said) > 0 {
				f.lost = errors.New(string(said))
			}
		}
		_ = theirs.Close()
	}()
	return f, complaints.Close() // of our side: nothing is written to it
}

// forwarded is a connection to a pod's port.
type forwarded struct {
	net.Conn
	under httpstream.Connection
	over  chan struct{} // closed when nothing more comes
	lost  error         // why, read when over is closed; nil where the far end has ended it
}

// Read implements net.Conn.
func (f *forwarded) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		<-f.over
		if f.lost != nil {
			err = f.lost
		}
	}
	return n, err
}

// Close implements net.Conn.
func (f *forwarded) Close() error { return errors.Join(f.Conn.Close(), f.under.Close()) }
