package platform

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"platformctl/pkg/command"
)

func TestSources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("go.mod", "module platformctl\n\ngo 1.26\n")
	write("cmd/order-api/main.go", "package main\n\nimport _ \"platformctl/pkg/order\"\n\nfunc main() {}\n")
	write("pkg/order/order.go", "package order\n")
	write("pkg/order/schema/1.sql", "SELECT 1")
	write("pkg/payment/payment.go", "package payment\n")
	write("charts/order-api/templates/deployment.yaml", "kind: Deployment")
	write("charts/payment-service/Chart.yaml", "name: payment-service")
	write("values/dev/order-api.yaml", "replicaCount: 1")
	write("values/dev/payment-service.yaml", "replicaCount: 1")
	write("configmaps/a.yaml", "kind: ConfigMap")
	p, err := New(Settings{Cluster: "x", Project: dir, State: t.TempDir(), Cache: t.TempDir(), Chatter: io.Discard}, command.Local{})
	if err != nil {
		t.Fatal(err)
	}
	services, err := FindOurs("order")
	if err != nil {
		t.Fatal(err)
	}
	look := func() SourceState {
		t.Helper()
		s, err := p.Sources(services)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := look()
	// Every folder in which a change may count, and those in which such a folder may come.
	for i, want := range []string{
		"", "charts", "charts/order-api", "charts/order-api/templates", "cmd", "cmd/order-api", "configmaps",
		"pkg", "pkg/order", "pkg/order/schema", "values", "values/dev",
	} {
		if i >= len(before.Folders) || before.Folders[i] != filepath.Join(dir, want) {
			t.Fatalf("the folders are %q; the one at %d should be %q", before.Folders, i, want)
		}
	}
	for file, counts := range map[string]bool{
		"go.mod": true, "cmd/order-api/main.go": true, "pkg/order/order.go": true, "pkg/order/schema/2.sql": true,
		"charts/order-api/templates/deployment.yaml": true, "charts/order-api/templates/new/x.yaml": true,
		"values/dev/order-api.yaml": true, "configmaps/b.yaml": true,
		"pkg/payment/payment.go": false, "pkg/order/order_test.go": false, "charts/payment-service/Chart.yaml": false,
		"values/dev/payment-service.yaml": false, "README.md": false, "pkg/order/.order.go.swp": false,
	} {
		path := filepath.Join(dir, file)
		was, err := os.ReadFile(path)
		write(file, string(was)+"\n\n")
		if (look().Hash != before.Hash) != counts {
			t.Errorf("%s counts: %v, want %v", file, !counts, counts)
		}
		if err == nil {
			write(file, string(was))
		} else if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if look().Hash != before.Hash {
			t.Errorf("with %s as it was the hash is another", file)
		}
	}
	// What is gone is no error: it may come back, and the folder above it tells.
	if err := os.RemoveAll(filepath.Join(dir, "configmaps")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "cmd/order-api")); err != nil {
		t.Fatal(err)
	}
	if now := look(); now.Hash == before.Hash || !slices.Contains(now.Folders, filepath.Join(dir, "cmd")) {
		t.Errorf("with folders gone: %+v", now)
	}
}
