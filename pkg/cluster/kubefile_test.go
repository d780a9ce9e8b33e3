package cluster

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"

	"platformctl/pkg/fault"
)

// The YAML library writes this comment where it breaks the document.
func TestAKubeconfigThatWouldBreakStaysAsItIs(t *testing.T) {
	const theirs = "? []#0"
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := openKubefile(path)
	if err != nil {
		t.Fatal(err)
	}
	k.setCurrent("mine")
	if err := k.write(); fault.CureOf(err) == "" {
		t.Errorf("it was written: %v", err)
	}
	if raw, err := os.ReadFile(path); err != nil || string(raw) != theirs {
		t.Errorf("it is %q now: %v", raw, err)
	}
}

// FuzzKubeconfig has a context added to whatever is taken for a kubeconfig: it is in there then, and what was there still is.
func FuzzKubeconfig(f *testing.F) {
	for _, seed := range []string{
		"", "# nothing but a comment\n", "---\n", "null\n", "{}\n", "clusters: []\n", "clusters: null\nusers: ~\n", "a: &x [1]\nclusters: *x\n",
		"apiVersion: v1\nkind: Config\ncurrent-context: other # theirs\ncontexts:\n- {name: other, context: {cluster: c}}\n- name: mine\n  context: {}\n",
		"{apiVersion: v1, users: [{name: mine, user: {token: t}}], users: []}\n", "? [a]\n: b\n", "!!binary aGk=: x\n", "clusters:\n- &i {name: mine}\n- *i\n",
	} {
		f.Add([]byte(seed))
	}
	const name = "mine"
	f.Fuzz(func(t *testing.T, raw []byte) {
		whole, err := parse(raw)
		if err != nil {
			return
		}
		k := &kubefile{whole: whole, doc: whole.Content[0]}
		others := 0
		for _, s := range sections {
			if list := value(k.doc, s.list); list != nil {
				others += len(list.Content)
			}
			if k.find(s, name) != nil {
				others--
			}
			k.put(s, name, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{text("ours"), text("yes")}})
		}
		k.setCurrent(name)
		var out bytes.Buffer
		if err := yaml.NewEncoder(&out).Encode(whole); err != nil {
			return // write refuses it
		}
		again, err := parse(out.Bytes())
		if err != nil {
			return // and this
		}
		k = &kubefile{whole: again, doc: again.Content[0]}
		if k.current() != name {
			t.Errorf("the current context is %q in %q", k.current(), out.Bytes())
		}
		for _, s := range sections {
			if ours := value(k.get(s, name), "ours"); ours == nil || ours.Value != "yes" {
				t.Errorf("%s has not got it: %q", s.list, out.Bytes())
			}
			others -= len(value(k.doc, s.list).Content) - 1
		}
		if others != 0 {
			t.Errorf("%d that were there are not, or more are: %q became %q", others, raw, out.Bytes())
		}
	})
}
