// Package pkg_test holds the house up: who may import whom, and why nobody else may.
package pkg_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "platformctl/"

// rooms says which of our own rooms a room may import; a room that is not here may import none.
var rooms = map[string][]string{
	"pkg/host":     {"pkg/fault", "pkg/command"},
	"pkg/image":    {"pkg/fault", "pkg/command"},
	"pkg/recipe":   {"pkg/fault", "pkg/command", "pkg/image"},
	"pkg/cluster":  {"pkg/fault", "pkg/command"},
	"pkg/kube":     {"pkg/fault", "pkg/command"},
	"pkg/release":  {"pkg/fault", "pkg/command"},
	"pkg/platform": {"pkg/plan", "pkg/fault", "pkg/command", "pkg/host", "pkg/image", "pkg/recipe", "pkg/cluster", "pkg/kube", "pkg/release"},
	"pkg/inspect":  {"pkg/contract", "pkg/rabbit", "pkg/fault"},
	"pkg/proof":    {"pkg/contract", "pkg/kube", "pkg/fault"},
	"pkg/chaos":    {"pkg/contract", "pkg/proof", "pkg/failpoint", "pkg/fault"},
	"pkg/snapshot": {"pkg/kube", "pkg/fault"},
	"pkg/terminal": {"pkg/plan", "pkg/fault"},
	"pkg/watch":    {"pkg/fault"},

	"pkg/outbox":   {"pkg/postgres", "pkg/failpoint"}, // the latter is nothing at all in what is released
	"pkg/postgres": {"pkg/resolve"},
	"pkg/rabbit":   {"pkg/failpoint", "pkg/resolve"},
	"pkg/order":    {"pkg/contract", "pkg/postgres", "pkg/outbox", "pkg/rabbit", "pkg/presence", "pkg/failpoint"},
	"pkg/payment":  {"pkg/contract", "pkg/postgres", "pkg/outbox", "pkg/rabbit", "pkg/presence", "pkg/failpoint"},

	"cmd/platformctl":     {"pkg/platform", "pkg/contract", "pkg/chaos", "pkg/plan", "pkg/inspect", "pkg/proof", "pkg/snapshot", "pkg/terminal", "pkg/watch", "pkg/host", "pkg/kube", "pkg/release", "pkg/command", "pkg/fault"},
	"cmd/order-api":       {"pkg/order", "pkg/page", "pkg/daemon", "pkg/postgres", "pkg/rabbit", "pkg/outbox"},
	"cmd/payment-service": {"pkg/payment", "pkg/daemon", "pkg/postgres", "pkg/rabbit", "pkg/outbox"},

	"e2e": {"pkg/contract", "pkg/command", "pkg/fault", "pkg/failpoint", "pkg/proof", "pkg/chaos", "pkg/inspect"}, // benchcore measures by the code of bench, and taps by that of events; kill judges by that of verify, checker publishes by that of chaos
}

// helpers are for tests alone.
var helpers = []string{"pkg/postgres/postgrestest", "pkg/rabbit/rabbittest", "pkg/daemon/daemontest"}

// foreign lists what a room's whole import graph must be free of, and why.
var foreign = []struct{ room, ban, why string }{
	{"cmd/order-api", "k8s.io/", "a service does not know where it runs, and stays small"},
	{"cmd/order-api", "helm.sh/", "a service does not know how it is installed"},
	{"cmd/order-api", "sigs.k8s.io/", "a service does not know where it runs"},
	{"cmd/order-api", "github.com/spf13/cobra", "a service is configured by its environment"},
	{"cmd/order-api", "github.com/charmbracelet/", "a service has no terminal"},
	{"cmd/payment-service", "k8s.io/", "a service does not know where it runs, and stays small"},
	{"cmd/payment-service", "helm.sh/", "a service does not know how it is installed"},
	{"cmd/payment-service", "sigs.k8s.io/", "a service does not know where it runs"},
	{"cmd/payment-service", "github.com/spf13/cobra", "a service is configured by its environment"},
	{"cmd/payment-service", "github.com/charmbracelet/", "a service has no terminal"},
	{"pkg/plan", "k8s.io/", "the step engine serves anything that can be observed"},
	{"pkg/terminal", "k8s.io/", "the terminal renders events, wherever they come from"},
	{"pkg/cluster", "helm.sh/", "only pkg/release knows Helm"},
	{"pkg/kube", "helm.sh/", "only pkg/release knows Helm"},
	{"pkg/kube", "sigs.k8s.io/kind/", "only pkg/cluster knows kind"},
	{"pkg/release", "sigs.k8s.io/kind/", "only pkg/cluster knows kind"},
}

type listed struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// roomOf is the room a package lies in; a package below a room belongs to it.
func roomOf(path string) string {
	path = strings.TrimPrefix(path, module)
	for room := range rooms {
		if strings.HasPrefix(path, room+"/") {
			return room
		}
	}
	if parts := strings.Split(path, "/"); len(parts) > 2 && !slices.Contains(helpers, path) {
		return parts[0] + "/" + parts[1]
	}
	return path
}

func TestWhoMayImportWhom(t *testing.T) {
	for _, p := range packages(t) {
		room := roomOf(p.ImportPath)
		check := func(imports []string, inTest bool) {
			for _, path := range imports {
				if !strings.HasPrefix(path, module) || roomOf(path) == room {
					continue
				}
				other := strings.TrimPrefix(path, module)
				if slices.Contains(rooms[room], roomOf(path)) || inTest && slices.Contains(helpers, other) || slices.Contains(helpers, strings.TrimPrefix(p.ImportPath, module)) {
					continue
				}
				t.Errorf("%s imports %s: %s may import %v of ours; what it needs of another room it declares as an interface of its own", p.ImportPath, path, room, rooms[room])
			}
		}
		check(p.Imports, false)
		check(append(p.TestImports, p.XTestImports...), true)
	}
}

func TestWhatRoomsMustNotLink(t *testing.T) {
	all := map[string]listed{}
	for _, p := range packages(t) {
		all[strings.TrimPrefix(p.ImportPath, module)] = p
	}
	for _, f := range foreign {
		p, ok := all[f.room]
		if !ok {
			t.Errorf("there is no %s: take its ban away", f.room)
			continue
		}
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, f.ban) {
				t.Errorf("%s links %s: %s", f.room, dep, f.why)
				break
			}
		}
	}
}
