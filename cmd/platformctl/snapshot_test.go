package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"platformctl/pkg/fault"
)

func TestSnapshotWithWrongNames(t *testing.T) {
	state := t.TempDir()
	env := map[string]string{"PLATFORMCTL_STATE": state}
	for _, name := range []string{"demo", "seed"} { // broken ones, for they have no manifest
		if err := os.MkdirAll(filepath.Join(state, "snapshots", "platform", name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args string
		says []string
	}{
		{"restore nosuch", []string{`there is no snapshot "nosuch"`, "use one of: ", "demo", "seed"}},
		{"restore sed", []string{`there is no snapshot "sed"`, "seed, demo"}},
		{"rm nosuch", []string{`there is no snapshot "nosuch"`, "demo"}},
		{"rm demo nosuch", []string{`there is no snapshot "nosuch"`}},
		{"restore ../demo", []string{`"../demo" is no name`}},
		{"save Demo!", []string{`"Demo!" is no name`, "Try:   bin/platformctl snapshot save"}},
		{"save .new-x", []string{"is no name"}},
		{"save", []string{"one name"}},
		{"restore a b", []string{"one name"}},
		{"rm", []string{"one name or several"}},
		{"lst", []string{`no command "lst"`}},
	} {
		f := &fakePlatform{}
		r := callWith(t, f, env, nil, append([]string{"snapshot"}, strings.Fields(c.args)...)...)
		if r.code != fault.CodeUsage || len(f.calls) > 0 {
			t.Errorf("%s: exit code %d, %q", c.args, r.code, f.calls)
		}
		for _, text := range c.says {
			if !strings.Contains(r.err, text) {
				t.Errorf("%s: it does not say %q: %s", c.args, text, r.err)
			}
		}
	}
	if r := callWith(t, &fakePlatform{}, env, nil, "snapshot", "restore", "demo"); r.code != fault.CodeFailed || !strings.Contains(r.err, "it has no manifest.json") {
		t.Errorf("a broken one: exit code %d, %s", r.code, r.err)
	}
	var listed []listedSnapshot
	r := callWith(t, &fakePlatform{}, env, nil, "snapshot", "ls", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &listed); err != nil || len(listed) != 2 || listed[0].Name != "demo" || listed[0].Broken == "" {
		t.Errorf("%v %s", err, r.out)
	}
	if r := callWith(t, &fakePlatform{}, env, nil, "__complete", "snapshot", "restore", ""); r.code != 0 || !strings.HasPrefix(r.out, "demo\nseed\n") {
		t.Errorf("it completes to %q, exit code %d", r.out, r.code)
	}
	if r := callWith(t, &fakePlatform{}, env, nil, "snapshot", "rm", "demo", "seed"); r.code != 0 {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	if r := callWith(t, &fakePlatform{}, env, nil, "snapshot", "ls"); r.code != 0 || r.out != "" || !strings.Contains(r.err, "there are no snapshots") {
		t.Errorf("exit code %d: %s %s", r.code, r.out, r.err)
	}
}

func TestSnapshotSaysWhatItDid(t *testing.T) {
	f := &fakePlatform{}
	if r := call(t, f, "snapshot", "save", "demo"); r.code != 0 || r.out != "saved as demo: 1 order, 1 of them without an end, 0 dead letters\n" || !slices.Equal(f.calls, []string{"save demo"}) {
		t.Errorf("exit code %d, %q, %s %s", r.code, f.calls, r.out, r.err)
	}
}
