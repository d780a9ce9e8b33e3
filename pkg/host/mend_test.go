package host

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

func TestDebian(t *testing.T) {
	for text, want := range map[string]bool{
		"ID=debian\n": true,
		"NAME=Ubuntu\nID=ubuntu\nID_LIKE=debian\n":     true,
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n":    true,
		"ID=\"fedora\"\n":                              false,
		"ID=rocky\nID_LIKE=\"rhel centos fedora\"\n":   false,
		"PRETTY_NAME=\"not debian\"\nVARIANT=debian\n": false,
	} {
		m, _ := machine(t, map[string]string{"/etc/os-release": text}, nil)
		if m.debian() != want {
			t.Errorf("debian() = %v for %q", !want, text)
		}
	}
}

func TestPackagesAreInstalledByRoot(t *testing.T) {
	m, fake := machine(t, nil, map[string]command.Answer{"PATH=": {}})
	m.Needs.Packages = true
	r := named(t, m, "packages/tools")
	said, say := sayings()
	if err := r.Mend(t.Context(), say); err != nil {
		t.Fatal(err)
	}
	install := "apt-get install -y --no-install-recommends mmdebstrap debian-archive-keyring mount ca-certificates"
	if want := []string{"apt-get update", install}; !slices.Equal(*said, want) || !slices.Equal(r.Cure, want) {
		t.Errorf("said %q, the cure is %q, want both %q", *said, r.Cure, want)
	}
	runs := fake.Runs()
	if len(runs) != 2 || !strings.Contains(runs[1], "DEBIAN_FRONTEND=noninteractive") || !strings.Contains(runs[1], "install -y") {
		t.Errorf("ran %q", runs)
	}
}

func TestNobodyElseMends(t *testing.T) {
	m, fake := machine(t, nil, nil)
	m.UID, m.Needs.Packages = 1000, true
	for _, r := range Requirements(m) {
		if r.Mend == nil {
			continue
		}
		err := r.Mend(t.Context(), func(line string) { t.Errorf("%s: said %q", r.Name, line) })
		if fault.CodeOf(err) != fault.CodeUnfit || fault.CureOf(err) != strings.Join(r.Cure, "\n") || len(r.Cure) == 0 {
			t.Errorf("%s: %v, code %d, cure %q", r.Name, err, fault.CodeOf(err), fault.CureOf(err))
		}
	}
	if runs := fake.Runs(); len(runs) > 0 {
		t.Errorf("ran %q", runs)
	}
}

func TestElsewhereThanOnDebianPackagesAreNamed(t *testing.T) {
	m, _ := machine(t, map[string]string{"/etc/os-release": "ID=fedora\n"}, nil)
	r := named(t, m, "docker/client")
	if r.Mend != nil {
		t.Error("no package can be installed there")
	}
	wantContains(t, strings.Join(r.Cure, "\n"), "docker.io, iptables")
}

func TestWhatIsMendedMeanwhileIsLeftAlone(t *testing.T) {
	m, fake := machine(t, map[string]string{"/bin/docker": ""}, nil)
	if err := named(t, m, "docker/client").Mend(t.Context(), func(line string) { t.Errorf("said %q", line) }); err != nil {
		t.Error(err)
	}
	if runs := fake.Runs(); len(runs) > 0 {
		t.Errorf("ran %q", runs)
	}
}

func TestAClientOfItsOwnPackage(t *testing.T) {
	m, fake := machine(t, nil, map[string]command.Answer{"PATH=": {}})
	if err := named(t, m, "docker/client").Mend(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	runs := fake.Runs()
	if len(runs) != 4 || !strings.HasSuffix(runs[1], "docker.io iptables ca-certificates") || !strings.HasSuffix(runs[3], "docker-cli") {
		t.Errorf("ran %q", runs)
	}
}

func TestInstallSaysWhatAptSaid(t *testing.T) {
	m, _ := machine(t, nil, map[string]command.Answer{"PATH=": {Fail: "E: Unable to locate package docker.io"}})
	err := named(t, m, "docker/client").Mend(t.Context(), func(string) {})
	if err == nil || !strings.Contains(err.Error(), "Unable to locate package") {
		t.Errorf("got %v", err)
	}
}

func TestOneMendsAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "lock")
	unlock, err := lock(t.Context(), path, func(line string) { t.Errorf("said %q", line) })
	if err != nil {
		t.Fatal(err)
	}
	waiting, taken := make(chan string, 1), make(chan error, 1)
	go func() {
		second, err := lock(t.Context(), path, func(line string) { waiting <- line })
		if err == nil {
			second()
		}
		taken <- err
	}()
	select {
	case err := <-taken:
		t.Fatalf("taken twice: %v", err)
	case line := <-waiting:
		wantContains(t, line, "waiting until nothing else mends this machine")
	}
	unlock()
	if err := <-taken; err != nil {
		t.Error(err)
	}

	unlock, err = lock(t.Context(), path, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := lock(ctx, path, func(string) { cancel() }); fault.CodeOf(err) != fault.CodeInterrupted {
		t.Errorf("a wait that was interrupted: %v", err)
	}
}
