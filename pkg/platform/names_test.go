package platform

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"platformctl/pkg/fault"
)

func TestFindService(t *testing.T) {
	for name, release := range map[string]string{
		"order": "order-api", "order-api": "order-api", "payment": "payment-service", "payment-service": "payment-service",
		"rabbit": "rabbitmq", "rabbitmq": "rabbitmq", "postgres": "postgresql", "postgresql": "postgresql",
	} {
		s, err := FindService(name)
		if err != nil || s.Release != release {
			t.Errorf("%s: got %q, %v; want %s", name, s.Release, err, release)
		}
	}
	_, err := FindService("nosuch")
	if fault.CodeOf(err) != fault.CodeUsage || !strings.Contains(fault.CureOf(err), "postgres, rabbitmq, order, payment") {
		t.Errorf("got code %d, cure %q; want a usage error that lists the known", fault.CodeOf(err), fault.CureOf(err))
	}
}

func TestFindOurs(t *testing.T) {
	for names, want := range map[string]string{
		"": "order-api payment-service", "payment": "payment-service", "order-api order": "order-api", "payment order": "payment-service order-api",
	} {
		found, err := FindOurs(strings.Fields(names)...)
		var got []string
		for _, s := range found {
			got = append(got, s.Release)
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: got %q, %v; want %s", names, got, err, want)
		}
	}
	for _, name := range []string{"nosuch", "postgres"} {
		if _, err := FindOurs("order", name); fault.CodeOf(err) != fault.CodeUsage || !strings.HasPrefix(fault.CureOf(err), "use one of: order, payment") {
			t.Errorf("%s: got %v, cure %q", name, err, fault.CureOf(err))
		}
	}
}

func TestFindProject(t *testing.T) {
	root := t.TempDir()
	inside := filepath.Join(root, "shop", "pkg", "order")
	for _, dir := range []string{inside, filepath.Join(root, "shop", "charts"), filepath.Join(root, "shop", "values")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "shop", "go.mod"), []byte("module platformctl\n\ngo 1.26\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A module of somebody else's on the way up is passed over.
	if err := os.WriteFile(filepath.Join(root, "shop", "pkg", "go.mod"), []byte("module other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := FindProject(inside)
	if want := filepath.Join(root, "shop"); err != nil || got != want {
		t.Errorf("got %q, %v; want %s", got, err, want)
	}
	if _, err := FindProject(root); fault.CodeOf(err) != fault.CodeUsage || !strings.Contains(fault.CureOf(err), "--project") {
		t.Errorf("got %v, want a usage error that names --project", err)
	}
}
