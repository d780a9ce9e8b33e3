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

func TestNoNodeIsNoFault(t *testing.T) {
	for name, answers := range map[string]map[string]command.Answer{
		"no cluster": noCluster(), "no engine": {"docker": {Fail: "Cannot connect to the Docker daemon"}},
	} {
		if name == "no cluster" {
			answers["docker image ls"] = command.Answer{}
		}
		if all, err := here(t, Settings{Images: Registry}, &command.Fake{Answers: answers}).Images(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("%s: %v, %v", name, all, err)
		}
	}
}

func TestTheNodesOwnImagesAreNotListedApart(t *testing.T) {
	got := loaded([]cluster.NodeImage{
		{Ref: "docker.io/kindest/kindnetd:v1", Size: 1}, {Ref: "docker.io/library/postgres:17", Size: 2}, {Ref: "platformctl.local/kubenode:v1", Size: 3},
		{Ref: "platformctl.local/order-api:a", Size: 4}, {Ref: "registry.k8s.io/pause:3", Size: 5},
	})
	if len(got) != 2 || got[0] != (CachedImage{Ref: "docker.io/library/postgres:17", Where: "node", Size: 2}) || got[1].Ref != "platformctl.local/order-api:a" {
		t.Errorf("got %v", got)
	}
}
