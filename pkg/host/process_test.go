package host

import (
	"fmt"
	"os"
	"testing"
)

// stat is a line of /proc/PID/stat.
func stat(pid int, comm, state string, start uint64) string {
	return fmt.Sprintf("%d (%s) %s 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 %d 20 21\n", pid, comm, state, start)
}

func TestParseStat(t *testing.T) {
	p, state, err := parseStat(stat(12, "a) S (b", "R", 4711))
	if want := (process{12, 4711, "a) S (b"}); err != nil || p != want || state != "R" {
		t.Errorf("got %+v, %q, %v", p, state, err)
	}
	for _, broken := range []string{"", "12", "12 (x) S 1 2", stat(12, "x", "S", 1)[3:]} {
		if p, _, err := parseStat(broken); err == nil {
			t.Errorf("%q was read as %+v", broken, p)
		}
	}
}

func TestProcess(t *testing.T) {
	m, _ := machine(t, map[string]string{"/proc/1/stat": stat(1, "init", "S", 3), "/proc/2/stat": stat(2, "dockerd", "Z", 4), "/proc/3/stat": "x"}, nil)
	if p, ok, err := m.process(1); !ok || err != nil || p.comm != "init" {
		t.Errorf("got %+v, %v, %v", p, ok, err)
	}
	if _, ok, err := m.process(2); ok || err != nil {
		t.Errorf("a zombie lives: %v, %v", ok, err)
	}
	if _, _, err := m.process(3); err == nil {
		t.Error("a line that says nothing was read")
	}
	if _, ok, err := m.process(4); ok || err != nil {
		t.Errorf("nobody lives: %v, %v", ok, err)
	}
	if alive, err := m.alive(process{pid: 1, start: 3}); !alive || err != nil {
		t.Errorf("got %v, %v", alive, err)
	}
	if alive, err := m.alive(process{pid: 1, start: 2}); alive || err != nil {
		t.Errorf("an earlier process of that number lives: %v, %v", alive, err)
	}
}

func TestReadPID(t *testing.T) {
	m, _ := machine(t, map[string]string{"/proc/7/stat": stat(7, "x", "S", 3), "/good.pid": "7\n", "/gone.pid": "8", "/cut.pid": ""}, nil)
	for file, want := range map[string]bool{"/good.pid": true, "/gone.pid": false, "/cut.pid": false, "/none.pid": false} {
		if _, ok, err := m.readPID(file); ok != want || err != nil {
			t.Errorf("%s: %v, %v", file, ok, err)
		}
	}
}

func TestThisProcess(t *testing.T) {
	m := Local("", "", "", Needs{})
	p, ok, err := m.process(os.Getpid())
	if !ok || err != nil || p.pid != os.Getpid() || p.start == 0 {
		t.Errorf("got %+v, %v, %v", p, ok, err)
	}
}
