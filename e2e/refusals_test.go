//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// copyCheckout makes a copy of the checkout that a scenario may spoil, without what is built or secret.
func (s *scenario) copyCheckout() string {
	s.t.Helper()
	to := filepath.Join(s.t.TempDir(), "checkout")
	err := filepath.WalkDir(s.checkout, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(s.checkout, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (name == ".git" || name == "bin"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		case filepath.Dir(name) == "secrets" && filepath.Ext(name) == ".yaml", !d.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody else's temporary file
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), content, 0o644)
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return to
}

// with has a file changed while do runs.
func (s *scenario) with(path string, change func(string) string, do func()) {
	s.t.Helper()
	was, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	now := change(string(was))
	if now == string(was) {
		s.t.Fatalf("%s is not as this scenario expects it", path)
	}
	if err := os.WriteFile(path, []byte(now), 0o644); err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(path, was, 0o644); err != nil {
			s.t.Error(err)
		}
	}()
	do()
}

// more appends a text to a file.
func more(text string) func(string) string {
	return func(was string) string { return was + text }
}

func changedCheckout(s *scenario) {
	s.platform()
	checkout := s.copyCheckout()
	s.step("a changed value rolls that release and no other, while orders go on", func(s *scenario) {
		c := s.crowd(1, 50*time.Millisecond, func(int) []byte { return wanted(2, 1) })
		before := s.snapshot()
		s.with(filepath.Join(checkout, "values/dev/order-api.yaml"), more("\nenv:\n  LOG_LEVEL: debug\n"), func() {
			s.platformctl("up", "--project", checkout).ends(0).says("release/order-api")
		})
		c.dismiss()
		after := s.snapshot()
		for name, state := range before.releases {
			if changed := after.releases[name] != state; changed != (name == "apps/order-api") {
				s.t.Errorf("release %s was %s and is %s", name, state, after.releases[name])
			}
		}
		if n := len(c.refusals()); n > 0 {
			s.t.Errorf("orders were not taken while the pod was replaced: %v", c.refusals())
		}
		s.allEnd(c.orders())
	})
	s.step("changed back, it is as before", func(s *scenario) {
		s.platformctl("up", "--project", checkout).ends(0).says("release/order-api")
	})
	s.step("a service that cannot start is told with its own words, the old pod goes on serving, and the evidence holds no password", func(s *scenario) {
		s.with(filepath.Join(checkout, "values/dev/payment-service.yaml"), more("\nenv:\n  LOG_LEVEL: nonsense\n"), func() {
			r := s.platformctl("up", "--project", checkout).ends(1).within(60*time.Second).says("payment-service", "LOG_LEVEL", "of this moment are in ")
			_, rest, _ := strings.Cut(r.both, "of this moment are in ")
			dir, _, _ := strings.Cut(rest, "\n")
			s.isEvidence(strings.TrimSpace(dir), checkout)
			s.ended(s.places(1, 1))
		})
		s.platformctl("up", "--project", checkout).ends(0).says("release/payment-service")
	})
	s.check("a dry run tells what comes of a program that is to be compiled anew, and what of its values", func(s *scenario) {
		before := s.snapshot()
		s.with(filepath.Join(checkout, "cmd/order-api/serve.go"), strings.NewReplacer("poolSize = 16", "poolSize = 17").Replace, func() {
			s.platformctl("up", "--dry-run", "--project", checkout).ends(0).
				says("until image/order-api is done: its image is to be built", "if the program in it is another one, that restarts deployment/order-api-order-api-chart").never("nothing to do")
			s.with(filepath.Join(checkout, "values/dev/order-api.yaml"), more("\nenv:\n  LOG_LEVEL: debug\n"), func() {
				s.platformctl("up", "--dry-run", "--project", checkout).ends(0).says("values: env.LOG_LEVEL", "restarts deployment/order-api-order-api-chart")
			})
		})
		s.same(before)
	})
	s.check("a change of a volume, which Kubernetes cannot make, is refused before anything is done", func(s *scenario) {
		before := s.snapshot()
		smaller := func(was string) string { return strings.Replace(was, "size: 4Gi", "size: 1Gi", 1) }
		s.with(filepath.Join(checkout, "values/dev/postgresql.yaml"), smaller, func() {
			for _, flag := range []string{"", " --dry-run"} {
				s.types(binary+" up --project "+checkout+flag).ends(2).
					says("postgresql", "spec.resources.requests.storage is 4Gi, 1Gi is wanted", "Error: ", "Try: ")
			}
			var all []struct{ Step, Intent string }
			s.types(binary + " up --dry-run -o json --project " + checkout).ends(2).decodes(&all)
			if !slices.ContainsFunc(all, func(f struct{ Step, Intent string }) bool { return f.Step == "volumes" && f.Intent == "refuse" }) {
				s.t.Errorf("it foresees %+v", all)
			}
		})
		s.same(before)
	})
}

