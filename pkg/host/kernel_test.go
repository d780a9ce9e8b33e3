package host

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"platformctl/pkg/command"
)

func TestKernelModules(t *testing.T) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join("/lib/modules", unix.ByteSliceToString(name.Release[:]))
	const dep = "kernel/net/bridge/bridge.ko.zst: kernel/net/802/stp.ko.zst\nkernel/fs/overlayfs/overlay.ko:\nkernel/drivers/net/veth.ko.xz:\n"
	for _, c := range []struct {
		what  string
		files map[string]string
		want  string
	}{
		{"a kernel that tells nothing", nil, ""},
		{"all are there, loaded, built in or to be loaded", map[string]string{
			dir + "/modules.dep": dep, dir + "/modules.builtin": "kernel/net/netfilter/nf-nat.ko\n", "/sys/module/nf_tables/refcnt": "1\n",
		}, ""},
		{"some are not", map[string]string{dir + "/modules.dep": dep, dir + "/modules.builtin": "\n"}, "the kernel has no nf_nat, nf_tables"},
	} {
		m, _ := machine(t, c.files, nil)
		if got := why(t, m, "kernel/modules"); got != c.want {
			t.Errorf("%s: %q", c.what, got)
		}
	}
}

func TestControlGroups(t *testing.T) {
	const header = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
	for text, want := range map[string]string{
		header + "cpu\t1\t3\t1\nmemory\t2\t9\t1\n": "",
		header + "cpu\t1\t3\t1\nmemory\t0\t9\t0\n": "the kernel's control groups do not control memory",
	} {
		m, _ := machine(t, map[string]string{"/proc/cgroups": text}, nil)
		if got := why(t, m, "kernel/cgroups"); got != want {
			t.Errorf("%q", got)
		}
	}
	m, _ := machine(t, nil, nil)
	if got := why(t, m, "kernel/cgroups"); got != "" { // version 2 alone
		t.Errorf("%q", got)
	}
	if got := why(t, m, "kernel/cgroup-v2"); !strings.Contains(got, "version 1") {
		t.Errorf("%q", got)
	}
	m, _ = machine(t, map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpu memory\n"}, nil)
	if got := why(t, m, "kernel/cgroup-v2"); got != "" {
		t.Errorf("%q", got)
	}
}

func TestAClockThatIsBehind(t *testing.T) {
	m, _ := machine(t, nil, nil)
	for behind, bad := range map[time.Duration]bool{0: false, 12 * time.Hour: false, 90 * 24 * time.Hour: true, -time.Hour: false} {
		r := m.clockRequirement(func() time.Time { return time.Now().Add(-behind) })
		got, err := r.Check(t.Context())
		if err != nil || (got != "") != bad || bad && !strings.Contains(got, "days before this program was made") {
			t.Errorf("%s behind: %q %v", behind, got, err)
		}
	}
}

func TestAnEngineThatIsTooOld(t *testing.T) {
	m, _ := machine(t, nil, map[string]command.Answer{"docker version": {Stdout: `{"Version":"19.03.15"}`}})
	if got := why(t, m, "engine/running"); got != "the engine is Docker 19.03.15; 20 or newer is needed" {
		t.Errorf("%q", got)
	}
	for version, old := range map[string]bool{"20.10.24+dfsg1": false, "28.0.0": false, "dev": false, "1.13.1": true} {
		if tooOld(version) != old {
			t.Errorf("%s", version)
		}
	}
}

func TestAnEngineWithContainerdsImageStore(t *testing.T) {
	for info, bad := range map[string]bool{
		`{"DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}`:            true,
		`{"DriverStatus":[["Backing Filesystem","extfs"],["Supports d_type","true"]]}`: false,
	} {
		m, _ := machine(t, nil, map[string]command.Answer{"docker info": {Stdout: info}})
		if got := why(t, m, "engine/image-store"); (got != "") != bad {
			t.Errorf("%s: %q", info, got)
		}
	}
}
