//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"time"
)

func killed(s *scenario) {
	s.platform()
	// The show with the most seats, at a pace that does not sell it out while the scenario lasts.
	c := s.crowd(2, 100*time.Millisecond, func(int) []byte { return wanted(1, 1) })
	s.step("orders come in", func(s *scenario) { s.comesIn(c) })
	s.step("order-api's pod is deleted by force: another one takes orders", func(s *scenario) {
		s.types("kubectl -n apps delete pod -l app.kubernetes.io/instance=order-api --force --grace-period=0").ends(0)
		s.rolled("apps", "deploy/order-api-order-api-chart")
		s.comesIn(c)
	})
	s.step("payment-service's process is killed: the kubelet starts it again", func(s *scenario) {
		before := s.restarts("apps", "app.kubernetes.io/instance=payment-service")
		s.kills("/payment-service")
		s.until(30*time.Second, func() string {
			if s.restarts("apps", "app.kubernetes.io/instance=payment-service") == before {
				return "it was not started again yet"
			}
			return ""
		})
		s.rolled("apps", "deploy/payment-service-payment-service-chart")
		s.comesIn(c)
	})
	s.step("what it said in its former life can be read", func(s *scenario) {
		s.platformctl("logs", "payment", "--previous").ends(0).says("payment-service")
	})
	s.step("RabbitMQ is away: orders are accepted meanwhile", func(s *scenario) {
		s.scaled("messaging", "statefulset/rabbitmq", 0)
		s.places(2, 1)
		s.comesIn(c)
		s.scaled("messaging", "statefulset/rabbitmq", 1)
	})
	s.step("PostgreSQL is away: the API says that it cannot now, and what was there is there again", func(s *scenario) {
		before := s.counts("SELECT count(*) FROM orders")
		s.scaled("database", "statefulset/postgresql", 0)
		s.until(20*time.Second, func() string {
			for what := range c.refusals() {
				if strings.HasPrefix(what, "503 ") {
					return ""
				}
			}
			return fmt.Sprintf("nobody was told 503: %v", c.refusals())
		})
		s.scaled("database", "statefulset/postgresql", 1)
		s.comesIn(c)
		if after := s.counts("SELECT count(*) FROM orders"); after < before {
			s.t.Errorf("there were %d orders, and there are %d", before, after)
		}
	})
	s.step("every order that was accepted meanwhile ends", func(s *scenario) {
		c.dismiss()
		s.t.Logf("%d orders were accepted; other answers: %v", len(c.orders()), c.refusals())
		for what := range c.refusals() {
			if what != "no answer" && !strings.HasPrefix(what, "503 ") {
				s.t.Errorf("an answer that is neither 202 nor 503: %s", what)
			}
		}
		s.allEnd(c.orders())
		// Those too whose answer was lost on its way.
		s.until(30*time.Second, func() string {
			if n := s.counts("SELECT count(*) FROM orders WHERE status = 'PENDING'"); n != 0 {
				return fmt.Sprintf("%d orders have not ended", n)
			}
			return ""
		})
	})
	s.step("and the platform is whole", func(s *scenario) {
		s.platformctl("status", "--wait").ends(0)
		if o := s.ended(s.places(1, 1)); o.OrderID == 0 {
			s.t.Error("there is no order")
		}
	})
}

// comesIn waits until the crowd has more orders accepted than now.
func (s *scenario) comesIn(c *crowd) {
	s.t.Helper()
	before := len(c.orders())
	s.until(60*time.Second, func() string {
		if len(c.orders()) > before+2 {
			return ""
		}
		return fmt.Sprintf("since %d orders were accepted no more are; other answers: %v", before, c.refusals())
	})
}

// scaled has so many pods of a workload, and waits until they are there and ready, or gone. One that is only deleted is back before
// anybody has noticed.
func (s *scenario) scaled(namespace, workload string, pods int) {
	s.t.Helper()
	s.kubectl("-n", namespace, "scale", workload, fmt.Sprint("--replicas=", pods)).ends(0)
	s.kubectl("-n", namespace, "wait", workload, fmt.Sprint("--for=jsonpath={.status.replicas}=", pods), "--timeout=60s").ends(0)
	s.rolled(namespace, workload)
}

// restarts is how often the containers of the selected pods were started again.
func (s *scenario) restarts(namespace, selector string) string {
	s.t.Helper()
	return s.kubectl("-n", namespace, "get", "pods", "-l", selector, "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}").ends(0).stdout
}

// kills sends SIGKILL to the one process of the node that runs the program.
func (s *scenario) kills(program string) {
	s.t.Helper()
	const script = `for p in /proc/[0-9]*; do [ "$(readlink $p/exe)" = "$0" ] && kill -9 "${p#/proc/}" && echo "killed ${p#/proc/}"; done; true`
	s.types(`docker exec `+node+` sh -c "$SCRIPT" `+program, "SCRIPT="+script).ends(0).says("killed ")
}
