package cluster

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the golden files anew")

// A node image of ours brings its network and its DNS; what is left out for it would break a stock node.
func TestKindConfigIsAFunctionOfTheOrigin(t *testing.T) {
	for name, cfg := range map[string]Config{
		"packages": {Image: "platformctl.local/node:v1.37.2-0123456789ab", Origin: Packages, APIPort: 8080},
		"prepared": {Image: "platformctl.local/node:v1.37.2-0123456789ab", Origin: Packages, APIPort: 8080, Content: "c0ffee"},
		"pulled":   {Image: "kindest/node:v1.37.0@sha256:a1ed", Origin: Pulled, APIPort: 18080},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := yaml.Marshal(kindConfig("platform", "/home/dev/.local/state/platformctl/clusters/platform", "/home/dev/.local/state/platformctl/content", cfg))
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "kind-"+name+".yaml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("the kind configuration changed (-want +got); if it is meant, go test ./pkg/cluster -update\n%s", diff)
			}
		})
	}
}

func TestConfigNamesWhatKindWouldNotSay(t *testing.T) {
	good := Config{Image: "x", Origin: Packages, APIPort: 1}
	if err := good.validate(); err != nil {
		t.Errorf("a good configuration was refused: %v", err)
	}
	for name, bad := range map[string]Config{
		"no image":  {Origin: Packages, APIPort: 1},
		"no origin": {Image: "x", APIPort: 1},
		"no port":   {Image: "x", Origin: Pulled},
		"high port": {Image: "x", Origin: Pulled, APIPort: 65536},
	} {
		if err := bad.validate(); err == nil {
			t.Errorf("%s: %+v was taken", name, bad)
		}
	}
}
