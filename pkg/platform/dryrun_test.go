package platform

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"platformctl/pkg/cluster"
	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/plan"
	"platformctl/pkg/release"
)

func TestForesee(t *testing.T) {
	p := here(t, Settings{Images: Packages}, &command.Fake{})
	p.details = map[string]release.Difference{
		"release/order-api": {Revision: 3, Lines: []string{"values: env.LOG_LEVEL is info, debug is wanted"}, Restarts: []string{"deployment/order-api"}},
		"namespaces":        {Lines: []string{"namespace apps is missing"}},
		"configmaps":        {Lines: []string{"configmap apps/a is missing", "configmap apps/b: X is 1, 2 is wanted"}},
	}
	for name, test := range map[string]struct {
		found plan.Finding
		phase cluster.Phase
		want  Foresight
	}{
		"what holds":              {plan.Finding{Step: "api"}, cluster.Running, Foresight{Intent: Keep}},
		"an image that is built":  {plan.Finding{Step: "image/node", Why: "w"}, cluster.Absent, Foresight{Intent: Build, Why: "w"}},
		"no cluster":              {plan.Finding{Step: "cluster", Why: "it is absent"}, cluster.Absent, Foresight{Intent: Create, Why: "it is absent"}},
		"half a cluster":          {plan.Finding{Step: "cluster", Why: "w"}, cluster.Half, Foresight{Intent: Create, Why: "w"}},
		"one that is stopped":     {plan.Finding{Step: "cluster", Why: "it is stopped"}, cluster.Stopped, Foresight{Intent: Start, Why: "it is stopped"}},
		"in a cluster to be made": {plan.Finding{Step: "release/rabbitmq", Until: "cluster"}, cluster.Absent, Foresight{Intent: Create, Why: "there is no cluster yet"}},
		"an image for it":         {plan.Finding{Step: "load/rabbitmq", Until: "cluster"}, cluster.Absent, Foresight{Intent: Load, Why: "there is no cluster yet"}},
		"in one that is stopped":  {plan.Finding{Step: "release/rabbitmq", Until: "cluster"}, cluster.Stopped, Foresight{Intent: Unknown, Until: "cluster"}},
		"a release that differs": {plan.Finding{Step: "release/order-api", Why: "w"}, cluster.Running,
			Foresight{Intent: Change, Why: "w", Differs: p.details["release/order-api"].Lines, Restarts: []string{"deployment/order-api"}}},
		"one whose pods are on their way": {plan.Finding{Step: "release/rabbitmq", Why: "w"}, cluster.Running, Foresight{Intent: Wait, Why: "w"}},
		"objects that are missing":        {plan.Finding{Step: "namespaces", Why: "w"}, cluster.Running, Foresight{Intent: Create, Why: "w", Differs: p.details["namespaces"].Lines}},
		"objects that differ":             {plan.Finding{Step: "configmaps", Why: "w"}, cluster.Running, Foresight{Intent: Change, Why: "w", Differs: p.details["configmaps"].Lines}},
		"a machine that lacks something":  {plan.Finding{Step: "host/docker", Why: "w"}, cluster.Absent, Foresight{Intent: Refuse, Why: "w", Cure: "platformctl doctor --fix"}},
		"a refusal": {plan.Finding{Step: "volumes", Err: fault.Usage("take it back", "it would shrink")}, cluster.Running,
			Foresight{Intent: Refuse, Why: "it would shrink", Cure: "take it back"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.want.Step = test.found.Step
			got, err := p.foresee(t.Context(), test.found, test.phase)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	broken := errors.New("the API server does not answer")
	if _, err := p.foresee(t.Context(), plan.Finding{Step: "volumes", Err: broken}, cluster.Running); !errors.Is(err, broken) {
		t.Errorf("a look that failed: %v", err)
	}
}

func TestRefused(t *testing.T) {
	if err := Refused([]Foresight{{Step: "api", Intent: Wait}}); err != nil {
		t.Error(err)
	}
	for step, code := range map[string]int{"volumes": fault.CodeUsage, "values": fault.CodeUsage, "host/docker": fault.CodeUnfit, "port": fault.CodeUnfit} {
		err := Refused([]Foresight{{Step: "api", Intent: Keep}, {Step: step, Intent: Refuse, Why: "no", Cure: "c"}})
		if fault.CodeOf(err) != code || fault.CureOf(err) != "c" {
			t.Errorf("%s: %v", step, err)
		}
	}
}
