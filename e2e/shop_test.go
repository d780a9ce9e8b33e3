//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

func wrongOrders(s *scenario) {
	s.platform()
	big := bytes.Repeat([]byte("x"), 64<<10)
	for _, wrong := range []struct {
		what, body string
		status     int
		says       string // the whole body where it begins with {, else a part of it
	}{
		{"an unknown show", `{"userId":1,"showId":99,"quantity":1}`, 404, `{"error":"show_not_found"}`},
		{"quantity 0", `{"userId":1,"showId":1,"quantity":0}`, 400, "quantity"},
		{"quantity -1", `{"userId":1,"showId":1,"quantity":-1}`, 400, "quantity"},
		{"quantity 1.5", `{"userId":1,"showId":1,"quantity":1.5}`, 400, "quantity"},
		{"quantity 10^12", `{"userId":1,"showId":1,"quantity":1000000000000}`, 400, "quantity"},
		{"a quantity that is a string", `{"userId":1,"showId":1,"quantity":"2"}`, 400, "quantity"},
		{"no quantity", `{"userId":1,"showId":1}`, 400, "quantity"},
		{"no show", `{"userId":1,"quantity":1}`, 400, "showId"},
		{"no user", `{"showId":1,"quantity":1}`, 400, "userId"},
		{"a user that is a list", `{"userId":[1],"showId":1,"quantity":1}`, 400, "userId"},
		{"no JSON", `two for the festival, please`, 400, "JSON"},
		{"nothing", ``, 400, ""},
		{"a second value behind the first", `{"userId":1,"showId":1,"quantity":1} {"userId":1,"showId":1,"quantity":1}`, 400, ""},
		{"more than 64 KiB", `{"userId":1,"showId":1,"quantity":1,"note":"` + string(big) + `"}`, 413, "65536"},
	} {
		s.check("an order with "+wrong.what+" is refused with a sentence", func(s *scenario) {
			a, err := post(s.ctx, client(), []byte(wrong.body))
			if err != nil {
				s.t.Fatal(err)
			}
			if a.status != wrong.status {
				s.t.Errorf("the answer is %s, want status %d", a, wrong.status)
			}
			if whole := strings.HasPrefix(wrong.says, "{"); whole && strings.TrimSpace(a.body) != wrong.says || !whole && !strings.Contains(a.body, wrong.says) {
				s.t.Errorf("the answer is %s, want %s", a, wrong.says)
			}
			var said struct {
				Error string `json:"error"`
			}
			if err := json.Unmarshal([]byte(a.body), &said); err != nil || said.Error == "" {
				s.t.Errorf("the answer is %s, want JSON with an error (%v)", a, err)
			}
		})
	}
	s.check("an order for more seats than there are is refused with their number", func(s *scenario) {
		a, err := post(s.ctx, client(), wanted(3, 121))
		if err != nil {
			s.t.Fatal(err)
		}
		if n, err := noStock(a); err != nil || n != 120 {
			s.t.Errorf("the answer is %s (%v), want 120 available", a, err)
		}
	})
	s.check("an order that nobody placed is not found", func(s *scenario) {
		for path, status := range map[string]int{"/orders/999999": 404, "/orders/one": 400, "/orders/0": 400} {
			a, err := get(s.ctx, client(), api+path)
			if err != nil {
				s.t.Fatal(err)
			}
			if a.status != status {
				s.t.Errorf("GET %s answers %s, want status %d", path, a, status)
			}
		}
	})
	for _, wrong := range []struct {
		args string
		code int
		says []string
	}{
		{"order --show 99 --qty 1", 2, []string{"99", "--show 1", "Rock Festival 2025"}},
		{"order --show 1 --qty 0", 2, []string{"--qty", `"0"`}},
		{"order --show 1 --qty -1", 2, []string{"--qty", `"-1"`}},
		{"order --show 1 --qty 1.5", 2, []string{"--qty", `"1.5"`}},
		{"order --show 1 --qty 1000000000000", 2, []string{"--qty"}},
		{"order --show 1 --qty two", 2, []string{"--qty", `"two"`}},
		{"order --show 1", 2, []string{"--qty"}},
		{"order --show 3 --qty 121", 1, []string{"120"}},
		{"logs paymant", 2, []string{"paymant", "order", "payment", "rabbitmq", "postgres"}},
		{"upp", 2, []string{"upp", "platformctl up"}},
		{"up --api-prot 1", 2, []string{"--api-prot", "--api-port"}},
		{"up --api-port 70000", 2, []string{"70000"}},
		{"up --images floppy", 2, []string{"floppy", "registry", "packages"}},
		{"status --cluster No_Name", 2, []string{"No_Name"}},
	} {
		s.check("platformctl "+wrong.args, func(s *scenario) {
			s.platformctl(strings.Fields(wrong.args)...).ends(wrong.code).says(append(wrong.says, "Error: ", "Try: ")...)
		})
	}
	s.check("none of them has left anything behind", func(s *scenario) {
		if n := s.counts("SELECT count(*) FROM orders WHERE show_id NOT IN (1, 2, 3) OR quantity NOT BETWEEN 1 AND 10"); n != 0 {
			s.t.Errorf("%d orders that were refused are in the database", n)
		}
		if n := s.counts("SELECT coalesce(sum(quantity), 0) FROM inventory_reservations WHERE show_id = 3"); n != 0 {
			s.t.Errorf("%d seats of show 3 are or were held", n)
		}
		s.consistent()
	})
}

