//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// deployed is what `platformctl deploy -o json` says of a service.
type deployed struct {
	Service string `json:"service"`
	Image   string `json:"image"`
	Changed bool   `json:"changed"`
	BuildMS int    `json:"buildMilliseconds"`
	LoadMS  int    `json:"loadMilliseconds"`
	RollMS  int    `json:"rollMilliseconds"`
}

// saying changes what both services log first.
func saying(words string) func(string) string {
	return func(was string) string {
		return strings.Replace(was, `s.Log.InfoContext(ctx, "serving",`, fmt.Sprintf(`s.Log.InfoContext(ctx, %q,`, words), 1)
	}
}

func deploys(s *scenario) {
	s.platform()
	checkout := s.copyCheckout()
	daemon := filepath.Join(checkout, "pkg/daemon/daemon.go")
	serve := filepath.Join(checkout, "cmd/order-api/serve.go")
	before := s.snapshot()
	s.step("what runs as the checkout has it is left alone", func(s *scenario) {
		var all []deployed
		s.platformctl("deploy", "--project", checkout, "-o", "json").ends(0).decodes(&all)
		if len(all) != 2 || all[0].Changed || all[1].Changed {
			s.t.Errorf("something was deployed: %+v", all)
		}
		s.same(before)
	})
	s.step("one changed line is deployed while orders come in, and none of them fails", func(s *scenario) {
		c := s.crowd(2, 20*time.Millisecond, func(int) []byte { return wanted(1, 1) })
		s.with(daemon, saying("serving anew"), func() {
			r := s.platformctl("deploy", "order", "--project", checkout).ends(0).says("order-api: build ", ", load ", ", roll ")
			s.t.Logf("%s (%s in all)", strings.TrimSpace(r.stdout), r.took.Round(time.Millisecond))
			s.platformctl("logs", "order", "--tail", "20").ends(0).says("serving anew")
		})
		// The pod before it takes requests for some seconds yet; its end is part of a deployment too.
		s.until(30*time.Second, func() string {
			if pods := strings.Fields(s.kubectl("-n", "apps", "get", "pods", "-l", "app.kubernetes.io/instance=order-api", "-o", "name").ends(0).stdout); len(pods) > 1 {
				return "the pod before it is still there"
			}
			return ""
		})
		c.dismiss()
		if n := len(c.refusals()); n > 0 {
			s.t.Errorf("orders were not taken while the pod was replaced: %v", c.refusals())
		}
		s.allEnd(c.orders())
		after := s.snapshot()
		for name, state := range before.releases {
			if changed := after.releases[name] != state; changed != (name == "apps/order-api") {
				s.t.Errorf("release %s was %s and is %s", name, state, after.releases[name])
			}
		}
	})
	s.step("a program that crashes is told with its last lines, at once, and the pod before it goes on serving", func(s *scenario) {
		boom := func(was string) string {
			return strings.Replace(was, "var base daemon.Base\n", "panic(\"no seats in \" + name)\n\tvar base daemon.Base\n", 1)
		}
		s.with(serve, boom, func() {
			s.platformctl("deploy", "order", "--project", checkout).ends(1).within(60*time.Second).
				says("exit code 2", "panic: no seats in order-api", "goroutine 1", "goes on serving", "Try: ", "platformctl deploy order")
			s.ended(s.places(1, 1))
			s.check("so it is when it is tried again", func(s *scenario) {
				s.platformctl("deploy", "order", "--project", checkout).ends(1).says("panic: no seats in order-api", "goes on serving")
			})
		})
	})
	s.step("mended, it is deployed all the same", func(s *scenario) {
		s.platformctl("deploy", "order", "--project", checkout).ends(0).says("order-api: ")
		s.ended(s.places(1, 1))
		if after := s.snapshot(); after.releases["apps/payment-service"] != before.releases["apps/payment-service"] {
			s.t.Error("payment-service was touched")
		}
		// Rolled out were the one before, the one with a changed line, the crashing one and this.
		held := s.types(`docker exec ` + node + ` ctr -n k8s.io images ls -q | grep /order-api:`).ends(0).stdout
		if n := len(strings.Fields(held)); n != 2 {
			s.t.Errorf("the node keeps %d images of order-api, not this one and the one before:\n%s", n, held)
		}
	})
	s.check("a value that a service refuses, and code that does not compile, change nothing for who orders", func(s *scenario) {
		s.with(filepath.Join(checkout, "values/dev/payment-service.yaml"), more("\nenv:\n  LOG_LEVEL: nonsense\n"), func() {
			s.platformctl("deploy", "payment", "--project", checkout).ends(1).says("LOG_LEVEL", "goes on serving")
			s.platformctl("up", "--project", checkout).ends(1).within(60*time.Second).says("LOG_LEVEL", "exit code 78", "correct it in ")
		})
		was := s.snapshot()
		s.with(daemon, more("\nvar broken = nothingOfTheKind\n"), func() {
			s.platformctl("deploy", "--project", checkout).ends(1).says("pkg/daemon/daemon.go:", "undefined: nothingOfTheKind")
		})
		s.same(was)
		s.platformctl("up", "--project", checkout).ends(0).says("release/payment-service")
		s.ended(s.places(1, 1))
	})
	s.check("what cannot be deployed is refused with what can", func(s *scenario) {
		s.platformctl("deploy", "nosuch").ends(2).says("nosuch", "Try: ", "order, payment")
		s.types(binary+" deploy order --cluster "+clusterName+"-none", "PLATFORMCTL_STATE="+s.t.TempDir()).ends(3).says("not running", "platformctl up")
	})
}