func faultyCheckout(s *scenario) {
	s.platform()
	checkout := s.copyCheckout()
	before := s.snapshot()
	s.check("unknown keys in a values file are named, each of them", func(s *scenario) {
		s.with(filepath.Join(checkout, "values/dev/rabbitmq.yaml"), more("\nstorageClassName: fast\nclustering:\n  forceBoot: true\n"), func() {
			s.platformctl("up", "--project", checkout).ends(2).says("storageClassName", "clustering", "rabbitmq.yaml", "Try: ")
		})
	})
	s.check("broken YAML in a values file is shown with file and line", func(s *scenario) {
		path := filepath.Join(checkout, "values/dev/order-api.yaml")
		content, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		line := strings.Count(string(content), "\n") + 2
		s.with(path, more("\nenv: {LOG_LEVEL: debug\n"), func() {
			r := s.platformctl("up", "--project", checkout).ends(2)
			// A flow mapping that is not closed is noticed where it begins, or on the line below it.
			if !strings.Contains(r.both, fmt.Sprintf("order-api.yaml:%d:", line)) && !strings.Contains(r.both, fmt.Sprintf("order-api.yaml:%d:", line+1)) {
				s.t.Errorf("it does not say that it is line %d", line)
			}
		})
	})
	s.check("code that does not compile is shown as the compiler has it", func(s *scenario) {
		s.with(filepath.Join(checkout, "cmd/payment-service/main.go"), more("\nfunc broken() int { return nothingOfTheKind }\n"), func() {
			s.platformctl("up", "--project", checkout).ends(1).says("cmd/payment-service/main.go:", "undefined: nothingOfTheKind", "Error: ")
		})
	})
	s.step("meanwhile the old pods went on serving, and nothing was changed", func(s *scenario) {
		s.same(before)
		s.ended(s.places(1, 1))
	})
	s.step("without its faults the copy is as good as the original", func(s *scenario) {
		s.platformctl("up", "--project", checkout).ends(0)
		s.same(before)
	})
}

