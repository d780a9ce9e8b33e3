package daemon

import (
	"container/list"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// errGone is why the context of a request ends whose client has gone.
var errGone = errors.New("the client has gone")

const (
	// What a client is still sending when it is told that nothing more is wanted is read for a while: closed before, the
	// connection would be reset, and the client would not see its answer.
	unreadTimeout = 500 * time.Millisecond
	unreadLimit   = 1 << 20
	// readAhead holds an order with its headers.
	readAhead   = 512
	acceptAgain = 50 * time.Millisecond // where the machine has no more files or buffers

	// A connection that has said nothing for so long is ended where somebody waits for its place.
	spareAfter = time.Second
	spareAgain = 100 * time.Millisecond
)

// limited is a listener with so many connections at once. When they are all taken, who comes gets the place of the one that has been
// silent for the longest time, or waits until there is one.
type limited struct {
	net.Listener
	log    *slog.Logger
	places chan struct{}
	closed chan struct{}
	close  func() error

	mu     sync.Mutex
	silent list.List // of *conn, the longest first
}

func limit(l net.Listener, n int, log *slog.Logger) *limited {
	closed := make(chan struct{})
	return &limited{Listener: l, log: log, places: make(chan struct{}, n), closed: closed, close: sync.OnceValue(func() error {
		close(closed)
		return l.Close()
	})}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for told := false; ; told = true {
		c, err := l.Listener.Accept()
		switch {
		case err == nil && l.place():
			return &conn{Conn: c, of: l, leave: sync.OnceFunc(func() { <-l.places })}, nil
		case err == nil:
			return nil, errors.Join(net.ErrClosed, c.Close())
		case !outOfResources(err):
			return nil, err
		case !told:
			l.log.Error("no connection can be taken, trying again", "error", err.Error())
		}
		select {
		case <-time.After(acceptAgain):
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

// place waits for one, and tells whether there is.
func (l *limited) place() bool {
	select {
	case l.places <- struct{}{}:
		return true
	default:
	}
	again := time.NewTicker(spareAgain)
	defer again.Stop()
	for {
		l.spare()
		select {
		case l.places <- struct{}{}:
			return true
		case <-l.closed:
			return false
		case <-again.C:
		}
	}
}

// spare ends the connection that has been silent for the longest time, if that is long enough. The server's own read then fails, it
// closes the connection, and that makes place.
func (l *limited) spare() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first := l.silent.Front(); first != nil && time.Since(first.Value.(*conn).since) > spareAfter {
		c := first.Value.(*conn)
		c.spared = true
		l.speaks(c)
		if err := c.Conn.Close(); err != nil {
			l.log.Debug("an idle connection could not be closed", "error", err.Error())
		}
	}
}

// track is fasthttp's ConnState: it keeps the list of silent connections.
func (l *limited) track(c net.Conn, state fasthttp.ConnState) {
	own, ok := c.(*conn)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.speaks(own)
	if state == fasthttp.StateNew || state == fasthttp.StateIdle {
		own.since = time.Now()
		own.silent = l.silent.PushBack(own)
	}
}

// speaks takes a connection out of the list of silent ones.
func (l *limited) speaks(c *conn) {
	if c.silent != nil {
		l.silent.Remove(c.silent)
		c.silent = nil
	}
}

// outOfResources tells whether no connection can be taken for now: for the server an error of its listener would be the end.
func outOfResources(err error) bool {
	return slices.ContainsFunc([]error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM}, func(e error) bool { return errors.Is(err, e) })
}

// Close implements net.Listener.
func (l *limited) Close() error { return l.close() }

// conn is a connection of a service's server.
type conn struct {
	net.Conn
	of     *limited
	leave  func() // makes place for another
	unread bool   // there may be more than was read

	silent *list.Element // in its listener's list, since a time
	since  time.Time
	spared bool // it was closed for another's sake

	// The server waits for a request by reading one byte, so that who says nothing has no buffer. What comes with that byte is most
	// often the whole request, which need not be asked for again.
	ahead    [readAhead]byte
	from, to int // what of it was not taken yet
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.from == c.to {
		if len(p) != 1 {
			return c.Conn.Read(p)
		}
		n, err := c.Conn.Read(c.ahead[:])
		if c.from, c.to = 0, n; n == 0 {
			return 0, err
		}
		if !c.begins() {
			return 0, net.ErrClosed
		}
	}
	n := copy(p, c.ahead[c.from:c.to])
	c.from += n
	return n, nil
}

// begins tells whether a request that begins to arrive can be answered still; if so, the connection is no other's any more.
func (c *conn) begins() bool {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.speaks(c)
	return !c.spared
}

// Close implements net.Conn.
func (c *conn) Close() error {
	defer c.leave()
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.unread {
		err := half.CloseWrite()
		if err == nil {
			err = c.SetReadDeadline(time.Now().Add(unreadTimeout))
		}
		if err == nil {
			_, _ = io.CopyN(io.Discard, c.Conn, unreadLimit) // it goes one way or the other
		}
	}
	return c.Conn.Close()
}

// Gone tells whether the client at the other end of a server's connection has closed it. It looks without waiting, and takes
// nothing of what the client may have sent.
func Gone(c net.Conn) bool {
	if own, ok := c.(*conn); ok {
		c = own.Conn
	}
	socket, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	var n int
	var said error
	if err := raw.Control(func(fd uintptr) {
		n, _, said = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	}); err != nil {
		return true
	}
	return n == 0 && said == nil || said != nil && !errors.Is(said, unix.EAGAIN) && !errors.Is(said, unix.EINTR)
}
