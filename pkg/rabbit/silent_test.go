package rabbit_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/rabbit"
	"platformctl/pkg/rabbit/rabbittest"

	amqp "github.com/rabbitmq/amqp091-go"
)

// deaf lies between a client and the broker. After deafen it takes nothing from the client, and after mute the client reads an end;
// its own half of the connection stays open.
type deaf struct {
	client, server *net.TCPConn
	left           chan struct{}
}

func (d *deaf) deafen() error { return d.client.SetReadDeadline(time.Now()) }

func (d *deaf) mute() error {
	if err := d.server.Close(); err != nil {
		return err
	}
	<-d.left
	return d.client.CloseWrite()
}

// between has a dialer's connections go through a deaf, which comes with the first.
func between(t *testing.T, d *rabbit.Dialer) <-chan *deaf {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	made := make(chan *deaf, 1)
	d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		server, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ours, err := (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			return nil, err
		}
		theirs, err := listener.Accept()
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _, _ = server.Close(), theirs.Close() }) // one may be closed
		through := &deaf{theirs.(*net.TCPConn), server.(*net.TCPConn), make(chan struct{})}
		go func() { _, _ = io.Copy(through.server, through.client) }()
		go func() {
			_, _ = io.Copy(through.client, through.server)
			close(through.left)
		}()
		made <- through
		return ours, nil
	}
	return made
}

// A broker that takes nothing has who publishes wait, with the locks that the library wants for the connection's end. It comes all
// the same: when the connection's other end does, and when the session is stopped.
func TestASessionEndsThoughAWriteWaits(t *testing.T) {
	for how, end := range map[string]func(stop context.CancelFunc, through *deaf) error{
		"the broker ends it": func(_ context.CancelFunc, through *deaf) error { return through.mute() },
		"it is stopped": func(stop context.CancelFunc, through *deaf) error { // and nobody else ends it for a while
			stop()
			return through.server.SetReadDeadline(time.Now())
		},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			d := dialer(t, rabbittest.VHost(t))
			made := between(t, d)
			stopped, stop := context.WithCancel(t.Context())
			defer stop()
			written, ended := make(chan struct{}, 1), make(chan error, 1)
			go func() { ended <- d.Once(stopped, publishOn(written)) }()
			through := receive(t, made, "the connection")
			receive(t, written, "a write")
			if err := through.deafen(); err != nil {
				t.Fatal(err)
			}
			for waits := false; !waits; {
				select {
				case <-written:
				case <-time.After(500 * time.Millisecond):
					waits = true
				}
			}
			if err := end(stop, through); err != nil {
				t.Fatal(err)
			}
			// The library would end it after 15 s of silence.
			if err := receive(t, ended, "the session's end"); err == nil || errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "i/o timeout") {
				t.Errorf("it ended by %v", err)
			}
		})
	}
}

// publishOn is a session that publishes on and on, and tells of each.
func publishOn(written chan<- struct{}) func(context.Context, rabbit.Session) error {
	return func(ctx context.Context, s rabbit.Session) error {
		channel, err := s.Conn.Channel()
		if err != nil {
			return err
		}
		for body := make([]byte, 64<<10); ; {
			if err := channel.PublishWithContext(ctx, "", "nowhere", false, false, amqp.Publishing{Body: body}); err != nil {
				return err
			}
			select {
			case written <- struct{}{}:
			default:
			}
		}
	}
}