func refusals(s *scenario) {
	s.platform()
	before := s.snapshot()
	s.check("another port for a cluster that is there is refused with the cure", func(s *scenario) {
		s.platformctl("up", "--api-port", "18081").ends(2).says("18080", "Try: ", "platformctl down", "--api-port 18081")
	})
	s.check("a port that is taken is named with its holder and the flag, before a cluster is made", func(s *scenario) {
		listener, err := net.Listen("tcp", "127.0.0.1:18089")
		if err != nil {
			s.t.Fatal(err)
		}
		defer func() {
			if err := listener.Close(); err != nil {
				s.t.Error(err)
			}
		}()
		r := s.types(binary+" up --cluster "+clusterName+"-port --api-port 18089", "PLATFORMCTL_STATE="+s.t.TempDir())
		r.ends(3).within(20*time.Second).says("18089", fmt.Sprintf("e2e.test (pid %d)", os.Getpid()), "--api-port ")
		s.nothingIs(clusterName + "-port-control-plane")
	})
	s.check("a cluster that platformctl did not make is refused and left as it is", func(s *scenario) {
		const foreign = clusterName + "-foreign"
		image := strings.TrimSpace(s.types("docker inspect --format '{{.Image}}' " + node).ends(0).stdout)
		id := strings.TrimSpace(s.types("docker run --detach --network none --name " + foreign + "-control-plane --label " + marker +
			" --label io.x-k8s.kind.cluster=" + foreign + " --label io.x-k8s.kind.role=control-plane --entrypoint sleep " + image + " infinity").ends(0).stdout)
		defer func() { s.types("docker rm --force --volumes " + id).ends(0) }()
		state := "PLATFORMCTL_STATE=" + s.t.TempDir()
		for _, line := range []string{"up --api-port 18089", "down -y", "cleanup -y", "chaos --seed 5 --duration 10s"} {
			s.types(binary+" "+line+" --cluster "+foreign, state).ends(3).says(foreign, "did not make", "Try: ", "--cluster NAME")
		}
		if got := strings.TrimSpace(s.types("docker inspect --format '{{.Id}} {{.State.Running}} {{.RestartCount}}' " + foreign + "-control-plane").ends(0).stdout); got != id+" true 0" {
			s.t.Errorf("its container was %s and is %s", id, got)
		}
	})
	s.check("without an engine every command says so, with the cure", func(s *scenario) {
		for _, line := range []string{"up", "status", "down -y", "cleanup -y", "order --show 1 --qty 1", "logs", "psql -c 'SELECT 1'"} {
			s.types(binary+" "+line, "DOCKER_HOST=unix:///nonexistent/docker.sock").ends(3).within(20*time.Second).says("engine", "Try: ")
		}
	})
	s.check("an engine on another machine is refused", func(s *scenario) {
		for _, line := range []string{"up", "down -y", "status"} {
			s.types(binary+" "+line, "DOCKER_HOST=tcp://127.0.0.1:23750").ends(3).within(20*time.Second).
				says("DOCKER_HOST", "tcp://127.0.0.1:23750", "on this machine", "unset DOCKER_HOST")
		}
	})
	s.check("outside a checkout up says where to run it", func(s *scenario) {
		s.types("cd "+s.t.TempDir()+` && "$OLDPWD"/`+binary+" up").ends(2).says("checkout", "--project")
		s.platformctl("up", "--project", s.t.TempDir()).ends(2).says("checkout", "--project")
	})
	s.check("outside a checkout the other commands work all the same", func(s *scenario) {
		s.types("cd " + s.t.TempDir() + ` && "$OLDPWD"/` + binary + " status").ends(0)
	})
	s.check("down and cleanup without -y, and nobody to ask, list what would go and do nothing", func(s *scenario) {
		s.platformctl("down").ends(2).says("-y", "Try: ")
		s.platformctl("cleanup").ends(2).says("-y", "Try: ", "order-api")
	})
	s.step("after all this the platform is as it was", func(s *scenario) {
		s.same(before)
		s.ended(s.places(1, 1))
	})
}

// nothingIs fails if there is a container of that name.
func (s *scenario) nothingIs(name string) {
	s.t.Helper()
	there, err := s.containers(s.ctx, "name=^/?"+name+"$")
	if err != nil {
		s.t.Fatal(err)
	}
	if len(there) > 0 {
		s.t.Errorf("there is a container %s", name)
	}
}

// isEvidence looks at what a failed up has kept: events, pods and logs, and none of the checkout's passwords.
func (s *scenario) isEvidence(dir, checkout string) {
	s.t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s\n%s\n", path, content)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, text := range []string{
		filepath.Join("apps", "events.txt"), "payment-service-payment-service-chart-", "LOG_LEVEL",
		"run.jsonl", "timings.json", "versions.txt", filepath.Join("values", "rabbitmq.yaml"), `"failed": "release/payment-service"`,
	} {
		if !strings.Contains(all.String(), text) {
			s.t.Errorf("the evidence in %s has no %q", dir, text)
		}
	}
	files, err := filepath.Glob(filepath.Join(checkout, "secrets", "*.yaml"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("the checkout has no secrets: %v", err)
	}
	word := regexp.MustCompile(`(?m)(?i)(?:password|cookie): (\S{20,})$`)
	found := 0
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, match := range word.FindAllStringSubmatch(string(content), -1) {
			found++
			if strings.Contains(all.String(), match[1]) {
				s.t.Errorf("a password of %s is in the evidence", filepath.Base(file))
			}
		}
	}
	if found == 0 {
		s.t.Error("no password was found in the secrets to look for")
	}
}
