package host

import (
	"path/filepath"
	"testing"

	"platformctl/pkg/command"
)

func TestGoFault(t *testing.T) {
	for _, c := range []struct{ have, wanted, want string }{
		{"go1.26.8", "1.26.6", ""},
		{"go1.26.6", "1.26.6", ""},
		{"go1.27rc1", "1.26.6", ""},
		{"go1.26.6 X:jsonv2", "1.26.6", ""},
		{"devel go1.28-abc", "1.26.6", ""},
		{"go1.26.5", "1.26.6", "this is Go 1.26.5, but the project wants 1.26.6 or newer"},
		{"go1.9.7", "1.26.6", "this is Go 1.9.7"},
	} {
		wantContains(t, goFault(c.have, c.wanted), c.want)
	}
}

func TestGoRequirement(t *testing.T) {
	checkout := t.TempDir()
	write(t, filepath.Join(checkout, "go.mod"), "module x\n\ngo 1.26.6\n\ntoolchain go1.27.0\n")
	for name, c := range map[string]struct {
		files  map[string]string
		answer command.Answer
		want   string
	}{
		"none":   {nil, command.Answer{}, "there is no Go in PATH; 1.26.6 or newer"},
		"old":    {map[string]string{"/bin/go": ""}, command.Answer{Stdout: "go1.19.8\n"}, "this is Go 1.19.8"},
		"right":  {map[string]string{"/bin/go": ""}, command.Answer{Stdout: "go1.26.8\n"}, ""},
		"broken": {map[string]string{"/bin/go": ""}, command.Answer{Fail: "go: cannot find GOROOT"}, "cannot find GOROOT"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := machine(t, c.files, map[string]command.Answer{"(cd " + checkout + " && go env GOVERSION)": c.answer})
			m.Checkout = checkout
			wantContains(t, why(t, m, "go/version"), c.want)
		})
	}
}

func TestGoRequirementNeedsAGoLine(t *testing.T) {
	m, _ := machine(t, nil, nil)
	m.Checkout = t.TempDir()
	write(t, filepath.Join(m.Checkout, "go.mod"), "module x\n")
	if _, err := named(t, m, "go/version").Check(t.Context()); err == nil {
		t.Error("a go.mod without a go line was accepted")
	}
}
