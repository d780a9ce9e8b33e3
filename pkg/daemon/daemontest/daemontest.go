// Package daemontest serves routes in a test as a service does, without the rest of a service's life.
package daemontest

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"platformctl/pkg/daemon"

	"github.com/valyala/fasthttp"
)

// Gone is daemon's.
func Gone(c net.Conn) bool { return daemon.Gone(c) }

// Serve answers at url until stop is called, which waits for the last request.
func Serve(t testing.TB, routes http.Handler, direct map[string]fasthttp.RequestHandler, log *slog.Logger) (url string, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	server, listener := daemon.NewServer(listener, 0, routes, direct, log)
	go func() { ended <- server.Serve(listener) }()
	return "http://" + listener.Addr().String(), func() {
		err := errors.Join(server.Shutdown(), listener.Close()) // it is open where the server had not begun
		if err := errors.Join(err, <-ended); err != nil {
			t.Error(err)
		}
	}
}
