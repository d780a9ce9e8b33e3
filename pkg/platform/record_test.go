package platform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/plan"
)

func step(name string, err error, after ...*plan.Step) *plan.Step {
	done := false
	return &plan.Step{
		Name: name, After: after,
		Check: func(context.Context) (string, error) {
			if done {
				return "", nil
			}
			return "it is not there", nil
		},
		Do: func(context.Context, func(plan.Note)) error { done = err == nil; return err },
	}
}

func TestRunsAreRecorded(t *testing.T) {
	p, err := New(Settings{Cluster: "mine", State: t.TempDir(), Cache: t.TempDir()}, command.Local{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.LastRun(t.Context()); fault.CodeOf(err) != fault.CodeUnfit || fault.CureOf(err) != "platformctl up --cluster mine" {
		t.Errorf("without a run: %v, %q", err, fault.CureOf(err))
	}
	first := step("first", nil)
	shown := 0
	if err := p.recordedRun(t.Context(), "up", func(plan.Event) { shown++ }, step("second", nil, first)); err != nil {
		t.Fatal(err)
	}
	r, err := p.LastRun(t.Context())
	if err != nil || r.Command != "up" || r.Ended != "done" || len(r.Timings.Chain) != 2 || shown != 8 {
		t.Errorf("%+v, %d events, %v", r, shown, err)
	}
	no := errors.New("no")
	if err := p.recordedRun(t.Context(), "down", func(plan.Event) {}, step("second", nil, step("first", no))); !errors.Is(err, no) {
		t.Error(err)
	}
	if r, err = p.LastRun(t.Context()); err != nil || r.Command != "down" || r.Ended != "failed" || r.Failed != "first" || r.Timings.Steps != 2 {
		t.Errorf("%+v %v", r, err)
	}
	// A run that is killed leaves what it had.
	raw, err := os.ReadFile(p.recordPath())
	if err != nil {
		t.Fatal(err)
	}
	if r, err = readRun(raw[:len(raw)-40]); err != nil || r.Ended != "" || r.Command != "down" {
		t.Errorf("%+v %v", r, err)
	}
}

func TestEvidenceWithoutACluster(t *testing.T) {
	project := t.TempDir()
	values := filepath.Join(project, "values", "dev")
	if err := os.MkdirAll(values, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(values, "rabbitmq.yaml"), []byte("auth:\n  username: app\n  password: opensesame\n  existingPasswordSecret: rabbit\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := New(Settings{Cluster: "mine", Project: project, State: t.TempDir(), Cache: t.TempDir(), Version: "v9"}, command.Local{})
	if err != nil {
		t.Fatal(err)
	}
	old := func(name string) string { return filepath.Join(p.set.State, "evidence", name) }
	for i := range keptEvidence {
		if err := os.MkdirAll(old(fmt.Sprintf("mine-20250101-00000%d", i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(old("mine-too-20250101-000000"), 0o700); err != nil {
		t.Fatal(err)
	}
	err = p.recordedRun(t.Context(), "up", func(plan.Event) {}, step("image/node", errors.New("the compiler said no")))
	err = p.withEvidence(t.Context(), err)
	if err == nil {
		t.Fatal("no error")
	}
	_, dir, ok := strings.Cut(fault.CureOf(err), "are in ")
	if !ok {
		t.Fatalf("the evidence is not named: %q", fault.CureOf(err))
	}
	for name, text := range map[string]string{
		"run.jsonl": "the compiler said no", "timings.json": `"failed": "image/node"`, "versions.txt": "platformctl v9",
		"values/rabbitmq.yaml": "existingPasswordSecret: rabbit", "values/postgresql.yaml": "no such file",
	} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(raw), text) || strings.Contains(string(raw), "opensesame") {
			t.Errorf("%s: %v\n%s", name, err, raw)
		}
	}
	for name, stays := range map[string]bool{"mine-20250101-000000": false, "mine-20250101-000001": true, "mine-too-20250101-000000": true} {
		if _, err := os.Stat(old(name)); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
	usage := &plan.StepError{Step: "values", Err: fault.Usage("mend it", "bad values")}
	if err := p.withEvidence(t.Context(), usage); err != error(usage) {
		t.Errorf("evidence for how it was called: %v", err)
	}
}

func TestSecretsAreHidden(t *testing.T) {
	var v any
	if err := yaml.Unmarshal([]byte("a: {password: x, existingSecret: s, list: [{apiToken: t, name: nobody}]}\nerlangCookie: c\npasswords: [p]\n"), &v); err != nil {
		t.Fatal(err)
	}
	raw, err := yaml.Marshal(hidden(v))
	if err != nil {
		t.Fatal(err)
	}
	const want = "a:\n  existingSecret: s\n  list:\n  - apiToken: (hidden)\n    name: nobody\n  password: (hidden)\nerlangCookie: (hidden)\npasswords: (hidden)\n"
	if diff := cmp.Diff(want, string(raw)); diff != "" {
		t.Error(diff)
	}
}
