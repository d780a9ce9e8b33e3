package host

import (
	"os"
	"path/filepath"
	"testing"

	"platformctl/pkg/command"
)

func TestDiskFault(t *testing.T) {
	wantContains(t, diskFault(place{"/c", 8_000_000_000}, 8_000_000_000), "")
	wantContains(t, diskFault(place{"/c", 8_000_000_000}, 3_140_000_000), "3.1 GB are free where /c lies; 8 GB are needed")
}

func TestFreeMeasuresWhereAFolderWillBe(t *testing.T) {
	existing := t.TempDir()
	here, err := free(existing)
	if err != nil || here == 0 {
		t.Fatalf("free(%s) = %d, %v", existing, here, err)
	}
	if _, err := free(filepath.Join(existing, "not", "yet")); err != nil {
		t.Error(err)
	}
}

func TestDiskIsMeasuredWhereItIsUsed(t *testing.T) {
	const tooMuch = 1 << 62
	unreachable := command.Answer{Fail: "Cannot connect to the Docker daemon"}
	local := command.Answer{Stdout: "unix:///var/run/docker.sock\n"}
	for name, c := range map[string]struct {
		need    uint64
		files   map[string]string
		answers map[string]command.Answer
		want    string
	}{
		"nothing asked": {0, nil, nil, ""},
		"a little":      {1, nil, nil, ""},
		"too much":      {tooMuch, nil, nil, "/cache lies"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := machine(t, c.files, c.answers)
			m.Needs.Disk = c.need
			wantContains(t, why(t, m, "host/disk"), c.want)
		})
	}
	for name, c := range map[string]struct {
		files   map[string]string
		answers map[string]command.Answer
		want    string
	}{
		"no docker at all": {nil, nil, "/var/lib/docker"},
		"engine down": {map[string]string{"/bin/docker": ""},
			map[string]command.Answer{"docker context": local, "docker info": unreachable}, "/var/lib/docker"},
		"engine down, configured": {map[string]string{"/bin/docker": "", "/etc/docker/daemon.json": `{"data-root":"/big"}`},
			map[string]command.Answer{"docker context": local, "docker info": unreachable}, "/big"},
		"engine up": {map[string]string{"/bin/docker": "", "/data/x": ""},
			map[string]command.Answer{"docker context": local, "docker info": {Stdout: `{"DockerRootDir":"/data"}`}}, "/data"},
		"engine in a virtual machine": {map[string]string{"/bin/docker": ""},
			map[string]command.Answer{"docker context": local, "docker info": {Stdout: `{"DockerRootDir":"/in-there"}`}}, ""},
		"engine elsewhere is not asked": {map[string]string{"/bin/docker": ""},
			map[string]command.Answer{"docker context": {Stdout: "tcp://10.0.0.9:2375\n"}}, "/var/lib/docker"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := machine(t, c.files, c.answers)
			got, err := m.dataRoot(t.Context())
			if err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestDiskCountsGosCachesWherePackagesAreBuilt(t *testing.T) {
	m, fake := machine(t, map[string]string{"/bin/go": ""}, map[string]command.Answer{"go env GOCACHE GOMODCACHE": {Stdout: "/build\n/modules\n"}})
	m.Needs = Needs{Packages: true, Disk: 1}
	wantContains(t, why(t, m, "host/disk"), "")
	if len(fake.Runs()) != 1 {
		t.Errorf("ran %q", fake.Runs())
	}
}

func TestMemory(t *testing.T) {
	m, _ := machine(t, nil, nil) // 4 GiB available
	for need, want := range map[uint64]string{
		0: "", MemoryCluster: "", 5 << 30: "4.0 GiB of memory are available; 5.0 GiB are needed",
	} {
		m.Needs.Memory = need
		wantContains(t, why(t, m, "host/memory"), want)
	}
	m.Needs.Memory = 1
	if err := os.WriteFile(m.path("/proc/meminfo"), []byte("MemTotal: 1 kB\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := named(t, m, "host/memory").Check(t.Context()); err == nil {
		t.Error("memory that cannot be measured was enough")
	}
}

func TestMemoryOfAnEngineInAVirtualMachine(t *testing.T) {
	m, _ := machine(t, nil, map[string]command.Answer{"docker info": {Stdout: `{"MemTotal":2147483648}`}})
	m.OS, m.Needs.Memory = "darwin", MemoryCluster
	wantContains(t, why(t, m, "host/memory"), "2.0 GiB")
}
