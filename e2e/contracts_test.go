//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"
)

// contracts are the commands of the platform that this one replaces, to the letter, with the user's own kubeconfig.
func contracts(s *scenario) {
	s.platform()
	s.check("the new context is the current one, for there was none, and all else in the kubeconfig stands", func(s *scenario) {
		if got := s.kubectl("config", "current-context").ends(0).stdout; strings.TrimSpace(got) != contextName {
			s.t.Errorf("the current context is %q, want %s", got, contextName)
		}
		s.foreignContextStands()
	})
	s.check("the four releases are deployed in their namespaces", func(s *scenario) {
		var got []string
		for name, state := range s.releases() {
			if !strings.HasSuffix(state, " deployed") {
				s.t.Errorf("%s is %s", name, state)
			}
			got = append(got, name)
		}
		want := []string{"apps/order-api", "apps/payment-service", "database/postgresql", "messaging/rabbitmq"}
		if slices.Sort(got); !slices.Equal(got, want) {
			s.t.Errorf("the releases are %v, want %v", got, want)
		}
	})
	for _, line := range []string{
		"kubectl -n apps logs deploy/order-api-order-api-chart --tail=50",
		"kubectl -n apps logs deploy/payment-service-payment-service-chart --tail=50",
	} {
		s.check(line, func(s *scenario) {
			if r := s.types(line).ends(0); strings.TrimSpace(r.stdout) == "" {
				s.t.Error("there is no line")
			}
		})
	}
	s.check("psql in postgresql-0 asks no password and lists the three shows", func(s *scenario) {
		s.types(`kubectl exec -n database -it postgresql-0 -- psql -U postgresdb -d postgresdb -c "SELECT id, name FROM shows;"`).ends(0).
			says("1 | Rock Festival 2025", "2 | Tech Conference Keynote", "3 | Standup Night", "(3 rows)").never("assword")
	})
	s.check("the shows have the seats that they always had", func(s *scenario) {
		if got, want := s.sql("SELECT id, capacity FROM shows ORDER BY id"), []string{"1|5000", "2|800", "3|120"}; !slices.Equal(got, want) {
			s.t.Errorf("the shows are %q, want %q", got, want)
		}
	})
	s.check("order-api can be forwarded to 8080, or where that is taken to another port", func(s *scenario) {
		forward := "kubectl -n apps port-forward deploy/order-api-order-api-chart 8080:8080"
		if !free("127.0.0.1:8080") && !free("[::1]:8080") {
			forward = strings.Replace(forward, "8080:", ":", 1)
		}
		s.healthy(forward, "order-api")
	})
	s.check("payment-service can be forwarded too, and lists its payments", func(s *scenario) {
		forward := "kubectl -n apps port-forward deploy/payment-service-payment-service-chart :8081"
		address := s.healthy(forward, "payment-service")
		var payments []struct {
			OrderID int    `json:"order_id"`
			Status  string `json:"status"`
		}
		s.types("curl -sS --fail http://" + address + "/payments").ends(0).decodes(&payments)
		if len(payments) == 0 || len(payments) > 50 {
			s.t.Errorf("it lists %d payments", len(payments))
		}
	})
	s.check("the ConfigMaps and Secrets have the names that services rely on", func(s *scenario) {
		for namespace, names := range map[string][]string{
			"apps": {
				"configmap/rabbitmq-config-apps", "configmap/postgresql-config-apps", "configmap/payment-service-config",
				"secret/rabbitmq-credentials-apps", "secret/postgresql-credentials-apps",
			},
			"messaging": {"configmap/rabbitmq-config-messaging", "secret/rabbitmq-credentials-messaging"},
			"database":  {"configmap/postgresql-config-database", "secret/postgresql-credentials-database"},
		} {
			s.kubectl(append([]string{"-n", namespace, "get"}, names...)...).ends(0)
		}
		for secret, keys := range map[string][]string{
			"rabbitmq-credentials-apps":   {"RABBITMQ_USERNAME", "RABBITMQ_PASSWORD"},
			"postgresql-credentials-apps": {"DB_USER", "DB_PASSWORD"},
		} {
			var held struct {
				Data map[string]string `json:"data"`
			}
			s.kubectl("-n", "apps", "get", "secret", secret, "-o", "json").ends(0).decodes(&held)
			for _, key := range keys {
				if held.Data[key] == "" {
					s.t.Errorf("the Secret %s has %v, and no %s", secret, slices.Sorted(maps.Keys(held.Data)), key)
				}
			}
		}
	})
	s.check("an INSERT that names only the old columns works and cannot oversell", func(s *scenario) {
		old := `INSERT INTO orders (user_id, show_id, quantity, status) VALUES ('old', 2, 1, 'PENDING') RETURNING id \gset
			INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at)
			SELECT 2, :id, %d + 800 - coalesce(sum(quantity), 0), 'RESERVED', now() + interval '1 minute'
			FROM inventory_reservations WHERE show_id = 2 AND status IN ('RESERVED', 'COMMITTED');
			ROLLBACK;`
		s.oldInsert(fmt.Sprintf(old, 0)).ends(0)
		if r := s.oldInsert(fmt.Sprintf(old, 1)); r.code == 0 {
			s.t.Error("one seat more than the show has was reserved")
		}
		s.consistent()
	})
}

// oldInsert runs statements as an old service would, in one transaction.
func (s *scenario) oldInsert(statements string) *run {
	s.t.Helper()
	return s.types("printf '%s' \"$STATEMENT\" | kubectl exec -i -n database postgresql-0 -- psql -U postgresdb -d postgresdb -X -v ON_ERROR_STOP=1",
		"STATEMENT=BEGIN;\n"+statements)
}

// foreignContextStands fails where up or down touched what the user had in the kubeconfig.
func (s *scenario) foreignContextStands() {
	s.t.Helper()
	r := s.types("cat " + s.kubeconfig).ends(0)
	mine := strings.SplitAfter(theirs, "\n")
	rest := r.stdout
	for _, line := range mine {
		_, after, ok := strings.Cut(rest, line)
		if !ok {
			s.t.Fatalf("the user's line %q is gone, or stands elsewhere", line)
		}
		rest = after
	}
}

// free tells whether an address can be listened on.
func free(address string) bool {
	listener, err := net.Listen("tcp", address)
	return err == nil && listener.Close() == nil
}

var forwarding = regexp.MustCompile(`Forwarding from (\S+:\d+) ->`)

// healthy runs a port-forward until the step ends, and returns its address when the service behind it says that it is well.
func (s *scenario) healthy(forward, service string) (address string) {
	s.t.Helper()
	words := strings.Fields(forward)
	p := s.starts(words[0], words[1:]...)
	s.until(20*time.Second, func() string {
		if found := forwarding.FindStringSubmatch(p.said.String()); found != nil {
			address = found[1]
			return ""
		}
		return forward + " says: " + p.said.String()
	})
	var said struct {
		Status  string `json:"status"`
		Service string `json:"service"`
	}
	s.types("curl -sS --fail http://" + address + "/health").ends(0).decodes(&said)
	if said.Status != "ok" || said.Service != service {
		s.t.Errorf("/health of %s says %+v", service, said)
	}
	return address
}
