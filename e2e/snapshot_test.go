//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// kept is a snapshot as snapshot ls has it.
type kept struct {
	Name        string `json:"name"`
	Orders      int    `json:"orders"`
	DeadLetters int    `json:"deadLetters"`
	Path        string `json:"path"`
}

func (s *scenario) kept() []kept {
	s.t.Helper()
	var all []kept
	s.platformctl("snapshot", "ls", "-o", "json").ends(0).decodes(&all)
	return all
}

// allRows is a digest of every table that a snapshot has.
func (s *scenario) allRows() string {
	s.t.Helper()
	var digests []string
	for _, table := range []string{"shows", "show_seats", "orders", "inventory_reservations", "payments", "outbox", "order_events", "order_keys"} {
		rows := s.sql("SELECT count(*) || ':' || md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '')) FROM " + table + " t")
		digests = append(digests, table+" "+strings.Join(rows, " "))
	}
	return strings.Join(digests, "\n")
}

// unreadable is an order.created that no service can read.
const unreadable = `X = rabbit_misc:r(<<"/">>, exchange, <<"events.topic">>),
{ok, M} = mc_amqpl:message(X, <<"order.created">>, rabbit_basic:build_content(
	rabbit_basic:properties([{message_id, <<"unreadable">>}, {delivery_mode, 2}]), <<"no JSON">>)),
rabbit_queue_type:publish_at_most_once(X, M).`

