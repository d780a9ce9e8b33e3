package daemon_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"platformctl/pkg/daemon"
)

// pipes is a listener whose connections hold nothing on their way: what one end writes waits until the other reads it.
type pipes struct {
	ends   chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case end := <-p.ends:
		return end, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.closed); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.ends <- server
	return client, nil
}

// Clients that ask and never read what they are told keep nobody from being served, and are dropped in time.
func TestACrowdThatReadsNothing(t *testing.T) {
	get(t, start(t, daemon.Service{}).url+"/live") // the library's clock is started outside of the test's time
	synctest.Test(t, func(t *testing.T) {
		const stalled = 50
		dropped := make(chan time.Duration, stalled) // when, since the beginning
		began := time.Now()
		routes := http.NewServeMux()
		routes.HandleFunc("GET /much", func(w http.ResponseWriter, _ *http.Request) {
			for {
				_, err := w.Write(make([]byte, 4096))
				if err == nil {
					err = http.NewResponseController(w).Flush()
				}
				if err != nil {
					dropped <- time.Since(began)
					return
				}
			}
		})
		listener := pipes{make(chan net.Conn), make(chan struct{})}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- daemon.Run(ctx, daemon.Service{
				Name: "crowd", Log: slog.New(slog.DiscardHandler), Listener: listener, Routes: routes, Registry: daemon.NewRegistry(),
				Ready: func(context.Context) error { return nil },
			})
		}()
		var crowd []net.Conn
		for range stalled {
			c, err := listener.dial(ctx, "", "")
			if err == nil {
				_, err = io.WriteString(c, "GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
			}
			if err != nil {
				t.Fatal(err)
			}
			crowd = append(crowd, c)
		}
		client := &http.Client{Transport: &http.Transport{DialContext: listener.dial, DisableKeepAlives: true}}
		answer, err := client.Get("http://crowd/ready")
		if err != nil {
			t.Fatal(err)
		}
		if err := answer.Body.Close(); err != nil || answer.StatusCode != http.StatusOK || time.Since(began) > 0 {
			t.Errorf("a neighbour is told %d after %s, %v", answer.StatusCode, time.Since(began), err)
		}
		late := time.After(time.Minute) // by the test's own clock
		for n := range stalled {
			select {
			case after := <-dropped:
				if after < 30*time.Second {
					t.Errorf("one was dropped after %s", after)
				}
			case <-late:
				t.Fatalf("%d of %d were dropped", n, stalled)
			}
		}
		for _, c := range crowd {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		// The library's goroutines look only now and then whether they are still wanted.
		again := time.NewTicker(time.Second)
		defer again.Stop()
		for libraryWorks() {
			select {
			case <-again.C:
			case <-late:
				t.Fatal("the library's goroutines go on after the service ended")
			}
		}
	})
}

// libraryWorks tells whether a goroutine of the server's library is left in a test's own time.
func libraryWorks() bool {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return slices.ContainsFunc(strings.Split(string(stacks), "\n\n"), func(stack string) bool {
		head, calls, _ := strings.Cut(stack, "\n")
		return strings.Contains(head, "synctest bubble") && strings.Contains(calls, "fasthttp.(*workerPool)")
	})
}
