//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// record is the shell's word for the file with the record of the last run.
const record = `${PLATFORMCTL_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/platformctl}/clusters/` + clusterName + `.run.jsonl`

func fromNothing(s *scenario) {
	var next string
	var up *run
	s.step("up on a machine without a cluster comes through and says what to type next", func(s *scenario) {
		r := s.platformctl("up", "--api-port", apiPort).ends(0).says("The platform is up: http://")
		s.t.Logf("up took %s", r.took)
		up = r
		s.up = true
		said := strings.Split(strings.TrimSpace(r.stdout), "\n")
		line, ok := strings.CutPrefix(said[len(said)-1], "Next: ")
		if !ok || !strings.HasPrefix(line, binary+" order ") {
			s.t.Fatalf("the last line is %q, want Next: %s order …", said[len(said)-1], binary)
		}
		next = line
	})
	s.check("it also said what it did to the user's kubeconfig, and that the new context is the current one", func(s *scenario) {
		for _, text := range []string{contextName, s.kubeconfig, "current"} {
			if !strings.Contains(up.both, text) {
				s.t.Errorf("it does not say %q:\n%s", text, up)
			}
		}
	})
	s.check("timings tells where the time went, and the record keeps to the stream's schema", func(s *scenario) {
		s.platformctl("timings").ends(0).says("up took ", "cluster", "release/", "api")
		var last struct {
			Command, Ended string
			Timings        struct {
				TookMS int64
				Chain  []struct {
					Step   string
					TookMS int64
				}
			}
		}
		s.platformctl("timings", "-o", "json").ends(0).decodes(&last)
		var sum int64
		for _, l := range last.Timings.Chain {
			sum += l.TookMS
		}
		// What the chain does not explain is what nobody waited for; it is a matter of milliseconds.
		if last.Command != "up" || last.Ended != "done" || sum < last.Timings.TookMS*9/10 || sum > last.Timings.TookMS+100 {
			s.t.Errorf("the steps of the chain take %d ms of %d: %+v", sum, last.Timings.TookMS, last)
		}
		recorded := s.keepsToTheSchema(s.types(`cat "` + record + `"`).ends(0).stdout)
		if recorded["run"] != 1 || recorded["planned"] == 0 || recorded["planned"] != recorded["already"]+recorded["done"] {
			s.t.Errorf("the record is not whole: %v", recorded)
		}
	})
	s.check("the servers' images were in the node from its beginning, which is linked and not copied", func(s *scenario) {
		s.types(`docker exec ` + node + ` findmnt --noheadings --output SOURCE /var/lib/containerd`).ends(0).says("/nodes/" + node)
		s.types(`docker exec ` + node + ` find /var/lib/containerd/io.containerd.content.v1.content/blobs -type f -links +1`).ends(0).says("/sha256/")
		for _, server := range []string{"postgresql", "rabbitmq"} {
			s.types(`grep load/` + server + ` "` + record + `"`).ends(0).says(`"already"`).never(`"done"`)
		}
	})
	s.step("that line, typed as it stands, places order 1, which ends CONFIRMED", func(s *scenario) {
		s.types(next).ends(0).says("order 1 is ", "CONFIRMED", "SUCCEEDED")
	})
	s.step("an order by the command in JSON has the fields of GET /orders/{id}", func(s *scenario) {
		r := s.platformctl("order", "--show", "1", "--qty", "3", "-o", "json").ends(0)
		var fields map[string]any
		r.decodes(&fields)
		if got := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, orderFields) {
			s.t.Errorf("the fields are %v, want %v", got, orderFields)
		}
		var o order
		r.decodes(&o)
		if o.ShowID != 1 || o.Quantity != 3 || o.OrderID < 2 {
			s.t.Errorf("it is not the order that was placed: %+v", o)
		}
		if amiss := o.whole(); amiss != "" {
			s.t.Error(amiss)
		}
		var same order
		s.types(fmt.Sprintf("curl -sS --fail %s/orders/%d", api, o.OrderID)).ends(0).decodes(&same)
		if !same.CreatedAt.Equal(o.CreatedAt) || same.Status != o.Status || *same.Amount != *o.Amount {
			s.t.Errorf("GET /orders/%d shows %+v, the command %+v", o.OrderID, same, o)
		}
	})
	s.step("an order by curl, as it was always placed, is accepted and ends", func(s *scenario) {
		r := s.types(`curl -sS -X POST http://localhost:` + apiPort + `/orders -H "Content-Type: application/json" -d '{"userId":123,"showId":1,"quantity":2}'`).ends(0)
		var said struct {
			Status  string          `json:"status"`
			OrderID json.RawMessage `json:"orderId"`
		}
		r.decodes(&said)
		var id int
		if err := json.Unmarshal(said.OrderID, &id); err != nil || said.Status != "accepted" {
			s.t.Fatalf("the answer is %s (%v)", r.stdout, err)
		}
		if o := s.ended(id); o.Quantity != 2 || o.ShowID != 1 {
			s.t.Errorf("it is not the order that was placed: %+v", o)
		}
	})
	s.step("a user's id may be a number or a string, and is kept as text", func(s *scenario) {
		for _, user := range []string{`"someone@example.org"`, `9007199254740993`} {
			a, err := post(s.ctx, client(), fmt.Appendf(nil, `{"userId":%s,"showId":1,"quantity":1}`, user))
			if err != nil {
				s.t.Fatal(err)
			}
			id, err := accepted(a)
			if err != nil {
				s.t.Fatal(err)
			}
			s.ended(id)
			if kept := s.sql(fmt.Sprintf("SELECT user_id FROM orders WHERE id = %d", id)); len(kept) != 1 || kept[0] != strings.Trim(user, `"`) {
				s.t.Errorf("the user %s is kept as %q", user, kept)
			}
		}
	})
}

