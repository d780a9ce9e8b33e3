package host

import (
	"bufio"
	"context"
	"fmt"
	"go/version"
	"os"
	"path/filepath"
	"strings"

	"platformctl/pkg/command"
)

// goRequirement wants the Go that the checkout's go.mod names: services, and images made from packages, are compiled here.
func (m Machine) goRequirement() Requirement {
	r := Requirement{Name: "go/version"}
	wanted, err := goDirective(filepath.Join(m.Checkout, "go.mod"))
	if err != nil {
		r.Check = func(context.Context) (string, error) { return "", err }
		return r
	}
	r.Cure = []string{
		"install Go " + wanted + " or newer; a distribution's package is often older",
		"or, with Go 1.21 or newer, let it fetch that version by itself: go env -w GOTOOLCHAIN=auto",
	}
	r.Check = func(ctx context.Context) (string, error) {
		if m.find("go") == "" {
			return "there is no Go in PATH; " + wanted + " or newer compiles the services", nil
		}
		// Asked in the checkout, so that a Go that fetches the wanted version by itself answers as that version.
		ask := command.New("go", "env", "GOVERSION")
		ask.Dir = m.Checkout
		out, err := m.Run.Run(ctx, ask)
		if err != nil {
			if ctx.Err() != nil {
				return "", err
			}
			return "Go does not work in this checkout: " + said(err), nil
		}
		return goFault(strings.TrimSpace(string(out)), wanted), nil
	}
	return r
}

// goFault judges the Go that is there, "go1.26.8", by the one that go.mod wants, "1.26.6".
func goFault(have, wanted string) string {
	have, _, _ = strings.Cut(have, " ") // a Go built with experiments names them after a space
	if !version.IsValid(have) {
		// A Go built from its repository's head says "devel …" and is newer than any release.
		return ""
	}
	if version.Compare(have, "go"+wanted) < 0 {
		return fmt.Sprintf("this is Go %s, but the project wants %s or newer", strings.TrimPrefix(have, "go"), wanted)
	}
	return ""
}

// goDirective is the version in the go line of a go.mod file.
func goDirective(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) >= 2 && words[0] == "go" {
			return words[1], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", fmt.Errorf("%s has no go line", path)
}
