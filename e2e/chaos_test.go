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
		s.rows(r, "I1 accepted holds", "I6 states holds", "I8 letters holds", "I11 outages holds")
		for _, kind := range []string{"kill", "freeze", "unconfirmed", "partition", "reset", "duplicates", "poison", "alarm", "lapse", "deploy", "drain", "node"} {
			s.rows(r, kind+" 1 0") // made, and of none of it nothing was seen
		}
		r.says(": evicted")
	})
	s.step("everything that can be killed is killed, and every way is cut; seed 41 once was too much for it", func(s *scenario) {
		killed := s.awaits(s.starts(binary, "chaos", "--seed", "1", "--duration", "25s", "--faults", "kill", "--rate", "50"), aMinuteOfFaults).ends(0)
		s.rows(killed, "kill 5 0")
		killed.says("kill order-api:", "kill payment-service:", "kill rabbitmq:", "kill postgresql:", "kill postgresql-backend:")
		cut := s.awaits(s.starts(binary, "chaos", "--seed", "41", "--duration", "30s", "--faults", "partition", "--rate", "50"), aMinuteOfFaults).ends(0)
		s.rows(cut, "partition 6 0")
		for _, way := range []string{"→", "←", "↔"} {
			cut.says("partition apps"+way+"database", "partition apps"+way+"messaging")
		}
	})
	s.step("a seed whose last answers once were not waited for", func(s *scenario) {
		s.awaits(s.starts(binary, "chaos", "--seed", "127302", "--duration", "60s", "--rate", "50"), aMinuteOfFaults).ends(0).says("Seed:     127302; 12 faults in ", "; 0 never told")
		s.platformctl("snapshot", "save", "letters").ends(0) // of 5 MB each, which once were too much for the broker at once
		s.platformctl("snapshot", "rm", "letters").ends(0)
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
	parted := func(s *scenario, more ...string) *process {
		p := s.starts(binary, append([]string{"chaos", "--seed", "5", "--duration", "5s", "--faults", "partition", "--rate", "50"}, more...)...)
		s.until(60*time.Second, func() string {
			// A packet that the first rule counts is one of a live connection.
			if r := s.types(dropping); r.code != 0 || strings.Count(r.stdout, "packets 0 ") == strings.Count(r.stdout, "counter") {
				return "nothing is dropped yet: " + p.said.String()
			}
			return ""
		})
		return p
	}
	s.step("Ctrl-C in a partition heals it", func(s *scenario) {
		p := parted(s)
		s.interrupt(p)
		s.awaits(p, 60*time.Second).ends(130)
		if r := s.types(dropping); r.code == 0 {
			s.t.Error("packets are dropped still")
		}
		s.platformctl("status", "--wait").ends(0).never("healing")
	})
	s.step("after a kill in a partition its packets are still dropped", func(s *scenario) {
		p := parted(s, "--history", history)
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
	s.step("a row that breaks an invariant is named, by the exit code too, and in JUnit's form", func(s *scenario) {
		id, report := s.counts("SELECT max(id) FROM orders WHERE status = 'CONFIRMED'"), filepath.Join(s.t.TempDir(), "junit.xml")
		pays := func(status string) {
			s.platformctl("psql", "-c", fmt.Sprintf("UPDATE payments SET status = '%s' WHERE order_id = %d", status, id)).ends(0).says("UPDATE 1")
		}
		pays("FAILED")
		s.rows(s.platformctl("verify", "--junit", report).ends(5).says(fmt.Sprintf("order %d", id)), "I6 states BROKEN")
		if raw, err := os.ReadFile(report); err != nil || !strings.Contains(string(raw), "<failure") || !strings.Contains(string(raw), fmt.Sprintf("order %d", id)) {
			s.t.Errorf("%v: %s", err, raw)
		}
		pays("SUCCEEDED")
		s.platformctl("verify", "--junit", report).ends(0)
		if raw, err := os.ReadFile(report); err != nil || strings.Contains(string(raw), "<failure") {
			s.t.Errorf("%v: %s", err, raw)
		}
	})
}

// rows looks for rows in what a command printed, by their first words with one blank between them.
func (s *scenario) rows(r *run, rows ...string) {
	s.t.Helper()
	for _, words := range rows {
		if !strings.Contains(spaced(r.both), "\n"+words+" ") {
			s.t.Errorf("there is no row %q in\n%s", words, r.both)
		}
	}
}

// diskIsFull has PostgreSQL on a small disk of its own, in memory, and fills that.
func diskIsFull(s *scenario) {
	s.platform()
	s.step("the disk of this machine is not filled, and it is said what to do", func(s *scenario) {
		s.platformctl("chaos", "--seed", "1", "--duration", "5s", "--faults", "full").ends(1).says("that is not filled", "medium: Memory")
	})
	checkout := s.copyCheckout()
	s.step("a platform whose database is in memory comes up", func(s *scenario) {
		s.platformctl("cleanup", "-y", "--no-snapshot").ends(0)
		small := func(was string) string {
			return strings.Replace(was, "    enabled: true\n    size: 4Gi\n", "    enabled: false\n    emptyDir: {medium: Memory, sizeLimit: 512Mi}\n", 1)
		}
		s.with(filepath.Join(checkout, "values/dev/postgresql.yaml"), small, func() {
			s.platformctl("up", "--project", checkout).ends(0)
		})
	})
	s.step("with its disk full to the last byte no order is lost, and with space again they go on", func(s *scenario) {
		r := s.awaits(s.starts(binary, "chaos", "--seed", "1", "--duration", "10s", "--faults", "full", "--rate", "50"), aMinuteOfFaults).ends(0)
		s.rows(r, "full 2 0", "I1 accepted holds", "I6 states holds")
		r.says("full postgresql for ", "no space left; recovered in ")
	})
	s.step("and as it was before it comes up again", func(s *scenario) {
		s.platformctl("cleanup", "-y", "--no-snapshot").ends(0)
		s.platformctl("up").ends(0)
		s.ended(s.places(1, 1))
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
