package proof

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// accounts writes a /proc of two CPUs and the given processes.
func accounts(t *testing.T, dir, cpu string, processes map[string]string) {
	t.Helper()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("stat", "cpu  "+cpu+"\ncpu0 1 2\ncpu1 1 2\nintr 5\n")
	for pid, stat := range processes {
		write(pid+"/stat", stat)
		write(pid+"/cgroup", "0::/docker/abc/kubelet.slice/pod"+pid+"\n")
		write(pid+"/cmdline", "prog\x00-x\x00")
		write(pid+"/status", "Name:\tx\nVmHWM:\t  2048 kB\n")
	}
}

func TestCPUIsToldApart(t *testing.T) {
	dir := t.TempDir()
	m := Meter{Proc: dir, Shares: []Share{
		{"one", func(p Process) bool {
			return p.Name == "a) b" && p.Args == "prog -x " && strings.Contains(p.Cgroup, "/pod11\n")
		}},
		{"all others", func(p Process) bool { return p.PID == 12 }},
	}}
	accounts(t, dir, "100 0 100 5000 70 0 0 0 0 0", map[string]string{
		"11": "11 (a) b) S 1 1 1 0 -1 4 0 0 0 0 10 20 0 0 20 0",
		"12": "12 (c) S 1 1 1 0 -1 4 0 0 0 0 1 1 1 1 20 0",
		"13": "13 (c) S 1 1",
	})
	from, err := m.Mark()
	if err != nil {
		t.Fatal(err)
	}
	accounts(t, dir, "200 0 150 9000 80 0 10 0 0 0", map[string]string{
		"11": "11 (a) b) S 1 1 1 0 -1 4 0 0 0 0 50 40 0 0 20 0",
		"12": "12 (c) S 1 1 1 0 -1 4 0 0 0 0 11 1 11 1 20 0",
	})
	to, err := m.Mark()
	if err != nil {
		t.Fatal(err)
	}
	to.at = from.at.Add(2 * time.Second)
	used := m.Between(from, to)
	if used.Cores != 2 || len(used.Shares) != 2 || used.Shares[0] != (Used{"one", 0.3, 2 << 20}) || used.Shares[1] != (Used{"all others", 0.1, 2 << 20}) || used.Foreign < 0.399 || used.Foreign > 0.401 {
		t.Errorf("%+v", used)
	}
	if _, err := (Meter{Proc: filepath.Join(dir, "none")}).Mark(); err == nil {
		t.Error("a machine without accounts is measured")
	}
}
