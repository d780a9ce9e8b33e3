// Package rabbit speaks to RabbitMQ in sessions: a connection, what is declared and done on it, and its end. Nothing
// survives a session. Whatever fails, everything of it is thrown away and the next one starts from nothing, so that an
// acknowledgement of the old connection can never settle a message of the new one.
package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"platformctl/pkg/resolve"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	dialTimeout = 5 * time.Second
	heartbeat   = 10 * time.Second
	firstPause  = 50 * time.Millisecond
	lastPause   = 250 * time.Millisecond
	graceStop   = graceHandle + time.Second // for a session to come to its end once it is stopped
	steady      = time.Second               // a session that lasted so long has not failed by what it does
)

// errNotYet is a dialer's state before its first session.
var errNotYet = errors.New("not connected yet")

// Dialer opens sessions at one broker, one after another.
type Dialer struct {
	URL  string // amqp://user:password@host:port/vhost
	Name string // the connection's name, as the broker lists it
	Log  *slog.Logger
	// Dial opens the network connection; nil is the usual way. Tests put themselves in between here.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	state atomic.Pointer[error]
}

// Session is what a session's function gets. Its connection is closed when the function returns.
type Session struct {
	Conn *amqp.Connection
	// Stop is closed when the session should come to an end by itself: it finishes what it has in hand and returns. After graceStop its
	// connection ends.
	Stop <-chan struct{}

	up func()
}

// Up says that the session is ready for its work; until then the dialer's Err is not nil.
func (s Session) Up() { s.up() }

// Err is nil while a session is up, else why there is none.
func (d *Dialer) Err() error {
	if state := d.state.Load(); state != nil {
		return *state
	}
	return errNotYet
}

// Run calls session with one fresh connection after another, until stop ends and the session in hand has returned. The
// context that session gets ends when its connection does, not with stop.
func (d *Dialer) Run(stop context.Context, session func(context.Context, Session) error) {
	said := "" // an outage is not told of at each try
	for pause := firstPause; stop.Err() == nil; {
		began := time.Now()
		err := d.Once(stop, session)
		if stop.Err() != nil {
			if err != nil {
				d.Log.WarnContext(stop, "the broker session did not end well", "connection", d.Name, "error", err.Error())
			}
			return
		}
		if err == nil {
			err = errors.New("the session ended by itself")
		}
		d.state.Store(&err)
		if time.Since(began) > steady {
			pause, said = firstPause, ""
		}
		if said != err.Error() {
			said = err.Error()
			d.Log.WarnContext(stop, "no broker session, dialing again", "connection", d.Name, "error", said)
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-stop.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause = min(2*pause, lastPause)
	}
}

// Once is one session, for who does something and leaves: it ends when session returns. The context that session gets ends with
// the connection, and not with stop.
func (d *Dialer) Once(stop context.Context, session func(context.Context, Session) error) (err error) {
	conn, network, err := d.connect(stop)
	if err != nil {
		return err
	}
	life, end := context.WithCancelCause(context.WithoutCancel(stop))
	defer end(nil)
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	go func() {
		if reason := <-closed; reason != nil {
			end(fmt.Errorf("the broker's connection was lost: %w", reason))
		}
		end(errors.New("the broker's connection was closed"))
		// Who publishes to a broker that takes nothing holds the locks that the library wants for this same end.
		_ = network.Close()
	}()
	// A broker that takes nothing would have who publishes wait for good.
	defer context.AfterFunc(stop, func() {
		timer := time.NewTimer(graceStop)
		defer timer.Stop()
		select {
		case <-life.Done():
		case <-timer.C:
			_ = network.Close()
		}
	})()
	defer func() {
		// A session that failed because its connection did says so.
		if cause := context.Cause(life); err != nil && cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w (%w)", err, cause)
		}
		if !conn.IsClosed() {
			// Whatever was not settled comes back by itself, so an error here loses nothing; it is worth a line all the same.
			if e := conn.CloseDeadline(time.Now().Add(dialTimeout)); e != nil && err == nil {
				err = fmt.Errorf("close the broker's connection: %w", e)
			}
		}
	}()
	return session(life, Session{Conn: conn, Stop: stop.Done(), up: func() {
		d.state.Store(new(error))
		d.Log.InfoContext(stop, "broker session up", "connection", d.Name)
	}})
}

func (d *Dialer) connect(ctx context.Context) (conn *amqp.Connection, network net.Conn, err error) {
	dial := d.Dial
	if dial == nil {
		dial = resolve.Dial
	}
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(d.Name)
	conn, err = amqp.DialConfig(d.URL, amqp.Config{
		Heartbeat:  heartbeat,
		Properties: properties,
		Dial: func(kind, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			c, err := dial(ctx, kind, address)
			if err != nil {
				return nil, err
			}
			// The handshake has this long; the library lifts the deadline when it is done.
			if err := c.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
				return nil, errors.Join(err, c.Close())
			}
			network = coalesce(c)
			return network, nil
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("connect to the broker: %w", err)
	}
	return conn, network, nil
}