// held is how many seats of show 3 are held, by the rows that count.
const held = "SELECT coalesce(sum(quantity), 0) FROM inventory_reservations WHERE show_id = 3 AND status IN ('RESERVED', 'COMMITTED')"

func neverOversold(s *scenario) {
	s.platform()
	const seats, clients, tries = 120, 64, 12
	s.step("64 clients want more seats of a show than it has, and at no moment more than all are held", func(s *scenario) {
		// The database itself looks again and again, in a session of its own, until it is told to end.
		watch := s.starts("sh", "-c", `printf '%s \\watch i=0.02\n' "$0" | kubectl exec -i -n database postgresql-0 -- psql "dbname=postgresdb user=postgresdb application_name=e2e-watch" -XAt`, held)
		s.until(20*time.Second, func() string {
			if len(strings.Fields(watch.said.String())) < 2 {
				return "the database does not look yet: " + watch.said.String()
			}
			return ""
		})
		sent := make([]int, clients)
		c := s.crowd(clients, 0, func(i int) []byte {
			if sent[i]++; sent[i] > tries {
				return nil
			}
			return wanted(3, 1+(i+sent[i])%3)
		})
		c.all.Wait()
		for what, n := range c.refusals() {
			s.t.Logf("%d × %s", n, what)
			if !strings.HasPrefix(what, "409 ") && !strings.HasPrefix(what, "503 ") {
				s.t.Errorf("an answer that is neither 202, 409 nor 503: %s", what)
			}
		}
		s.t.Logf("%d orders were accepted", len(c.orders()))
		s.allEnd(c.orders())
		s.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'e2e-watch'")
		s.awaits(watch, 20*time.Second)
		most, looks := 0, 0
		for _, word := range strings.Fields(watch.said.String()) {
			if n, err := strconv.Atoi(word); err == nil {
				looks++
				most = max(most, n)
			}
		}
		s.t.Logf("in %d looks at most %d seats were held", looks, most)
		if most > seats {
			s.t.Errorf("%d of %d seats were held at one moment", most, seats)
		}
		if looks < 10 || most < seats/2 {
			s.t.Errorf("the look was too short to prove anything: %d looks, %d seats at most", looks, most)
		}
	})
	s.step("the rest can be bought, seat by seat, until the show is sold out", func(s *scenario) {
		c := client()
		for range 3 * seats { // some payments fail and give their seat back
			a, err := post(s.ctx, c, wanted(3, 1))
			if err != nil {
				s.t.Fatal(err)
			}
			if a.status == http.StatusConflict {
				if n, err := noStock(a); err != nil || n != 0 {
					s.t.Errorf("the answer is %s (%v), want 0 available", a, err)
				}
				if s.counts("SELECT count(*) FROM orders WHERE show_id = 3 AND status = 'PENDING'") == 0 && s.shows()[2].Free == 0 {
					break
				}
				continue
			}
			id, err := accepted(a)
			if err != nil {
				s.t.Fatal(err)
			}
			s.ended(id)
		}
		sold := s.shows()[2]
		if sold.Free != 0 || sold.Held != 0 || sold.Sold != seats {
			s.t.Errorf("the show is not sold out: %+v", sold)
		}
		if n := s.counts(held); n != seats {
			s.t.Errorf("%d seats are held, want %d", n, seats)
		}
		s.consistent()
	})
	s.step("who comes too late is told so, by the API and by the command", func(s *scenario) {
		a, err := post(s.ctx, client(), wanted(3, 1))
		if err != nil {
			s.t.Fatal(err)
		}
		if strings.TrimSpace(a.body) != `{"error":"not_enough_stock","available":0}` || a.status != http.StatusConflict {
			s.t.Errorf("the answer is %s", a)
		}
		s.platformctl("order", "--show", "3", "--qty", "1").ends(1).says("show 3")
		s.platformctl("bench", "--show", "3", "--orders", "4", "--clients", "2").ends(1).says("4 × 409", "Error: no order was accepted", "Try: ")
	})
}
