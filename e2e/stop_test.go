//go:build e2e

package e2e

import (
	"strings"

	"platformctl/pkg/command"
)

// stopAndStart takes the node away in three ways; what was accepted before is there afterwards, and the next order ends.
func stopAndStart(s *scenario) {
	s.platform()
	s.step("stop, with orders on their way, ends the node and keeps it", func(s *scenario) {
		for range 20 {
			s.places(1, 1)
		}
		s.up = false
		r := s.platformctl("stop").ends(0)
		s.t.Logf("stop took %s", r.took)
		if running := s.inspect("{{.State.Running}}"); running != "false" {
			s.t.Errorf("it runs: %s", running)
		}
		s.platformctl("stop").ends(0).says("already")
	})
	s.check("what needs the platform says how to get it back", func(s *scenario) {
		for _, line := range []string{"status", "order --show 1 --qty 1", "logs payment"} {
			s.platformctl(strings.Fields(line)...).ends(3).says("stopped", "Try: ", binary+" start")
		}
	})
	s.step("start ends when orders are taken, and the first one ends", func(s *scenario) {
		r := s.platformctl("start").ends(0).says("The platform is up: http://")
		s.t.Logf("start took %s", r.took)
		s.platformctl("order", "--show", "1", "--qty", "1").ends(0)
		s.platformctl("verify").ends(0)
		s.up = true
	})
	s.check("start of what runs has nothing to do", func(s *scenario) {
		before := s.snapshot()
		s.platformctl("start").ends(0).says("nothing to do")
		s.same(before)
	})
	s.step("after a power cut in which another container took the node's address, start comes through all the same", func(s *scenario) {
		before, image := s.inspect(address), s.inspect("{{.Image}}")
		for range 20 {
			s.places(1, 1)
		}
		s.up = false
		s.docker("kill", node)
		other := s.docker("run", "--detach", "--rm", "--label", marker, "--network", "kind", "--entrypoint", "sleep", image, "600")
		s.platformctl("start").ends(0)
		s.docker("rm", "--force", other)
		if now := s.inspect(address); now == before {
			s.t.Errorf("the node has the address it had, %s", now)
		}
		s.platformctl("order", "--show", "1", "--qty", "1").ends(0)
		s.platformctl("verify").ends(0)
		s.up = true
	})
	s.step("a stop that is cut off half-way is gone on with by start", func(s *scenario) {
		s.docker("exec", node, "sh", "-c", "systemctl stop kubelet; pkill -KILL -x kube-apiserver; echo done")
		s.platformctl("start").ends(0)
		s.platformctl("order", "--show", "1", "--qty", "1").ends(0)
	})
	s.check("up has nothing to do after that", func(s *scenario) {
		before := s.snapshot()
		s.platformctl("up").ends(0).says("already").never("done ", "working ")
		s.same(before)
	})
}

const address = "{{.NetworkSettings.Networks.kind.IPAddress}}"

// inspect is one fact of the node's container.
func (s *scenario) inspect(format string) string {
	s.t.Helper()
	return s.docker("inspect", "--format", format, node)
}

// docker is what the engine answers.
func (s *scenario) docker(args ...string) string {
	s.t.Helper()
	r := s.exec(s.ctx, command.New("docker", args...)).ends(0)
	said := strings.Fields(r.stdout)
	if len(said) != 1 {
		s.t.Fatalf("%q is not one word", said)
	}
	return said[0]
}
