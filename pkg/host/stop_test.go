package host

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"

	"platformctl/pkg/command"
)

// engine is a real process of this machine that stands for an engine, and the machine that may have started it.
func engine(t *testing.T) (Machine, process) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended where the test is about that
		_ = cmd.Wait()
	})
	m := Local(t.TempDir(), "", "", Needs{})
	p, ok, err := m.process(cmd.Process.Pid)
	if err != nil || !ok {
		t.Fatalf("no process %d: %v", cmd.Process.Pid, err)
	}
	return m, p
}

func TestStopEngine(t *testing.T) {
	m, p := engine(t)
	if err := m.mark(p, ""); err != nil {
		t.Fatal(err)
	}
	if stopped, err := m.StopEngine(t.Context(), func(string) {}); !stopped || err != nil {
		t.Fatalf("got %v, %v", stopped, err)
	}
	if alive, err := m.alive(p); alive || err != nil {
		t.Errorf("it lives on: %v, %v", alive, err)
	}
	if _, err := os.Stat(m.markerFile()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its marker is still there: %v", err)
	}
	if stopped, err := m.StopEngine(t.Context(), func(string) {}); stopped || err != nil {
		t.Errorf("a second time: %v, %v", stopped, err)
	}
}

func TestStopEngineLeavesOthersAlone(t *testing.T) {
	m, p := engine(t)
	quiet := func(line string) { t.Errorf("said %q", line) }
	untouched := func(what string) {
		t.Helper()
		if stopped, err := m.StopEngine(t.Context(), quiet); stopped || err != nil {
			t.Errorf("%s: %v, %v", what, stopped, err)
		}
		if alive, err := m.alive(p); !alive || err != nil {
			t.Fatalf("%s: it was stopped (%v)", what, err)
		}
	}
	untouched("no marker")

	recycled := p
	recycled.start--
	if err := m.mark(recycled, ""); err != nil {
		t.Fatal(err)
	}
	untouched("a later process of the same number")

	write(t, m.markerFile(), `{"pid":`)
	untouched("a marker cut short")

	write(t, m.markerFile(), `{"pid":1,"start":1,"boot":"another"}`)
	untouched("another boot")
}

func TestAUnitIsStoppedBySystemd(t *testing.T) {
	m, _ := machine(t, map[string]string{"/proc/5/stat": stat(5, "dockerd", "S", 9)}, nil)
	if err := m.mark(process{pid: 5, start: 9}, unit); err != nil {
		t.Fatal(err)
	}
	fake := &bench{Fake: &command.Fake{Answers: map[string]command.Answer{"systemctl stop docker.socket docker.service": {}}}, starts: "systemctl stop"}
	fake.began = func() {
		if err := os.Remove(m.path("/proc/5/stat")); err != nil {
			t.Error(err)
		}
	}
	m.Run = fake
	if stopped, err := m.StopEngine(t.Context(), func(string) {}); !stopped || err != nil {
		t.Errorf("got %v, %v", stopped, err)
	}
}
