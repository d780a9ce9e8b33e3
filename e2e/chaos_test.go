//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const atNode = "docker exec " + node + " "

// dropping is what a partition leaves in the node.
const dropping = atNode + "nft list table ip platformctl_chaos"

// aMinuteOfFaults is how long a plan of one may take: each fault is recovered from before the next begins.
const aMinuteOfFaults = 8 * time.Minute

// chaosHeals has faults made and healed, by the one who made them and, after a kill, by whoever comes next.
func chaosHeals(s *scenario) {
	s.platform()
	s.check("a seed is a plan, which can be read before", func(s *scenario) {
		line := []string{"chaos", "--plan", "--seed", "5", "--duration", "15s", "--faults", "kill,freeze"}
		first := s.platformctl(line...).ends(0).says("seed 5, 15s, 3 faults", "kill postgresql-backend", "freeze payment-service for 7.6s", "kill payment-service")
		if again := s.platformctl(line...).ends(0); again.both != first.both {
			s.t.Errorf("another time it is\n%s", again.both)
		}
		s.platformctl("chaos", "--plan", "--seed", "6", "--duration", "15s", "--faults", "kill,freeze").ends(0).never(first.stdout)
	})
	s.step("a minute of faults of all kinds is made and healed, and no order is lost by it", func(s *scenario) {
		p := s.starts(binary, "chaos", "--seed", "7", "--duration", "60s", "--rate", "50")
		s.until(30*time.Second, func() string {
			if !strings.Contains(p.said.String(), "seed 7") {
				return "it has not begun: " + p.said.String()
			}
			return ""
		})
		other := s.starts(binary, "up")
		s.until(30*time.Second, func() string {
			if !strings.Contains(other.said.String(), "another platformctl is at work on this cluster") {
				return "another command does not wait: " + other.said.String()
			}
			return ""
		})
		s.interrupt(other)
		s.awaits(other, 10*time.Second).ends(130)
		r := s.awaits(p, aMinuteOfFaults).ends(0)
		r.says("  1  kill order-api: gone; recovered in ", "SLOWEST RECOVERY", "Seed:     7; 12 faults in ", " CONFIRMED; 0 never told", "POST p99: ")
		for _, words := range []string{"kill 1 0", "freeze 1 0", "partition 1 0", "poison 1 0", "node 1 0", "I1 accepted holds", "I6 states holds", "I8 letters holds", "I11 outages holds"} {
			if !strings.Contains(spaced(r.both), "\n"+words+" ") {
				s.t.Errorf("there is no row %q", words)
			}
		}
	})
	s.step("and a minute of a seed that nobody has chosen, which is told", func(s *scenario) {
		s.awaits(s.starts(binary, "chaos", "--duration", "60s", "--rate", "50"), aMinuteOfFaults).ends(0).says("Seed: ", " 12 faults in ", "; 0 never told")
	})
	s.step("services that have no failpoints cannot be ended in their gaps, and it is said what to do", func(s *scenario) {
		shows := len(s.shows())
		s.platformctl("chaos", "--seed", "1", "--duration", "5s", "--faults", "gap").ends(1).says("compiled without failpoints", "platformctl deploy --failpoints")
		if n := len(s.shows()); n != shows {
			s.t.Errorf("a chaos that was refused leaves %d shows where there were %d", n, shows)
		}
	})
	s.step("and with them they end in each", func(s *scenario) {
		s.platformctl("deploy", "--failpoints").ends(0)
		r := s.awaits(s.starts(binary, "chaos", "--seed", "1", "--duration", "30s", "--faults", "gap", "--rate", "50"), aMinuteOfFaults).ends(0)
		for _, service := range []string{"order-api", "payment-service"} {
			for _, gap := range []string{"committed", "published", "effect"} {
				r.says("gap " + service + "/" + gap + ": ended; recovered in ")
			}
		}
		s.platformctl("deploy").ends(0).says("order-api: build ", "payment-service: build ")
	})
	history := filepath.Join(s.t.TempDir(), "history.jsonl")
	s.step("after a kill in a partition its packets are still dropped", func(s *scenario) {
		p := s.starts(binary, "chaos", "--seed", "5", "--duration", "5s", "--faults", "partition", "--rate", "50", "--history", history)
		s.until(60*time.Second, func() string {
			// A packet that the first rule counts is one of a live connection.
			if r := s.types(dropping); r.code != 0 || strings.Count(r.stdout, "packets 0 ") == strings.Count(r.stdout, "counter") {
				return "nothing is dropped yet: " + p.said.String()
			}
			return ""
		})
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			s.t.Fatal(err)
		}
		s.awaits(p, 10*time.Second).says("seed 5, 5s, 1 fault").never("recovered")
		s.types(dropping).ends(0).says("drop")
	})
	s.step("the next command heals that, and says so", func(s *scenario) {
		s.platformctl("status").says("healing what a killed chaos left: partition apps")
		if r := s.types(dropping); r.code == 0 {
			s.t.Error("they are dropped still")
		}
		s.platformctl("status", "--wait").ends(0).never("healing")
	})
	s.step("what its clients were told is true", func(s *scenario) {
		if raw, err := os.ReadFile(history); err != nil || strings.Count(string(raw), "\n") < 50 {
			s.t.Fatalf("there is hardly a history: %d bytes, %v", len(raw), err)
		}
		s.until(60*time.Second, func() string {
			if n := s.counts("SELECT count(*) FROM orders WHERE status = 'PENDING'"); n > 0 {
				return fmt.Sprintf("%d orders have not ended", n)
			}
			return ""
		})
		s.platformctl("verify", "--history", history).ends(0).says("accepted")
	})
}

// spaced is a table with one blank between its words.
func spaced(table string) string {
	var lines []string
	for line := range strings.Lines(table) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}
