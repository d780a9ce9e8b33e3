package platform

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func example(namespace, name string, data map[string]string) secret {
	return secret{APIVersion: "v1", Kind: "Secret", Metadata: secretMeta{Name: name, Namespace: namespace}, StringData: data}
}

func TestSecretsAreMadeOnceAndAgree(t *testing.T) {
	dir := t.TempDir()
	files := secretFiles{dir: dir}
	examples := map[string]secret{
		"apps.yaml":     example("apps", "a", map[string]string{"user": "shop", "password": "GENERATED:owner"}),
		"database.yaml": example("database", "b", map[string]string{"password": "GENERATED:owner", "root": "GENERATED:root"}),
	}
	first, err := fill(examples, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	owner := first["apps.yaml"].StringData["password"]
	if len(owner) != 24 || owner != first["database.yaml"].StringData["password"] || owner == first["database.yaml"].StringData["root"] {
		t.Fatalf("equal names must get equal values and different ones different: %v", first)
	}
	if err := files.write(first); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "apps.yaml")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	held, err := files.read("")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, held); diff != "" {
		t.Errorf("read back something else: %s", diff)
	}

	// A file that was lost is made again from its twin; what is there stays as it is.
	if err := os.Remove(filepath.Join(dir, "apps.yaml")); err != nil {
		t.Fatal(err)
	}
	held, err = files.read("")
	if err != nil {
		t.Fatal(err)
	}
	fromFiles := known(examples, func(namespace, name string) map[string]string {
		for _, s := range held {
			if s.Metadata.Namespace == namespace && s.Metadata.Name == name {
				return s.StringData
			}
		}
		return nil
	})
	again, err := fill(examples, nil, fromFiles)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the second time is not as the first: %s", diff)
	}

	// The cluster's word counts more than the files'.
	third, err := fill(examples, map[string]string{"owner": "as the database has it"}, fromFiles)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"apps.yaml", "database.yaml"} {
		if got := third[file].StringData["password"]; got != "as the database has it" {
			t.Errorf("%s: %q, want the cluster's", file, got)
		}
	}
	if err := files.write(third); err != nil {
		t.Fatal(err)
	}
	held, err = files.read("")
	if err != nil {
		t.Fatal(err)
	}
	if got := held["database.yaml"].StringData["password"]; got != owner {
		t.Errorf("a file that was there was overwritten: %q", got)
	}
}
