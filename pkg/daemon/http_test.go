package daemon_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"platformctl/pkg/daemon"

	"github.com/valyala/fasthttp"
)

// direct are routes past net/http: one that answers, one that has a fault.
func direct() map[string]fasthttp.RequestHandler {
	return map[string]fasthttp.RequestHandler{
		"POST /echo":  func(ctx *fasthttp.RequestCtx) { ctx.SetStatusCode(http.StatusAccepted); ctx.SetBody(ctx.PostBody()) },
		"POST /fault": func(*fasthttp.RequestCtx) { panic("a fault") },
	}
}

func post(t *testing.T, url, body string) string {
	t.Helper()
	answer, err := http.Post(url, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %s %t", answer.StatusCode, strings.TrimSpace(string(raw)), answer.Close)
}

func TestDirectRoutes(t *testing.T) {
	t.Parallel()
	stopping := make(chan struct{})
	routes := http.NewServeMux()
	routes.HandleFunc("GET /fault", func(http.ResponseWriter, *http.Request) { panic("another fault") })
	s := start(t, daemon.Service{Routes: routes, Direct: direct(), OnStop: func() { close(stopping) }})
	if got := post(t, s.url+"/echo", "hello"); got != "202 hello false" {
		t.Error(got)
	}
	for _, path := range []string{"/echo/", "/other"} {
		if got := post(t, s.url+path, ""); !strings.HasPrefix(got, "404 ") {
			t.Errorf("%s: %s", path, got)
		}
	}
	// What no URL has is not the service's fault.
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /orders/%zz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(answer.Body)
	if want := `{"error":"invalid_request","message":"the path or the query is not a URL's"}` + "\n"; err != nil || answer.StatusCode != http.StatusBadRequest || string(raw) != want || answer.Close {
		t.Errorf("%d %s %v", answer.StatusCode, raw, err)
	}
	// A request that has a fault is answered, and others are as before.
	for range 3 {
		if got := post(t, s.url+"/fault", ""); got != `500 {"error":"internal"} false` {
			t.Error(got)
		}
		if code, body, _ := get(t, s.url+"/fault"); code != 500 || body != `{"error":"internal"}` {
			t.Errorf("%d %s", code, body)
		}
	}
	if _, metrics, _ := get(t, s.url+"/metrics"); !strings.Contains(metrics, `http_request_seconds_count{method="POST",route="POST /echo",status="202"} 1`) {
		t.Error("the request is not counted")
	}
	s.stop()
	<-stopping
	if got := post(t, s.url+"/echo", "hello"); got != "202 hello true" {
		t.Errorf("while it stops: %s", got)
	}
}

// Requests arrive as the network has them: many in one piece, one in many, and of any size.
func TestRequestsInAnyPieces(t *testing.T) {
	t.Parallel()
	s := start(t, daemon.Service{Direct: direct()})
	var stream strings.Builder
	var bodies []string
	for _, size := range []int{0, 1, 400, 511, 512, 513, 1025, 5000, 60_000, 1, 2} {
		body := strings.Repeat(string(rune('a'+len(bodies))), size)
		bodies = append(bodies, body)
		fmt.Fprintf(&stream, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", size, body)
	}
	for _, piece := range []int{1 << 20, 700, 512, 511, 37} {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		sent := make(chan error, 1)
		go func() {
			var err error
			for rest := stream.String(); rest != "" && err == nil; {
				n := min(piece, len(rest))
				_, err = io.WriteString(c, rest[:n])
				rest = rest[n:]
			}
			sent <- err
		}()
		in := bufio.NewReader(c)
		for i, want := range bodies {
			answer, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("in pieces of %d, answer %d: %v", piece, i, err)
			}
			if raw, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusAccepted || string(raw) != want {
				t.Errorf("in pieces of %d, answer %d: %s, %d bytes for %d, %v", piece, i, answer.Status, len(raw), len(want), err)
			}
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}

// short is a listener that has no file left for some connections.
type short struct {
	net.Listener
	times atomic.Int64
}

func (s *short) Accept() (net.Conn, error) {
	if s.times.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return s.Listener.Accept()
}

// A machine that has no files left for a moment is no end of a service.
func TestAServiceOutlivesTheLackOfFiles(t *testing.T) {
	t.Parallel()
	l := &short{Listener: listen(t)}
	l.times.Store(3)
	s := start(t, daemon.Service{Listener: l, Direct: direct()})
	if got := post(t, s.url+"/echo", "hello"); got != "202 hello false" {
		t.Error(got)
	}
}

// What the server reads requests into is used again for the next one. Nothing that is counted may still lie there.
func TestRequestsAreCountedByWhatTheyWere(t *testing.T) {
	t.Parallel()
	s := start(t, daemon.Service{})
	const each = 50
	for range each {
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, "BREW", "X"} {
			request, err := http.NewRequestWithContext(t.Context(), method, s.url+"/live", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, answer.Body); err != nil {
				t.Error(err)
			}
			answer.Body.Close()
		}
	}
	code, metrics, _ := get(t, s.url+"/metrics")
	for _, want := range []string{`{method="GET",route="GET /live",status="200"} 50`, `{method="PUT",route="/live",status="405"} 50`, `{method="DELETE",route="/live",status="405"} 50`, `{method="other",route="/live",status="405"} 100`} {
		if code != http.StatusOK || !strings.Contains(metrics, "http_request_seconds_count"+want) {
			t.Errorf("%d without %s:\n%.2000s", code, want, metrics)
		}
	}
}

// A client sees what it is told though it is still sending.
func TestABodyThatIsTooLarge(t *testing.T) {
	t.Parallel()
	s := start(t, daemon.Service{Direct: direct()})
	for _, framing := range []string{"Content-Length: 700000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\naae60\r\n"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "POST /echo HTTP/1.1\r\nHost: x\r\n"+framing+strings.Repeat("x", 700_000)); err != nil {
			t.Errorf("%q: %v", framing, err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%q: %v", framing, err)
		}
		raw, err := io.ReadAll(answer.Body)
		if want := `{"error":"too_large","message":"the body must not be larger than 65536 bytes"}` + "\n"; err != nil || answer.StatusCode != http.StatusRequestEntityTooLarge || string(raw) != want {
			t.Errorf("%q: %d %s %v", framing, answer.StatusCode, raw, err)
		}
	}
}

// Where a client goes, the work for it ends; one that stays is waited for.
func TestTheWorkForAClientThatHasGoneEnds(t *testing.T) {
	t.Parallel()
	began, ended := make(chan struct{}), make(chan error, 1)
	routes := http.NewServeMux()
	routes.HandleFunc("GET /long", func(_ http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
		ended <- r.Context().Err()
	})
	s := start(t, daemon.Service{Routes: routes})
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /long HTTP/1.1\r\nHost: x\r\n\r\nGET /next"); err != nil {
		t.Fatal(err)
	}
	<-began
	select {
	case <-ended:
		t.Error("the work ended while the client was there")
	case <-time.After(time.Second):
	}
	// Bytes of the next request lie before the end; that the client closed is seen when the connection is reset.
	if err := c.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the work goes on for nobody")
	}
	const counted = `http_request_seconds_count{method="GET",route="GET /long",status="499"} 1`
	for deadline := time.Now().Add(patience); ; {
		_, metrics, _ := get(t, s.url+"/metrics")
		if strings.Contains(metrics, counted) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is not counted as left by its client:\n%.2000s", metrics)
		}
	}
}
