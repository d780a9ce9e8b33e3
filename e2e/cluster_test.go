//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// platform has the platform up, for a scenario that begins with it.
func (s *scenario) platform() {
	s.t.Helper()
	if s.up {
		return
	}
	s.step("the platform is up", func(s *scenario) {
		s.platformctl("up", "--api-port", apiPort).ends(0)
		s.up = true
	})
}

// meta is what is read of any object.
type meta struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	UID       string            `json:"uid"`
	Labels    map[string]string `json:"labels"`
	Deletion  *time.Time        `json:"deletionTimestamp"`
}

// pods are the platform's, by namespace and name; the value is the uid.
func (s *scenario) pods() map[string]string {
	s.t.Helper()
	pods := map[string]string{}
	for _, namespace := range []string{"apps", "database", "messaging"} {
		var list struct {
			Items []struct {
				Metadata meta `json:"metadata"`
			} `json:"items"`
		}
		s.kubectl("get", "pods", "-n", namespace, "-o", "json").ends(0).decodes(&list)
		for _, item := range list.Items {
			if item.Metadata.Deletion == nil {
				pods[namespace+"/"+item.Metadata.Name] = item.Metadata.UID
			}
		}
	}
	return pods
}

// releases are the Helm releases as Helm keeps them: namespace and name, and the latest revision with its status.
func (s *scenario) releases() map[string]string {
	s.t.Helper()
	var list struct {
		Items []struct {
			Metadata meta `json:"metadata"`
		} `json:"items"`
	}
	s.kubectl("get", "secrets", "-A", "-l", "owner=helm", "-o", "json").ends(0).decodes(&list)
	latest, releases := map[string]int{}, map[string]string{}
	for _, item := range list.Items {
		labels := item.Metadata.Labels
		revision, err := strconv.Atoi(labels["version"])
		if err != nil {
			s.t.Fatalf("the release %s has the revision %q", labels["name"], labels["version"])
		}
		key := item.Metadata.Namespace + "/" + labels["name"]
		if revision > latest[key] {
			latest[key] = revision
			releases[key] = fmt.Sprintf("%d %s", revision, labels["status"])
		}
	}
	return releases
}

// snapshot is what an up that has nothing to do leaves as it is.
type snapshot struct{ pods, releases map[string]string }

func (s *scenario) snapshot() snapshot {
	s.t.Helper()
	return snapshot{s.pods(), s.releases()}
}

// same fails unless everything is as it was.
func (s *scenario) same(before snapshot) {
	s.t.Helper()
	now := s.snapshot()
	if !maps.Equal(before.pods, now.pods) {
		s.t.Errorf("the pods were\n%s\nand are\n%s", lines(before.pods), lines(now.pods))
	}
	if !maps.Equal(before.releases, now.releases) {
		s.t.Errorf("the releases were\n%s\nand are\n%s", lines(before.releases), lines(now.releases))
	}
}

func lines(m map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "  %s %s\n", key, m[key])
	}
	return strings.TrimRight(b.String(), "\n")
}

// rolled waits until a workload is as its manifest has it.
func (s *scenario) rolled(namespace, workload string) {
	s.t.Helper()
	s.kubectl("-n", namespace, "rollout", "status", workload, "--timeout=90s").ends(0)
}

// sql asks the database directly and returns the rows, cells separated by |.
func (s *scenario) sql(query string) []string {
	s.t.Helper()
	r := s.kubectl("exec", "-n", "database", "postgresql-0", "--", "psql", "-U", "postgresdb", "-d", "postgresdb", "-XAt", "-c", query).ends(0)
	return strings.Fields(r.stdout)
}

// counts is sql for one number.
func (s *scenario) counts(query string) int {
	s.t.Helper()
	rows := s.sql(query)
	if len(rows) == 1 {
		if n, err := strconv.Atoi(rows[0]); err == nil {
			return n
		}
	}
	s.t.Fatalf("%s: %q, want one number", query, rows)
	return 0
}
