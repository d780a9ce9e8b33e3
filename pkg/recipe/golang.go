package recipe

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

// compiled are the flags of every Go program that we build: no trace of where it was built, and no debugging information,
// which halves the time. They are the same everywhere, so that all builds share what the compiler has cached.
func compiled() []string {
	return []string{"build", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false"}
}

// compiledService are those of a service's program.
func (k *Kitchen) compiledService() []string {
	if len(k.tags) == 0 {
		return compiled()
	}
	return append(compiled(), "-tags="+strings.Join(k.tags, ","))
}

// goEnv is the environment of such a build; what a user has set for their own builds does not count.
func goEnv(arch string) []string {
	return []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOTOOLCHAIN=auto", "GOWORK=off", "GOEXPERIMENT="}
}

// golang is a call of the go command in the folder dir.
func (k *Kitchen) golang(dir, arch string, args ...string) command.Command {
	c := command.New("go", args...)
	c.Dir, c.Env = dir, goEnv(arch)
	return c
}

// goVersion is the version of the compiler that builds what is in dir, "go1.26.8".
func (k *Kitchen) goVersion(ctx context.Context, dir string) (string, error) {
	if _, err := k.machine.look("go"); err != nil {
		return "", fault.Unfit("platformctl doctor --fix, or see https://go.dev/doc/install", "our programs are compiled by Go: %w", err)
	}
	out, err := k.run.Run(ctx, k.golang(dir, k.machine.arch, "env", "GOVERSION"))
	if err != nil {
		return "", fmt.Errorf("ask for Go's version: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// moduleFolder is where the sources of a module lie that go.mod in dir names; they are fetched if they are not there.
func (k *Kitchen) moduleFolder(ctx context.Context, dir, module string) (string, error) {
	out, err := k.run.Run(ctx, k.golang(dir, k.machine.arch, "mod", "download", "-json", module))
	if err != nil {
		return "", wrap(ctx, err, "look whether the Go module proxy answers (go env GOPROXY), then run it again", "fetch the module %s", module)
	}
	var answer struct{ Dir string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return "", fmt.Errorf("find the module %s: %w", module, err)
	}
	if answer.Dir == "" {
		return "", fmt.Errorf("find the module %s: go names no folder", module)
	}
	return filepath.Clean(answer.Dir), nil
}