func upAgain(s *scenario) {
	s.platform()
	s.step("a second up changes nothing and says so", func(s *scenario) {
		before := s.snapshot()
		r := s.platformctl("up").ends(0).says("already", "The platform is up: http://").never("done ", "working ")
		s.t.Logf("the second up took %s", r.took)
		s.same(before)
	})
	s.check("so does one from a folder below, by the whole path of the program, and in JSON it says so line by line", func(s *scenario) {
		before := s.snapshot()
		r := s.types(`cd charts/rabbitmq && "$OLDPWD"/` + binary + ` up --progress json 2>&1 >/dev/null`).ends(0)
		if s.keepsToTheSchema(r.stdout)["doing"] > 0 {
			s.t.Error("something was done again")
		}
		s.same(before)
	})
	s.check("a dry run has nothing to tell, and tells of what somebody does to the cluster; up puts that right", func(s *scenario) {
		s.platformctl("up", "--dry-run").ends(0).says("nothing to do")
		s.kubectl("-n", "apps", "scale", "deployment/payment-service-payment-service-chart", "--replicas=2").ends(0)
		s.kubectl("-n", "messaging", "delete", "service", "rabbitmq").ends(0)
		before := s.releases()
		s.platformctl("up", "--dry-run").ends(0).says("payment-service-payment-service-chart spec.replicas is 2, 1 is wanted", "service/rabbitmq is gone")
		if now := s.releases(); !maps.Equal(before, now) {
			s.t.Errorf("the dry run changed the releases:\n%s\nto\n%s", lines(before), lines(now))
		}
		var all []struct{ Step, Intent string }
		s.platformctl("up", "--dry-run", "-o", "json").ends(0).decodes(&all)
		for _, f := range all {
			if differs := f.Step == "release/payment-service" || f.Step == "release/rabbitmq"; differs != (f.Intent == "change") && f.Step != "api" {
				s.t.Errorf("of %s it says %s", f.Step, f.Intent)
			}
		}
		s.platformctl("up").ends(0).says("spec.replicas is 2")
		s.platformctl("up", "--dry-run").ends(0).says("nothing to do")
		s.kubectl("-n", "apps", "patch", "configmap", "payment-service-config", "-p", `{"data":{"PAYMENT_DELAY_MS":"77"}}`).ends(0)
		s.platformctl("up", "--dry-run").ends(0).says("configmap apps/payment-service-config: data.PAYMENT_DELAY_MS is 77, 0 is wanted")
		s.platformctl("up").ends(0).says("payment-service-config")
		s.platformctl("up", "--dry-run").ends(0).says("nothing to do")
		s.ended(s.places(1, 1))
	})
	s.check("the context is added to another file on request, and a current context of the user's stays it", func(s *scenario) {
		s.platformctl("up", "--kubeconfig", s.other).ends(0)
		s.types("kubectl get nodes", "KUBECONFIG="+s.other).ends(0).says(node)
		s.types("sed -i 's/^current-context: .*/current-context: production/' " + s.kubeconfig).ends(0)
		s.platformctl("up").ends(0)
		if got := strings.TrimSpace(s.kubectl("config", "current-context").ends(0).stdout); got != "production" {
			s.t.Errorf("the current context was production and is %s", got)
		}
		s.types("sed -i 's/^current-context: .*/current-context: " + contextName + "/' " + s.kubeconfig).ends(0)
		s.foreignContextStands()
	})
}

// keepsToTheSchema holds each line of a stream of events to the schema that users read, and counts the events by what they tell.
func (s *scenario) keepsToTheSchema(lines string) map[string]int {
	s.t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile(filepath.Join(s.checkout, "docs", "events.schema.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	counts := map[string]int{}
	for line := range strings.Lines(lines) {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			s.t.Errorf("%s%v", line, err)
			continue
		}
		counts[value.(map[string]any)["event"].(string)]++
	}
	if len(counts) == 0 {
		s.t.Error("there are no events")
	}
	return counts
}
