package platform

import (
	"strings"
	"testing"

	"platformctl/pkg/cluster"
	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/plan"
)

// noCluster answers for an engine that runs and has no cluster.
func noCluster() map[string]command.Answer {
	return map[string]command.Answer{
		"docker inspect": {Fail: "Error: No such object"},
		"docker ps":      {},
		"docker version": {Stdout: "28.0.0\n"},
	}
}

func TestTheStockNodeIsPulledOnce(t *testing.T) {
	stock := cluster.StockImage() // by tag and digest, which not every look finds
	engine := &command.Fake{Answers: noCluster()}
	engine.Answers["docker image inspect --format '{{.Id}}' "+stock] = command.Answer{Fail: "Error: No such image"}
	engine.Answers["docker pull --quiet "+stock] = command.Answer{Fail: "dial tcp: no route to host"}
	p := here(t, Settings{Images: Registry}, engine)
	var ref string
	err := plan.Run(t.Context(), func(plan.Event) {}, p.nodeImageStep(Registry, &ref))
	if fault.CodeOf(err) != fault.CodeUnfit || !strings.Contains(fault.CureOf(err), "--images packages") || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("without a registry: code %d, cure %q: %v", fault.CodeOf(err), fault.CureOf(err), err)
	}

	engine.Answers["docker image inspect --format '{{.Id}}' "+stock] = command.Answer{Stdout: "sha256:1"}
	if err := plan.Run(t.Context(), func(plan.Event) {}, p.nodeImageStep(Registry, &ref)); err != nil || ref != stock {
		t.Errorf("with the image in the engine: %q, %v", ref, err)
	}
}

func TestADeadEngineIsNotAMissingImage(t *testing.T) {
	engine := &command.Fake{Answers: map[string]command.Answer{"docker": {Fail: "Cannot connect to the Docker daemon"}}}
	if has, err := here(t, Settings{Images: Registry}, engine).engineHas(t.Context(), "a:b"); err == nil || has {
		t.Errorf("got %v, %v; want an error", has, err)
	}
}
