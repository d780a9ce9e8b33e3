package daemon_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"platformctl/pkg/daemon"
)

// serveVariable makes the test's program a service: a process of its own, with its own memory and its own file descriptors.
const serveVariable = "PLATFORMCTL_TEST_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serveVariable) != "" {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serve answers POST /echo with the body, and prints its address first.
func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	routes := http.NewServeMux()
	routes.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(body) // who does not read it any more has gone
	})
	fmt.Println(listener.Addr())
	return daemon.Run(ctx, daemon.Service{
		Name: "crowd", Log: slog.New(slog.DiscardHandler), Listener: listener, Routes: routes, Registry: daemon.NewRegistry(),
		Ready: func(context.Context) error { return nil },
	})
}

// Ten thousand connections that say nothing, and some that stop in the middle, keep nobody from being served, are closed in time,
// and leave nothing behind.
func TestACrowdThatSaysNothing(t *testing.T) {
	t.Parallel()
	const idle, stalled = 10_000, 50
	const each, most = 20 << 10, 24 << 20 // bytes of heap: for a connection, and for what may stay behind, garbage included
	service := exec.Command(os.Args[0])
	service.Env = append(os.Environ(), serveVariable+"=1")
	service.Stderr = os.Stderr
	out, err := service.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := service.Wait(); err != nil {
			t.Error(err)
		}
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimSpace(address)
	before := memory(t, address)

	var crowd []net.Conn
	join := func(n int, says string) {
		for range n {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatalf("connection %d: %v", len(crowd), err)
			}
			crowd = append(crowd, c)
			if _, err := io.WriteString(c, says); err != nil {
				t.Fatal(err)
			}
		}
	}
	join(idle, "")
	join(stalled, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Le")
	join(stalled, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"userId\":")

	client := &http.Client{Timeout: 2 * time.Second}
	for i := range 200 {
		answer, err := client.Post("http://"+address+"/echo", "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close() // it was read
		if err != nil || answer.StatusCode != http.StatusOK || string(body) != "hello" {
			t.Fatalf("request %d: %d %q %v", i, answer.StatusCode, body, err)
		}
	}
	during := memory(t, address)

	// Each is closed by the service; who stopped in the middle is told so before.
	told := make(chan string, len(crowd))
	var all sync.WaitGroup
	for _, c := range crowd {
		all.Go(func() {
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Error(err)
			}
			said, err := io.ReadAll(c)
			if err != nil {
				t.Errorf("a connection was not closed: %v", err)
			}
			status, _, _ := strings.Cut(string(said), "\r\n")
			told <- status
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(told)
	counts := map[string]int{}
	for status := range told {
		counts[status]++
	}
	if counts["HTTP/1.1 400 Bad Request"] != 2*stalled || counts[""] != idle {
		t.Errorf("what was said: %v", counts)
	}
	// What is not in use any more goes with the next collections, which need something to do.
	after, asked := memory(t, address), time.Now()
	for after > before+most && time.Since(asked) < patience {
		after = memory(t, address)
	}
	t.Logf("heap in use: %d KiB before, %d KiB with %d connections, %d KiB after", before>>10, during>>10, len(crowd), after>>10)
	if after > before+most || during > before+uint64(len(crowd))*each {
		t.Errorf("more than %d KiB for each connection, or %d KiB after", each>>10, most>>10)
	}
}

// memory is what the service's heap holds, in bytes, by its own metrics.
func memory(t *testing.T, address string) uint64 {
	t.Helper()
	answer, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "go_memstats_heap_inuse_bytes "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return uint64(n)
		}
	}
	t.Fatal("the metrics do not tell the heap")
	return 0
}