func develops(s *scenario) {
	s.platform()
	checkout := s.copyCheckout()
	daemon := filepath.Join(checkout, "pkg/daemon/daemon.go")
	saysOf := func(s *scenario, dev *process, texts ...string) {
		s.t.Helper()
		s.until(60*time.Second, func() string {
			said := dev.said.String()
			for _, text := range texts {
				if !strings.Contains(said, text) {
					return fmt.Sprintf("dev does not say %q:\n%s", text, said)
				}
			}
			return ""
		})
	}
	s.step("begun where the code does not compile it shows why, and once it does, deploys what was edited while it was off", func(s *scenario) {
		s.with(daemon, saying("serving what was edited"), func() {
			var dev *process
			s.with(daemon, more("\nvar broken = nothingOfTheKind\n"), func() {
				dev = s.starts(binary, "dev", "order", "--project", checkout)
				saysOf(s, dev, "undefined: nothingOfTheKind", "what is saved is deployed")
			})
			saysOf(s, dev, `"msg":"serving what was edited"`)
			s.interrupt(dev)
			s.awaits(dev, 20*time.Second).ends(130)
		})
		s.platformctl("deploy", "order", "--project", checkout).ends(0).says("order-api: ")
	})
	dev := s.starts(binary, "dev", "order", "--project", checkout)
	says := func(s *scenario, texts ...string) {
		s.t.Helper()
		saysOf(s, dev, texts...)
	}
	s.step("dev finds nothing to do, and does not tell again what the pod said before", func(s *scenario) {
		says(s, "order-api: already runs as the checkout has it")
		if said := dev.said.String(); strings.Contains(said, `"msg":"serving"`) {
			s.t.Errorf("it says\n%s", said)
		}
	})
	s.step("a saved line is deployed, and the new pod's log comes with it from the first line on", func(s *scenario) {
		s.with(daemon, saying("serving what was saved"), func() {
			says(s, "order-api: build ", `"msg":"serving what was saved"`, "order-api-order-api-chart-")
			s.check("code that does not compile is shown, and changes nothing", func(s *scenario) {
				before := s.releases()
				s.with(daemon, more("\nvar broken = nothingOfTheKind\n"), func() {
					says(s, "undefined: nothingOfTheKind", "what is saved is deployed")
				})
				s.ended(s.places(1, 1))
				if after := s.releases(); after["apps/order-api"] != before["apps/order-api"] {
					s.t.Errorf("the release was %s and is %s", before["apps/order-api"], after["apps/order-api"])
				}
			})
		})
	})
	s.step("saved as it was, it is deployed as it was", func(s *scenario) {
		s.until(60*time.Second, func() string {
			if n := strings.Count(dev.said.String(), "order-api: build "); n < 2 {
				return fmt.Sprintf("there were %d deployments:\n%s", n, dev.said)
			}
			return ""
		})
		s.ended(s.places(1, 1))
	})
	s.step("Ctrl-C ends it, and what runs goes on", func(s *scenario) {
		s.interrupt(dev)
		s.awaits(dev, 20*time.Second).ends(130)
		s.ended(s.places(1, 1))
	})
}
