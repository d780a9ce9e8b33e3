package platform

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"platformctl/pkg/cluster"
	"platformctl/pkg/command"
	"platformctl/pkg/image"
	"platformctl/pkg/plan"
)

// saver is an engine whose docker save writes a file.
type saver struct{ *command.Fake }

func (s saver) Run(ctx context.Context, c command.Command) ([]byte, error) {
	if len(c.Args) > 2 && c.Args[0] == "save" {
		if err := os.WriteFile(c.Args[2], []byte("the node"), 0o644); err != nil {
			return nil, err
		}
	}
	return s.Fake.Run(ctx, c)
}

// What was pulled here is carried to a machine where nothing can be pulled, in whose engine it cannot have its own name.
func TestTheStockNodeIsCarried(t *testing.T) {
	stock := cluster.StockImage()
	inspect := "docker image inspect --format '{{.Id}}' "
	note := func(plan.Note) {}

	there := saver{&command.Fake{Answers: noCluster()}}
	there.Answers[inspect] = command.Answer{Fail: "Error: No such image"}
	from := here(t, Settings{Images: Registry}, there)
	if err := from.keepStock(t.Context(), note); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := from.stockKept(t.Context()); err != nil || ok {
		t.Errorf("it is kept though the engine has not got it: %v", err)
	}
	for _, line := range []string{"docker tag " + stock, "docker save"} {
		there.Answers[line] = command.Answer{}
	}
	there.Answers[inspect] = command.Answer{Stdout: "sha256:1\n"}
	if err := from.keepStock(t.Context(), note); err != nil {
		t.Fatal(err)
	}
	if ref, err := from.stockRef(t.Context()); err != nil || ref != stock {
		t.Errorf("where the engine has it, it is called %q (%v)", ref, err)
	}
	kept, ok, err := from.stockKept(t.Context())
	if err != nil || !ok || kept.ID != "sha256:1" {
		t.Fatalf("kept %v: %+v %v", ok, kept, err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := from.cache.Export(t.Context(), file, []string{stockKey()}, func(image.Note) {}); err != nil {
		t.Fatal(err)
	}

	elsewhere := &command.Fake{Answers: noCluster()}
	elsewhere.Answers[inspect] = command.Answer{Fail: "Error: No such image"}
	elsewhere.Answers["docker load"] = command.Answer{}
	to := here(t, Settings{Images: Registry}, elsewhere)
	if _, err := to.LoadImages(t.Context(), file, func(plan.Event) {}); err != nil {
		t.Fatal(err)
	}
	var ref string
	step := to.nodeImageStep(Registry, &ref)
	if why, err := step.Check(t.Context()); err != nil || why == "" || ref != kept.Ref {
		t.Errorf("%q is to be loaded since %q (%v), want %q", ref, why, err, kept.Ref)
	}
	if err := step.Do(t.Context(), note); err != nil {
		t.Error(err)
	}
	if runs := elsewhere.Runs(); !slices.Contains(runs, "docker load --quiet") || slices.ContainsFunc(runs, func(line string) bool { return strings.HasPrefix(line, "docker pull") }) {
		t.Errorf("it ran %q", runs)
	}
}
