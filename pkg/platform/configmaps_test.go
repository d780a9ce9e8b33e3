package platform

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

func TestConfigMapsAreReadStrictly(t *testing.T) {
	p := here(t, Settings{Images: Packages}, &command.Fake{})
	if all, err := p.configMaps(t.Context()); err != nil || len(all) == 0 {
		t.Fatalf("the checkout's own: %d, %v", len(all), err)
	}
	p.set.Project = t.TempDir()
	dir := filepath.Join(p.set.Project, "configmaps")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: apps}\ndata: {PAYMENT_DELAY_MS: 700}\n": `PAYMENT_DELAY_MS is not a string; put it in quotes: PAYMENT_DELAY_MS: "700"`,
		"apiVersion: v1\nkind: ConfigMap\nmetadat: {name: a}\n":                                                  "metadata.name",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: apps}\n":                                   "it is no ConfigMap",
		"data: [\n": "a.yaml",
	} {
		if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := p.configMaps(t.Context())
		if fault.CodeOf(err) != fault.CodeUsage || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "a.yaml") {
			t.Errorf("%q: code %d, %v; want %s", text, fault.CodeOf(err), err, want)
		}
	}
}
