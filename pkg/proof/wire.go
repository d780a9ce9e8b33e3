package proof

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// order sends one order and reads its answer.
func (c *client) order(ctx context.Context) (status int, retry time.Duration, err error) {
	// What the server closed while nothing was asked takes no order: any client notices that before it sends.
	if c.conn != nil && time.Since(c.used) > idle && ended(c.conn) {
		c.hangUp()
	}
	if c.conn == nil {
		c.conn, err = (&net.Dialer{Timeout: answerTimeout}).DialContext(ctx, "tcp", c.load.Address)
		if err != nil {
			return 0, 0, err
		}
		conn := c.conn
		c.leave = context.AfterFunc(ctx, func() { _ = expire(conn) }) // closed, it has no deadline
		c.in, c.renew = bufio.NewReaderSize(c.conn, 4<<10), time.Time{}
	}
	// Not for each order: setting it costs as much as reading the answer's head.
	now := time.Now()
	c.used = now
	if now.After(c.renew) {
		if err := c.conn.SetDeadline(now.Add(answerTimeout + time.Second)); err != nil {
			return 0, 0, err
		}
		c.renew = now.Add(time.Second)
		if ctx.Err() != nil { // since this order was begun
			if err := expire(c.conn); err != nil {
				return 0, 0, err
			}
		}
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, 0, err
	}
	status, retry, length, last, err := readHead(c.in)
	if err != nil {
		return 0, 0, err
	}
	if c.key == "" {
		_, err = c.in.Discard(length)
	} else {
		c.body = slices.Grow(c.body[:0], length)[:length]
		_, err = io.ReadFull(c.in, c.body)
	}
	if err != nil {
		return 0, 0, err
	}
	if last {
		c.hangUp()
	}
	return status, retry, nil
}

// expire gives an answer that nobody waits for any more its last moment.
func expire(c net.Conn) error { return c.SetDeadline(time.Now().Add(lastAnswer)) }

// ended tells whether the server closed a connection on which nothing is under way. It looks without waiting.
func ended(c net.Conn) bool {
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
	return n == 0 && said == nil || errors.Is(said, unix.ECONNRESET)
}

func (c *client) hangUp() {
	if c.conn != nil {
		c.leave()
		_ = c.conn.Close() // nothing more is expected of it
		c.conn = nil
	}
}

// readHead reads an answer up to its body. last says that the connection ends after it.
func readHead(in *bufio.Reader) (status int, retry time.Duration, length int, last bool, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, 0, 0, false, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, 0, 0, false, errors.New("no HTTP/1.1 answer")
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, 0, false, errors.New("no HTTP/1.1 answer")
	}
	length = -1
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, 0, 0, false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, 0, 0, false, errors.New("an answer with a bad Content-Length")
			}
		case bytes.EqualFold(name, []byte("Connection")):
			last = bytes.EqualFold(value, []byte("close"))
		case bytes.EqualFold(name, []byte("Retry-After")):
			if seconds, err := strconv.Atoi(string(value)); err == nil {
				retry = time.Duration(seconds) * time.Second
			}
		}
	}
	if length < 0 || length > answerLimit {
		return 0, 0, 0, false, errors.New("an answer without Content-Length, or a huge one")
	}
	return status, retry, length, last, nil
}

// reason is an error without what differs from one connection to the next.
func reason(err error) string {
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in " + answerTimeout.String()
	case errors.As(err, &op):
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}