func snapshots(s *scenario) {
	s.platform()
	s.step("there is a seed, though nobody asked for one", func(s *scenario) {
		if !slices.ContainsFunc(s.kept(), func(k kept) bool { return k.Name == "seed" && k.Orders == 0 }) {
			s.t.Errorf("there are %+v", s.kept())
		}
		for _, k := range s.kept() { // a run that failed may have left its own
			if k.Name == "busy" || k.Name == "cut" || k.Name == "torn" {
				s.platformctl("snapshot", "rm", k.Name).ends(0)
			}
		}
	})
	s.step("a snapshot is saved while orders come in, and none is refused", func(s *scenario) {
		c := s.crowd(4, 100*time.Millisecond, func(int) []byte { return wanted(1, 1) })
		s.comesIn(c)
		s.platformctl("snapshot", "save", "busy").ends(0).says("saved as busy")
		s.comesIn(c)
		c.dismiss()
		for what, n := range c.refusals() {
			if !strings.HasPrefix(what, "409 ") {
				s.t.Errorf("%d × %s", n, what)
			}
		}
		s.allEnd(c.orders())
	})
	var rows string
	last := 0
	s.step("a dead letter is saved with the tables", func(s *scenario) {
		s.kubectl("exec", "-n", "messaging", "rabbitmq-0", "--", "rabbitmqctl", "--silent", "eval", unreadable).ends(0)
		letters := func() string {
			return s.kubectl("exec", "-n", "messaging", "rabbitmq-0", "--", "rabbitmqctl", "--silent", "list_queues", "name", "messages").ends(0).stdout
		}
		s.until(30*time.Second, func() string {
			if text := letters(); strings.Contains(text, "events.dlq.q\t0") {
				return text
			}
			return ""
		})
		s.ended(s.places(1, 2))
		s.platformctl("snapshot", "save", "cut").ends(0).says("saved as cut", "1 dead letter")
		s.platformctl("snapshot", "save", "cut").ends(2).says("there is a snapshot cut already", "snapshot rm cut")
		rows = s.allRows()
	})
	s.step("restored, all is as it was at the cut, and what it replaced can be had back", func(s *scenario) {
		for range 5 {
			last = s.places(1, 1)
			s.ended(last)
		}
		r := s.platformctl("snapshot", "restore", "cut").ends(0).says("restored cut", "1 dead letter", "snapshot restore before-restore-")
		s.t.Logf("it took %s", r.took)
		if now := s.allRows(); now != rows {
			s.t.Errorf("the tables were\n%s\nand are\n%s", rows, now)
		}
		s.consistent()
		a, err := get(s.ctx, client(), fmt.Sprintf("%s/orders/%d", api, last))
		if err != nil || a.status != 404 {
			s.t.Errorf("order %d, placed after the cut: %s %v", last, a, err)
		}
	})
	s.step("new orders get ids that nobody has had", func(s *scenario) {
		id := s.places(1, 1)
		if id <= last {
			s.t.Errorf("order %d came after %d", id, last)
		}
		s.ended(id)
		s.consistent()
	})
	s.step("a save that is killed leaves no snapshot, and orders come in again", func(s *scenario) {
		// One that may read everything is done in a fifth of a second.
		const held = ` FROM pg_locks WHERE relation = 'payments'::regclass AND mode = 'AccessExclusiveLock' AND granted`
		holder := s.starts("kubectl", "exec", "-n", "database", "postgresql-0", "--", "psql", "-U", "postgresdb", "-d", "postgresdb",
			"-c", "BEGIN; LOCK TABLE payments; SELECT pg_sleep(60)")
		s.until(20*time.Second, func() string {
			if s.counts("SELECT count(*)"+held) != 1 {
				return "the table is not locked: " + holder.said.String()
			}
			return ""
		})
		p := s.starts(binary, "--progress", "json", "snapshot", "save", "torn")
		s.until(20*time.Second, func() string {
			if !strings.Contains(p.said.String(), `"doing"`) {
				return "it has not begun: " + p.said.String()
			}
			return ""
		})
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			s.t.Fatal(err)
		}
		s.awaits(p, 10*time.Second)
		s.sql("SELECT pg_terminate_backend(pid)" + held)
		s.awaits(holder, 10*time.Second)
		if slices.ContainsFunc(s.kept(), func(k kept) bool { return k.Name == "torn" }) {
			s.t.Error("it is in the list")
		}
		s.ended(s.places(1, 1))
		s.platformctl("snapshot", "save", "torn").ends(0)
	})
	s.step("a snapshot that was altered or cut is refused, and nothing is touched", func(s *scenario) {
		before := s.allRows()
		i := slices.IndexFunc(s.kept(), func(k kept) bool { return k.Name == "torn" })
		if i < 0 {
			s.t.Fatal("it is not in the list")
		}
		file := filepath.Join(s.kept()[i].Path, "data")
		raw, err := os.ReadFile(file)
		if err != nil {
			s.t.Fatal(err)
		}
		for what, changed := range map[string][]byte{"altered": append([]byte{raw[0] ^ 1}, raw[1:]...), "cut": raw[:len(raw)-1]} {
			if err := os.WriteFile(file, changed, 0o600); err != nil {
				s.t.Fatal(err)
			}
			s.platformctl("snapshot", "restore", "torn").ends(1).says(what, "nothing was changed")
		}
		if now := s.allRows(); now != before {
			s.t.Errorf("the tables were\n%s\nand are\n%s", before, now)
		}
	})
	s.step("a name that is unknown or none is refused with those that there are", func(s *scenario) {
		s.platformctl("snapshot", "restore", "nosuch").ends(2).says("nosuch", "seed", "cut")
		s.platformctl("snapshot", "restore", "../cut").ends(2).says("is no name")
		s.platformctl("snapshot", "save", "No Name").ends(2).says("is no name")
	})
	s.step("restore seed is the reset", func(s *scenario) {
		s.platformctl("snapshot", "restore", "seed", "--no-snapshot").ends(0).says("0 orders, 0 dead letters").never("before-restore")
		for _, sh := range s.shows() {
			if sh.Free != sh.Capacity {
				s.t.Errorf("show %d is not new: %+v", sh.ShowID, sh)
			}
		}
		s.ended(s.places(1, 1))
		s.platformctl("snapshot", "rm", "busy", "cut", "torn").ends(0)
		s.consistent()
	})
}
