//go:build e2e

package e2e

import (
	"strings"
	"time"
)

// forwards has one command lead to the database and to a service while both get other pods.
func forwards(s *scenario) {
	s.platform()
	p := s.starts(binary, "forward", "postgres:15432", "payment:18081")
	leads := func(s *scenario, sentence string) {
		s.until(time.Minute, func() string {
			if !strings.Contains(p.said.String(), sentence) {
				return "it does not say " + sentence + ": " + p.said.String()
			}
			return ""
		})
	}
	works := func(s *scenario) {
		s.types("curl -sS --fail --max-time 20 http://127.0.0.1:18081/health").ends(0).says("payment-service")
	}
	s.step("a forward leads to the service", func(s *scenario) {
		leads(s, "127.0.0.1:18081 leads to payment-service-")
		leads(s, "127.0.0.1:15432 leads to postgresql-0")
		works(s)
	})
	s.step("a port that is taken is refused with a way out", func(s *scenario) {
		s.platformctl("forward", "postgres:15432").ends(3).says("port 15432", "taken", "Try: ", "forward postgres:15433")
	})
	s.step("when its pod is deleted it says so, waits, and goes on with the next", func(s *scenario) {
		s.kubectl("-n", "apps", "delete", "pod", "-l", "app.kubernetes.io/instance=payment-service").ends(0)
		s.kubectl("-n", "database", "delete", "pod", "postgresql-0").ends(0)
		// A connection that is made while the pod's end is still on its way here may end with the pod; one a moment later must not.
		s.until(30*time.Second, func() string {
			if r := s.types("curl -sS --fail --max-time 20 http://127.0.0.1:18081/health"); r.code != 0 {
				return r.both
			}
			return ""
		})
		leads(s, "127.0.0.1:15432 is down: ")
		leads(s, "127.0.0.1:15432 is back, to postgresql-0")
		s.rolled("apps", "deployment/payment-service-payment-service-chart")
		works(s)
	})
	s.step("Ctrl-C ends it without a word", func(s *scenario) {
		s.interrupt(p)
		s.awaits(p, 10*time.Second).ends(130).never("Error", "interrupted", "stopping")
	})
}
