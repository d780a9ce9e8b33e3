package host

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"platformctl/pkg/command"
)

// machine is a Debian machine with root, whose files are made up and whose programs answer from a script.
func machine(t *testing.T, files map[string]string, answers map[string]command.Answer) (Machine, *command.Fake) {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{
		"/etc/os-release":                  "NAME=x\nID=debian\n",
		"/proc/sys/kernel/random/boot_id":  "boot-1\n",
		"/proc/sys/kernel/cap_last_cap":    "40\n",
		"/proc/self/status":                "Name:\tx\nCapBnd:\t000001ffffffffff\n",
		"/proc/meminfo":                    "MemTotal: 9 kB\nMemAvailable:    4194304 kB\n",
		"/proc/sys/fs/inotify/placeholder": "",
	}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		write(t, filepath.Join(root, name), text)
	}
	fake := &command.Fake{Answers: answers}
	return Machine{
		Run:    fake,
		Getenv: func(key string) string { return map[string]string{"PATH": "/bin"}[key] },
		OS:     "linux", Arch: "amd64", Root: root,
		State: t.TempDir(), Cache: "/cache", Checkout: "",
	}, fake
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	mode := os.FileMode(0o644)
	if filepath.Base(filepath.Dir(path)) == "bin" || filepath.Base(filepath.Dir(path)) == "sbin" {
		mode = 0o755
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// named is the requirement of that name.
func named(t *testing.T, m Machine, name string) Requirement {
	t.Helper()
	for _, r := range Requirements(m) {
		if r.Name == name {
			return r
		}
	}
	t.Fatalf("no requirement %q", name)
	return Requirement{}
}

// why is what the requirement of that name says, which must be able to look.
func why(t *testing.T, m Machine, name string) string {
	t.Helper()
	why, err := named(t, m, name).Check(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return why
}

func wantContains(t *testing.T, got, want string) {
	t.Helper()
	if want == "" && got != "" || !strings.Contains(got, want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
}

// sayings collects what a Mend says.
func sayings() (*[]string, func(string)) {
	said := &[]string{}
	return said, func(line string) { *said = append(*said, line) }
}

func TestRequirementsComeAfterThoseTheyWaitFor(t *testing.T) {
	for _, system := range []string{"linux", "darwin"} {
		m, _ := machine(t, nil, nil)
		m.OS, m.Needs.Packages, m.Checkout = system, true, t.TempDir()
		seen := []string{}
		for _, r := range Requirements(m) {
			if slices.Contains(seen, r.Name) {
				t.Errorf("%s: %s is there twice", system, r.Name)
			}
			for _, before := range r.After {
				if !slices.Contains(seen, before) {
					t.Errorf("%s: %s waits for %s, which does not come before it", system, r.Name, before)
				}
			}
			seen = append(seen, r.Name)
		}
		if !slices.Contains(seen, "engine/running") {
			t.Errorf("%s: no engine is asked for: %v", system, seen)
		}
	}
}

func TestFind(t *testing.T) {
	m, _ := machine(t, map[string]string{"/bin/a": "", "/usr/sbin/b": "", "/bin/c/file": "", "/elsewhere/d": ""}, nil)
	for program, want := range map[string]string{"a": "/bin/a", "b": "/usr/sbin/b", "c": "", "d": ""} {
		if got := m.find(program); got != want {
			t.Errorf("find(%s) = %q, want %q", program, got, want)
		}
	}
}

func TestLocalIsThisMachine(t *testing.T) {
	m := Local("/state", "/cache", "", Needs{})
	if m.Getenv("PATH") == "" || m.find("sh") == "" {
		t.Error("this machine has a PATH and a shell in it")
	}
	if out, err := m.Run.Run(context.Background(), command.New("echo", "x")); err != nil || string(out) != "x\n" {
		t.Errorf("echo: %q, %v", out, err)
	}
}
