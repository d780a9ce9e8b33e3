package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"k8s.io/streaming/pkg/httpstream"
)

// Dial connects to a port of a pod, through the API server. ctx covers the connecting; the caller closes the connection. What
// the node says where nothing listens there is the error of the first Read.
func (c *Client) Dial(ctx context.Context, namespace, pod string, port int) (net.Conn, error) {
	type answer struct {
		under httpstream.Connection
		err   error
	}
	dialed := make(chan answer, 1)
	go func() { // the library's dial knows no context
		under, err := c.dialPod(namespace, pod)
		if err == nil && ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), under.Close())
		}
		dialed <- answer{under, err}
	}()
	a := answer{}
	select {
	case a = <-dialed:
	case <-ctx.Done():
		a.err = context.Cause(ctx)
	}
	if a.err != nil {
		return nil, fmt.Errorf("connecting to port %d of %s: %w", port, named("pod", namespace, pod), a.err)
	}
	// A pipe, for it has the deadlines that a stream lacks.
	ours, theirs := net.Pipe()
	d := &single{Conn: ours, under: a.under, over: make(chan struct{})}
	go func() {
		defer close(d.over)
		_, d.lost = carry(context.WithoutCancel(ctx), theirs, &tunnel{target: target{pod: pod, port: int32(port)}, Connection: a.under}, 0)
		_ = theirs.Close()
	}()
	return d, nil
}

// single is a connection to a pod's port, in a connection of its own to the API server.
type single struct {
	net.Conn
	under httpstream.Connection
	over  chan struct{} // closed when nothing more comes
	lost  error         // why, to be read when over is closed; nil where the far end has ended it
}

// Read implements net.Conn.
func (d *single) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		<-d.over
		if d.lost != nil {
			err = d.lost
		}
	}
	return n, err
}

// Close implements net.Conn.
func (d *single) Close() error { return errors.Join(d.Conn.Close(), d.under.Close()) }
