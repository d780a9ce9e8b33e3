//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

func cleanupAndAgain(s *scenario) {
	s.platform()
	s.step("cleanup takes the releases and the namespaces, and leaves the cluster", func(s *scenario) {
		s.up = false
		s.platformctl("cleanup", "-y").ends(0).says("order-api", "postgresql", "apps", "database", "snapshot restore before-cleanup-")
		s.kubectl("get", "namespaces", "apps", "database", "messaging", "--ignore-not-found").ends(0).never("apps", "database", "messaging")
		s.kubectl("get", "nodes").ends(0).says(node)
		var st status
		s.platformctl("status", "-o", "json").ends(3).decodes(&st)
		if st.State != "running" || st.Ready {
			s.t.Errorf("status says %+v", st)
		}
	})
	s.step("cleanup again has nothing to do", func(s *scenario) {
		s.platformctl("cleanup", "-y").ends(0)
	})
	s.step("Ctrl-C during up stops it in order and says what a rerun does", func(s *scenario) {
		p := s.starts(binary, "up")
		s.until(60*time.Second, func() string {
			if s.kubectl("-n", "database", "get", "statefulset", "postgresql").code != 0 {
				return "up has not come as far as postgresql: " + p.said.String()
			}
			return ""
		})
		s.interrupt(p)
		s.awaits(p, 30*time.Second).ends(130).says("interrupted", "Try: ", binary+" up")
	})
	s.step("two up at once both come through: the second waits and says for whom", func(s *scenario) {
		first := s.starts(binary, "up")
		s.until(10*time.Second, func() string {
			if !strings.Contains(first.said.String(), "values") {
				return "the first has not begun: " + first.said.String()
			}
			return ""
		})
		second := s.starts(binary, "up")
		s.awaits(first, 5*time.Minute).ends(0)
		s.awaits(second, time.Minute).ends(0).says("another platformctl", fmt.Sprintf("pid %d", first.pid))
		s.up = true
	})
	s.step("the platform is new: its first order is 1, and its shows have all their seats", func(s *scenario) {
		for _, sh := range s.shows() {
			if sh.Free != sh.Capacity {
				s.t.Errorf("show %d is not new: %+v", sh.ShowID, sh)
			}
		}
		if id := s.places(1, 2); id != 1 {
			s.t.Errorf("the first order is %d", id)
		}
		if o := s.ended(1); o.Status != "CONFIRMED" {
			s.t.Errorf("order 1 ended %s", o.Status)
		}
		s.foreignContextStands()
	})
	s.step("a cleanup that is killed half-way: up waits for what is still being deleted, and makes it anew", func(s *scenario) {
		p := s.starts(binary, "cleanup", "-y")
		s.until(time.Minute, func() string {
			phase := s.kubectl("get", "namespace", "database", "-o", "jsonpath={.status.phase}")
			if phase.stdout != "Terminating" {
				return "namespace database is " + phase.both
			}
			return ""
		})
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			s.t.Fatal(err)
		}
		s.awaits(p, 10*time.Second)
		s.platformctl("up").ends(0)
		s.ended(s.places(1, 1))
	})
}

// cutShort stops up in the moment where most is half done: while the cluster is made.
func cutShort(s *scenario) {
	s.platform()
	s.step("there is no cluster", func(s *scenario) {
		s.up = false
		s.platformctl("down", "-y").ends(0)
	})
	s.step("Ctrl-C while the cluster is made leaves no node behind", func(s *scenario) {
		p := s.starts(binary, "up", "--api-port", apiPort)
		s.nodeAppears(p)
		s.interrupt(p)
		s.awaits(p, time.Minute).ends(130).says("Try: ", binary+" up")
		s.nothingIs(node)
	})
	s.step("kill -9 leaves half a cluster, which up makes whole", func(s *scenario) {
		p := s.starts(binary, "up", "--api-port", apiPort)
		s.nodeAppears(p)
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			s.t.Fatal(err)
		}
		s.awaits(p, 10*time.Second)
		s.platformctl("status").ends(3).says("Try: ")
		s.platformctl("up", "--api-port", apiPort).ends(0)
		s.up = true
		s.ended(s.places(1, 1))
	})
}

// nodeAppears waits until the node's container is there.
func (s *scenario) nodeAppears(p *process) {
	s.t.Helper()
	s.until(2*time.Minute, func() string {
		there, err := s.containers(s.ctx, "name=^/?"+node+"$")
		switch {
		case err != nil:
			return err.Error()
		case len(there) == 0:
			return "there is no node yet: " + p.said.String()
		}
		return ""
	})
}

func down(s *scenario) {
	s.platform()
	caches := s.cached()
	s.step("down deletes the cluster and its context, and keeps the caches", func(s *scenario) {
		s.up = false
		r := s.platformctl("down", "-y", "--no-snapshot").ends(0).never("snapshot restore")
		s.t.Logf("down took %s", r.took)
		s.nothingIs(node)
		if got := s.cached(); !slices.Equal(got, caches) {
			s.t.Errorf("the cache held %q and holds %q", caches, got)
		}
	})
	s.step("the user's kubeconfig is as it was before the first up", func(s *scenario) {
		s.types("cat " + s.kubeconfig).ends(0).never(clusterName)
		s.foreignContextStands()
		if r := s.kubectl("config", "current-context"); strings.TrimSpace(r.stdout) != "" {
			s.t.Errorf("the current context is %q, and there was none", r.stdout)
		}
	})
	s.step("the other file that up has written to has no trace of it", func(s *scenario) {
		s.types("cat " + s.other + " 2>/dev/null || true").ends(0).never(clusterName)
	})
	s.step("the port is free", func(s *scenario) {
		if !free("127.0.0.1:" + apiPort) {
			s.t.Error("something listens on it")
		}
	})
	s.step("down again is no error", func(s *scenario) {
		s.platformctl("down").ends(0)
	})
	s.step("status says that there is no cluster, and the others how to get one", func(s *scenario) {
		var st status
		s.platformctl("status", "-o", "json").ends(3).decodes(&st)
		if st.State != "absent" || st.Ready {
			s.t.Errorf("it says %+v", st)
		}
		for _, args := range []string{"status", "order --show 1 --qty 1", "shows", "logs payment", "psql -c SELECT", "kubeconfig --path"} {
			s.platformctl(strings.Fields(args)...).ends(3).says("Try: ", "platformctl up")
		}
	})
}
