package release

import (
	"os"
	"path/filepath"
	"testing"

	"platformctl/pkg/fault"
)

// Whatever stands in a values file, it is read, or refused with a sentence about the file, and compared without a panic.
func FuzzReadValues(f *testing.F) {
	for _, seed := range []string{
		"image: {tag: x}\n", "a: &x {b: *x}\n", "a: 1\n---\nb: 2\n", "- 1\n", "", "? {a: b}\n: c\n", "a: !!binary x\n", "<<: {a: 1}\nb: {<<: [{c: 2}]}\n", "\t", "a: [\n", "1: 2\nnull: ~\n",
	} {
		f.Add([]byte(seed))
	}
	defaults := map[string]any{"image": map[string]any{"tag": ""}, "a": map[string]any{}, "b": 1.0, "list": []any{}, "text": ""}
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := readValues(path)
		if err != nil {
			if fault.CodeOf(err) != fault.CodeUsage || fault.CureOf(err) == "" {
				t.Errorf("%q is refused with %v", text, err)
			}
			return
		}
		file.problems(defaults)
	})
}
