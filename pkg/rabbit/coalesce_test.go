package rabbit

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// pair is both ends of a connection on loopback; ours is coalesced.
func pair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return coalesce(client), server
}

// What several write arrives whole, each writer's in its order, and all that was written before Close.
func TestCoalescedWritesArriveInOrder(t *testing.T) {
	ours, theirs := pair(t)
	const writers, each = 4, 5000
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				if _, err := ours.Write(binary.BigEndian.AppendUint32([]byte{byte(w)}, uint32(i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	go func() {
		writing.Wait()
		if err := ours.Close(); err != nil {
			t.Error(err)
		}
	}()
	raw, err := io.ReadAll(theirs)
	if err != nil {
		t.Fatal(err)
	}
	var next [writers]uint32
	for record := range slices.Chunk(raw, 5) {
		w := record[0]
		if n := binary.BigEndian.Uint32(record[1:]); n != next[w] {
			t.Fatalf("writer %d: %d came in the place of %d", w, n, next[w])
		}
		next[w]++
	}
	for w, n := range next {
		if n != each {
			t.Errorf("writer %d: %d of %d arrived", w, n, each)
		}
	}
	if _, err := ours.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("written after Close: %v", err)
	}
}

// A server that takes nothing makes writers wait, and neither them nor Close for ever.
func TestCoalescedWritesToAServerThatTakesNothing(t *testing.T) {
	ours, _ := pair(t)
	blocked := make(chan error, 1)
	written := make(chan struct{}, 1)
	go func() {
		for chunk := make([]byte, 64<<10); ; {
			if _, err := ours.Write(chunk); err != nil {
				blocked <- err
				return
			}
			select {
			case written <- struct{}{}:
			default:
			}
		}
	}()
	for more := true; more; { // until the writer waits
		select {
		case <-written:
		case err := <-blocked:
			t.Fatalf("a write failed: %v", err)
		case <-time.After(200 * time.Millisecond):
			more = false
		}
	}
	began := time.Now()
	if err := ours.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 3*lastWrite {
		t.Errorf("Close took %s", d)
	}
	if err := <-blocked; !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// An error of the connection comes with a later write.
func TestCoalescedWritesToABrokenConnection(t *testing.T) {
	ours, theirs := pair(t)
	if err := theirs.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		for {
			if _, err := ours.Write([]byte("x")); err != nil {
				failed <- err
				return
			}
		}
	}()
	select {
	case <-failed:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody is told that the connection is broken")
	}
	if err := ours.Close(); err != nil {
		t.Error(err)
	}
}
