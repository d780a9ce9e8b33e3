//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// looking is what one sees of an order and its events, and how what died comes back.
func looking(s *scenario) {
	s.platform()
	s.check("trace tells each hop of an order, and its trace is the one that the client began", func(s *scenario) {
		id := strconv.Itoa(s.places(1, 2))
		n, err := strconv.Atoi(id)
		if err != nil {
			s.t.Fatal(err)
		}
		s.ended(n)
		s.platformctl("trace", id).ends(0).says("request at order-api", "2 seats held", "delivered to payment-service", "delivered to order-api")
		s.platformctl("trace", "2000000000").ends(2).says("there is no order 2000000000")
		s.platformctl("trace", "one").ends(2).says(`"one" is no order's number`)
		s.platformctl("trace", "--stuck").ends(0)
		s.platformctl("trace", "--slowest", "3").ends(0).says("WHERE THE TIME WENT")
		s.platformctl("order", "--show", "1", "--qty", "1", "--follow").ends(0).says("confirmed by the broker")
	})
	s.check("events shows what flies, and the services miss none of it", func(s *scenario) {
		p := s.starts(binary, "events", "-f")
		s.until(20*time.Second, func() string {
			id := s.places(1, 1)
			s.ended(id)
			if said := p.said.String(); !strings.Contains(said, "order "+strconv.Itoa(id)) {
				return "it says " + said
			}
			return ""
		})
		s.interrupt(p)
		s.awaits(p, 10*time.Second).ends(130)
	})
	s.check("status -w shows what the platform does, until Ctrl-C", func(s *scenario) {
		p := s.starts(binary, "status", "-w", "-o", "json")
		s.until(20*time.Second, func() string {
			if said := p.said.String(); !strings.Contains(said, `"queues":[{"name":"payment.order-created.q"`) || !strings.Contains(said, `"pod":"payment-service-`) {
				return "it says " + said
			}
			return ""
		})
		s.interrupt(p)
		s.awaits(p, 10*time.Second).ends(130)
	})
	s.check("what cannot be handled dies with its reason, goes back, and stays after three retries", func(s *scenario) {
		file := filepath.Join(s.t.TempDir(), "event.json")
		if err := os.WriteFile(file, []byte(`{"messageId":"e2e","orderId":1999999999,"userId":1}`), 0o600); err != nil {
			s.t.Fatal(err)
		}
		s.platformctl("events", "publish", "order.created", file).ends(2).says("nothing was published")
		s.platformctl("events", "publish", "payment.failed", file).ends(0)
		dead := func(retries int) {
			s.until(20*time.Second, func() string {
				var letters []struct {
					Order, Retries int
					Reason         string
				}
				s.platformctl("dlq", "-o", "json").ends(0).decodes(&letters)
				for _, l := range letters {
					if l.Order == 1999999999 && l.Retries == retries && l.Reason == "there is no order 1999999999" {
						return ""
					}
				}
				return fmt.Sprintf("the dead letters are %+v", letters)
			})
		}
		for retries := range 3 {
			dead(retries)
			s.platformctl("dlq", "retry", "--order", "1999999999").ends(0).says("sent back to order.payment-results.q")
		}
		dead(3)
		s.platformctl("dlq", "retry", "--order", "1999999999").ends(1).says("died again after each of 3 retries")
		s.platformctl("dlq", "drop", "--order", "1999999999", "-y").ends(0)
		s.platformctl("logs", "order", "--order", "1999999999").ends(0).says("dead letter")
	})
}
