package host

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"platformctl/pkg/command"
)

func listen(t *testing.T, network, address string) (net.Listener, int) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // the test may have closed it
	return l, l.Addr().(*net.TCPAddr).Port
}

func TestPortHolder(t *testing.T) {
	m := Local("", "", "", Needs{})
	own, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ network, address string }{{"tcp4", "127.0.0.1:0"}, {"tcp4", "0.0.0.0:0"}, {"tcp", ":0"}} {
		l, port := listen(t, c.network, c.address)
		process, pid, taken, err := m.PortHolder(t.Context(), port)
		if err != nil || !taken || pid != os.Getpid() || process+"\n" != string(own) {
			t.Errorf("%s: got %q, %d, %v, %v", c.address, process, pid, taken, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if process, pid, taken, err := m.PortHolder(t.Context(), port); err != nil || taken {
			t.Errorf("%s is free again: got %q, %d, %v, %v", c.address, process, pid, taken, err)
		}
	}
}

func TestAPortThatAContainerPublishes(t *testing.T) {
	for _, holder := range []string{"docker-proxy", "dockerd", "com.docker.backend"} {
		t.Run(holder, func(t *testing.T) { published(t, holder) })
	}
}

func published(t *testing.T, holder string) {
	_, port := listen(t, "tcp4", "127.0.0.1:0")
	table := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n" +
		"   0: 0100007F:" + hex(port) + " 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0 100 0 0 10 0\n"
	m, _ := machine(t, map[string]string{"/proc/net/tcp": table, "/proc/88/stat": stat(88, holder, "S", 1), "/proc/88/fd/x": ""},
		map[string]command.Answer{"docker ps": {Stdout: "other-control-plane\n"}})
	if err := os.Symlink("socket:[777]", m.path("/proc/88/fd/5")); err != nil {
		t.Fatal(err)
	}
	process, pid, taken, err := m.PortHolder(t.Context(), port)
	if err != nil || !taken || pid != 88 || process != "container other-control-plane" {
		t.Errorf("got %q, %d, %v, %v", process, pid, taken, err)
	}

	// The same to a user who may see neither root's processes nor the engine.
	hidden, _ := machine(t, map[string]string{"/proc/net/tcp": table}, nil)
	process, pid, taken, err = hidden.PortHolder(t.Context(), port)
	if err != nil || !taken || pid != 0 || process != "" {
		t.Errorf("got %q, %d, %v, %v", process, pid, taken, err)
	}
}

func hex(port int) string {
	const digits = "0123456789ABCDEF"
	return string([]byte{digits[port>>12&15], digits[port>>8&15], digits[port>>4&15], digits[port&15]})
}

func TestListenersIn(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0200000A:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
   3: 0100007F:1F90 0100007F:8888 01 00000000:00000000 00:00000000 00000000     0        0 4 1 0 100 0 0 10 0
   4: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5 1 0 100 0 0 10 0
   5: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 6 1
   6: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 7 1
   7: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 8 1
`
	path := filepath.Join(t.TempDir(), "tcp")
	write(t, path, table)
	got, err := listenersIn(path, 8080)
	if want := []string{"1", "2", "6", "8"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}
