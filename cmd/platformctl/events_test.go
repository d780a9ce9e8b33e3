package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"platformctl/pkg/fault"
)

// keepsToTheSchema holds each line to docs/events.schema.json.
func keepsToTheSchema(t *testing.T, lines string) {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile(filepath.Join("..", "..", "docs", "events.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(lines) {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			t.Errorf("%s%v", line, err)
		}
	}
}

func TestTheStreamKeepsToItsSchema(t *testing.T) {
	for _, err := range []error{nil, errors.New("no"), fault.Unfit("platformctl doctor --fix", "there is no engine")} {
		r := call(t, &fakePlatform{mendNotes: []string{"apt-get update"}, err: err}, "up", "--project", project(t), "--progress", "json")
		if r.code != fault.CodeOf(err) || (r.out != "") != (err == nil) || strings.Count(r.err, "apt-get update") != 1 {
			t.Errorf("exit code %d, %q, %s", r.code, r.out, r.err)
		}
		keepsToTheSchema(t, r.err)
		if told := strings.Contains(r.err, `"event":"error"`); told != (err != nil) {
			t.Errorf("the error is an event: %v\n%s", told, r.err)
		}
	}
}
