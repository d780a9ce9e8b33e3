package release

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"platformctl/pkg/fault"
)

func TestFaultsInValuesNameFileAndLine(t *testing.T) {
	for _, test := range []struct {
		name, values string
		want         []string // %s is the file
	}{
		{"an unknown key", "auth: {existingSecret: s}\nprimary:\n  persistence:\n    storageClassName: fast\n",
			[]string{"%s:4: the chart does not know primary.persistence.storageClassName; did you mean primary.persistence.storageClass?"}},
		{"a key in the wrong place", "persistence:\n  size: 1Gi\n",
			[]string{"%s:1: the chart does not know persistence; did you mean primary.persistence?"}},
		{"several unknown keys", "auht: {}\nprimary:\n  resorces: {}\nzzzzzz: 1\n",
			[]string{"%s:1: the chart does not know auht; did you mean auth?", "%s:3: the chart does not know primary.resorces; did you mean primary.resources?", "%s:4: the chart does not know zzzzzz\n"}},
		{"a value where a map is known", "primary: yes\n", []string{"%s:1: primary is a map in this chart, not a single value"}},
		{"a map where a value is known", "auth:\n  username: {a: b}\n", []string{"%s:2: auth.username is a single value in this chart, not a map"}},
		{"a word where a number is known", "primary:\n  service:\n    ports: {postgresql: many}\n", []string{`%s:3: primary.service.ports.postgresql is a number in this chart, not "many"`}},
		{"a word where a switch is known", "primary:\n  persistence:\n    enabled: perhaps\n", []string{`%s:3: primary.persistence.enabled is true or false in this chart, not "perhaps"`}},
		{"a value where a list is known", "primary:\n  tolerations: x\n", []string{"%s:2: primary.tolerations is a list in this chart, not a single value"}},
		{"an unknown key behind an alias", "x: &x {storageClassName: y}\nprimary: {persistence: *x}\n", []string{"the chart does not know x", "the chart does not know primary.persistence.storageClassName"}},
		{"a missing colon", "auth:\n  username: a\n  database b\nprimary: {}\n", []string{"%s:", "this is not YAML"}},
		{"a tab", "auth:\n\tusername: a\n", []string{"%s:2: this is not YAML"}},
		{"an open bracket in the first line", "auth: {username: a\nprimary: {}\n", []string{"%s:2: this is not YAML"}}, // where it is missed
		{"an open bracket", "primary: {}\nauth: {username: a\n", []string{"%s:2: this is not YAML"}},
		{"the same key twice", "auth: {}\nprimary: {}\nauth: {}\n", []string{`%s:3: this is not YAML: mapping key "auth" already defined at line 1`}},
		{"a list at the top", "- a\n", []string{"%s:1: a values file is a map at its top, not a list"}},
		{"two documents", "auth: {}\n---\nprimary: {}\n", []string{"%s:2: a values file is one YAML document"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := with(t, "postgresql", test.values)
			_, err := Render(spec)
			if err == nil {
				t.Fatal("it was accepted")
			}
			if code := fault.CodeOf(err); code != fault.CodeUsage {
				t.Errorf("the exit code is %d", code)
			}
			for _, want := range test.want {
				if strings.Contains(want, "%s") {
					want = fmt.Sprintf(want, spec.ValueFiles[0])
				}
				if !strings.Contains(err.Error()+"\n", want) {
					t.Errorf("got\n%v\nwant\n%s", err, want)
				}
			}
		})
	}
}

func TestFreeKeysAreNobodysBusiness(t *testing.T) {
	render(t, with(t, "postgresql", `
auth: {existingSecret: s, password: null}
primary:
  resources: {requests: {ephemeral-storage: 1Gi}}
  nodeSelector: {any.key/at-all: x}
  initdb: {scripts: {one.sql: SELECT 1;}}
`))
	render(t, with(t, "rabbitmq", "auth: {existingSecret: s}\nresources: {limits: {memory: 1Gi, cpu: 1}}\n"))
}

func TestAnEmptyValuesFileIsNone(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "null\n"} {
		file, err := readValues(with(t, "postgresql", text).ValueFiles[0])
		if err != nil || len(file.values) > 0 || file.problems(map[string]any{"a": 1}) != nil {
			t.Errorf("%q: %v %v", text, file, err)
		}
	}
}

func TestMissingFilesAreUsageErrors(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	for what, spec := range map[string]Spec{
		"values": {Name: "postgresql", Chart: dev("postgresql").Chart, ValueFiles: []string{nowhere}},
		"chart":  {Name: "postgresql", Chart: nowhere},
	} {
		_, err := Render(spec)
		if fault.CodeOf(err) != fault.CodeUsage || !strings.Contains(fmt.Sprint(err), nowhere) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestABrokenTemplateIsAUsageError(t *testing.T) {
	spec := dev("postgresql")
	spec.Chart = filepath.Join(t.TempDir(), "chart")
	if err := os.CopyFS(spec.Chart, os.DirFS(dev("postgresql").Chart)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(spec.Chart, "templates/service.yaml"), []byte("{{ .Nonsense }"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Render(spec)
	if fault.CodeOf(err) != fault.CodeUsage || !strings.Contains(fmt.Sprint(err), "service.yaml:1") {
		t.Errorf("got %v", err)
	}
}
