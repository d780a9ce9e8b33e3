//go:build e2e

package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"platformctl/pkg/command"
)

// passwords are the platform's, by the Secret and the key that hold each.
type passwords map[string]string

// in tells which of them a text has, as they are or as a Secret writes them.
func (p passwords) in(text string) (names []string) {
	for name, password := range p {
		if strings.Contains(text, password) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(password))) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// unseen runs a command whose output no failure may show.
func (s *scenario) unseen(argv ...string) []byte {
	s.t.Helper()
	c := command.New(argv[0], argv[1:]...)
	c.Dir, c.Env = s.checkout, s.env
	out, err := s.runner.Run(s.ctx, c)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// ours are the namespaces of the platform.
var ours = []string{"apps", "database", "messaging"}

// passwords reads them from the cluster: whatever is in a Secret that is no user's name and no record of Helm's.
func (s *scenario) passwords() passwords {
	s.t.Helper()
	var list struct {
		Items []struct {
			Metadata meta              `json:"metadata"`
			Type     string            `json:"type"`
			Data     map[string][]byte `json:"data"`
		} `json:"items"`
	}
	if err := json.Unmarshal(s.unseen("kubectl", "get", "secrets", "-A", "-o", "json"), &list); err != nil {
		s.t.Fatal(err)
	}
	found, different := passwords{}, map[string]bool{}
	for _, item := range list.Items {
		if item.Type != "Opaque" || !slices.Contains(ours, item.Metadata.Namespace) {
			continue
		}
		for key, value := range item.Data {
			if strings.Contains(strings.ToLower(key), "user") {
				continue
			}
			name := fmt.Sprintf("%s of %s/%s", key, item.Metadata.Namespace, item.Metadata.Name)
			if len(value) < 16 {
				s.t.Errorf("%s has %d bytes, which is easily guessed", name, len(value))
			}
			found[name], different[string(value)] = string(value), true
		}
	}
	// The database's owner and superuser, the broker's administrator and cookie, and of each service the role and the user.
	if len(different) < 8 {
		s.t.Fatalf("there are %d different passwords", len(different))
	}
	return found
}

const (
	allArguments = "ps -A -ww -o args"
	byHand       = "written-by-hand-0123456789abcdef"
)

// secretsAreKept types what has to do with passwords, and then looks for them wherever somebody who is not meant to may read.
func secretsAreKept(s *scenario) {
	s.platform()
	known := s.passwords()
	known["DB_PASSWORD of the checkout's own file"] = byHand
	checkout := s.copyCheckout()
	s.step("a service has its own passwords, which are found there, and none of the others'", func(s *scenario) {
		for service, other := range map[string]string{"order-api": "payment", "payment-service": "order"} {
			names := known.in(string(s.unseen("docker", "exec", node, "sh", "-c", "cat /proc/$(pgrep -o -x "+service+")/environ")))
			if len(names) == 0 {
				s.t.Errorf("none is found in %s: this scenario would find none anywhere", service)
			}
			for _, name := range names {
				if strings.Contains(name, other) || strings.Contains(name, "-credentials") {
					s.t.Errorf("%s has %s", service, name)
				}
			}
		}
	})

	defer func() { s.platformctl("snapshot", "rm", "secretive").ends(0) }()
	running := filepath.Join(s.t.TempDir(), "running")
	watch := s.starts("sh", "-c", "while "+allArguments+` && sleep 0.1; do :; done >"$0"`, running)
	var said, atWork string
	types := func(s *scenario, args ...string) *run {
		r := s.platformctl(args...)
		said += r.line + "\n" + r.both
		return r
	}
	s.step("commands that read passwords do their work", func(s *scenario) {
		types(s, "snapshot", "save", "secretive", "--progress", "json").ends(0)
		types(s, "verify", "-o", "json").ends(0)
		types(s, "bench", "--duration", "2s", "--clients", "4").ends(0)
		types(s, "chaos", "--seed", "1", "--duration", "5s", "--faults", "reset", "--rate", "20").ends(0)
		types(s, "events", "--time", "1s").ends(0)
		types(s, "dlq").ends(0)
		p := s.starts(binary, "psql", "-c", "SELECT pg_sleep(5)")
		s.until(20*time.Second, func() string {
			if atWork = s.types(atNode + allArguments).ends(0).both; !strings.Contains(atWork, "pg_sleep") {
				return "psql does not run in the node yet"
			}
			return ""
		})
		said += s.awaits(p, 30*time.Second).ends(0).both
	})
	s.step("a dry run tells of a changed value; of a password that is not the cluster's it has nothing to tell", func(s *scenario) {
		types(s, "up", "--project", checkout).ends(0) // writes the checkout's own files
		s.with(filepath.Join(checkout, "values/dev/payment-service.yaml"), more("\nenv:\n  LOG_LEVEL: debug\n"), func() {
			types(s, "up", "--dry-run", "--project", checkout).ends(0).says("LOG_LEVEL")
			types(s, "up", "--dry-run", "-o", "json", "--progress", "json", "--project", checkout).ends(0).says("LOG_LEVEL")
		})
		other := func(was string) string {
			return strings.ReplaceAll(was, known["DB_PASSWORD of apps/order-api-database"], byHand)
		}
		s.with(filepath.Join(checkout, "secrets/order-api-database.yaml"), other, func() {
			types(s, "up", "--dry-run", "--project", checkout).ends(0)
			types(s, "up", "--dry-run", "-o", "json", "--progress", "json", "--project", checkout).ends(0)
		})
	})
	s.step("an up that fails keeps what tells why, and the next mends it", func(s *scenario) {
		s.with(filepath.Join(checkout, "values/dev/payment-service.yaml"), more("\nenv:\n  PGHOST: nowhere.database.svc.cluster.local\n"), func() {
			types(s, "up", "--project", checkout, "--timeout", "15s", "--progress", "json").ends(4).says("payment-service", "of this moment are in ")
		})
		types(s, "up", "--progress", "json").ends(0)
		types(s, "timings", "-o", "json").ends(0)
		types(s, "status", "-o", "json").ends(0)
		types(s, "logs").ends(0)
	})
	s.interrupt(watch)
	s.awaits(watch, 10*time.Second)

	nowhere := func(where, text string) {
		s.t.Helper()
		s.check("none is in "+where, func(s *scenario) {
			if text == "" {
				s.t.Error("there is nothing to look at")
			}
			for _, name := range known.in(text) {
				s.t.Errorf("%s is", name)
			}
		})
	}
	listed, err := os.ReadFile(running)
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(string(listed), "pg_sleep") {
		s.t.Error("the list of processes was not taken while commands were at work")
	}
	nowhere("what commands print, for people and as JSON", said)
	nowhere("this machine's list of processes, at any moment of that", string(listed))
	nowhere("the node's list of processes", atWork)
	nowhere("the logs of all pods, as the node has them", string(s.unseen("docker", "exec", node, "find", "/var/log/pods", "-type", "f", "-exec", "cat", "{}", "+")))
	nowhere("the node's journal", string(s.unseen("docker", "exec", node, "journalctl", "--no-pager")))
	nowhere("an object that is no Secret", string(s.unseen("kubectl", "get", "-A", "-o", "json",
		"pods,deployments,replicasets,statefulsets,controllerrevisions,services,configmaps,persistentvolumeclaims,events")))
	nowhere("a release's record", s.releaseRecords())
	nowhere("the state folder: runs, evidence, snapshots", s.stateFolder())
}

// releaseRecords are Helm's records of all revisions, unpacked.
func (s *scenario) releaseRecords() string {
	s.t.Helper()
	var list struct {
		Items []struct {
			Metadata meta `json:"metadata"`
			Data     struct {
				Release []byte `json:"release"`
			} `json:"data"`
		} `json:"items"`
	}
	if err := json.Unmarshal(s.unseen("kubectl", "get", "secrets", "-A", "-l", "owner=helm", "-o", "json"), &list); err != nil {
		s.t.Fatal(err)
	}
	var all strings.Builder
	for _, item := range list.Items {
		unpacked, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(item.Data.Release)))
		if err == nil {
			_, err = io.Copy(&all, unpacked)
		}
		if err != nil {
			s.t.Fatalf("read the record %s: %v", item.Metadata.Name, err)
		}
	}
	if len(list.Items) < 4 {
		s.t.Errorf("there are %d, of four releases", len(list.Items))
	}
	return all.String()
}

// stateFolder is all that is kept of the clusters on this machine, but for the nodes' own disks, on which the pods are.
func (s *scenario) stateFolder() string {
	s.t.Helper()
	kubeconfig := strings.TrimSpace(s.platformctl("kubeconfig", "--path").ends(0).stdout)
	state := filepath.Dir(filepath.Dir(filepath.Dir(kubeconfig)))
	var all strings.Builder
	seen := map[string]bool{}
	err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // of another cluster, which somebody is at work on
		case err != nil:
			return err
		case d.IsDir() && path == filepath.Join(state, "content"):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if rel := strings.TrimPrefix(path, state); strings.Contains(rel, clusterName) {
			seen[strings.Split(rel, string(filepath.Separator))[1]] = true
		}
		all.WriteString(path + "\n")
		all.Write(raw)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, folder := range []string{"clusters", "evidence", "snapshots"} {
		if !seen[folder] {
			s.t.Errorf("%s has nothing of this cluster in %s", state, folder)
		}
	}
	return all.String()
}
