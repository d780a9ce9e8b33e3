package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

const noSysResource = 0x1fffeffffff

func TestRequest(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--root", "/r", "--log", "/l", "--log-format", "json", "create", "--bundle", "/b", "--pid-file", "/p", "id"}, "/b/config.json"},
		{[]string{"--root=/r", "run", "-b=/b", "id"}, "/b/config.json"},
		{[]string{"create", "id"}, "config.json"},
		{[]string{"--systemd-cgroup", "--root", "create", "exec", "--process", "/tmp/p", "--detach", "id"}, "/tmp/p"},
		{[]string{"exec", "-p", "/tmp/p", "id"}, "/tmp/p"},
		{[]string{"exec", "id", "sh"}, ""},
		{[]string{"--root", "/r", "kill", "id", "9"}, ""},
		{[]string{"--version"}, ""},
		{nil, ""},
	} {
		if got := request(c.args); got != c.want {
			t.Errorf("request(%q) = %q, want %q", c.args, got, c.want)
		}
	}
}

func TestLimit(t *testing.T) {
	const set = `"capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_RESOURCE","CAP_NEWER"],"ambient":[]}`
	const kept = `"capabilities":{"bounding":["CAP_CHOWN","CAP_NEWER"],"ambient":[]}`
	for name, c := range map[string]struct{ asked, want string }{
		"a container": {
			`{"ociVersion":"1.0.2","process":{"args":["a"],"rlimits":[{"hard":18446744073709551615}],` + set + `},"linux":{"x":1.0}}`,
			`{"ociVersion":"1.0.2","process":{"args":["a"],"rlimits":[{"hard":18446744073709551615}],` + kept + `},"linux":{"x":1.0}}`,
		},
		"an exec":         {`{"args":["a"],` + set + `}`, `{"args":["a"],` + kept + `}`},
		"no capabilities": {`{"process":{"args":["a"]}}`, `{"process":{"args":["a"]}}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := limit([]byte(c.asked), noSysResource)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(decode(t, got), decode(t, []byte(c.want))) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	for _, broken := range []string{"", "[]", `{"process":1}`, `{"capabilities":[1]}`} {
		if got, err := limit([]byte(broken), noSysResource); err == nil {
			t.Errorf("%q became %q", broken, got)
		}
	}
}

// decode keeps numbers as they are written.
func decode(t *testing.T, text []byte) map[string]json.RawMessage {
	t.Helper()
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	if process, ok := whole["process"]; ok {
		for name, value := range decode(t, process) {
			whole["process."+name] = value
		}
		delete(whole, "process")
	}
	for name, value := range whole {
		var any map[string][]string
		if json.Unmarshal(value, &any) == nil {
			sorted, err := json.Marshal(any)
			if err != nil {
				t.Fatal(err)
			}
			whole[name] = sorted
		}
	}
	return whole
}

func TestBounding(t *testing.T) {
	if got, err := bounding("Name:\tx\nCapEff:\t0\nCapBnd:\t000001fffeffffff\n"); err != nil || got != noSysResource {
		t.Errorf("got %x, %v", got, err)
	}
	for _, broken := range []string{"", "CapBnd:\tx\n"} {
		if got, err := bounding(broken); err == nil {
			t.Errorf("%q is %x", broken, got)
		}
	}
}

func TestEdit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(`{"capabilities":{"effective":["CAP_SYS_RESOURCE"]}}`), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := edit(path, noSysResource); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != `{"capabilities":{"effective":[]}}` {
		t.Errorf("got %s, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if len(capabilities) != 41 || capabilities[24] != "SYS_RESOURCE" || capabilities[40] != "CHECKPOINT_RESTORE" {
		t.Errorf("the list is out of step with the kernel's: %d", len(capabilities))
	}
}
