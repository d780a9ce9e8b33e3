package platform

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"platformctl/pkg/fault"
)

// FindProject is the checkout that holds dir: the nearest folder, from dir upward, that has the charts and the values.
func FindProject(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the checkout of %s: %w", dir, err)
	}
	for at := abs; ; at = filepath.Dir(at) {
		switch ok, err := isProject(at); {
		case err != nil:
			return "", err
		case ok:
			return at, nil
		case at == filepath.Dir(at):
			return "", fault.Usage("run it inside the checkout, or name it: --project DIR",
				"%s is not inside a checkout of the platform: no go.mod of platformctl beside charts/ and values/ there or above", abs)
		}
	}
}

func isProject(dir string) (bool, error) {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find the checkout: %w", err)
	}
	first, _, _ := strings.Cut(string(mod), "\n")
	if strings.TrimSpace(first) != "module platformctl" {
		return false, nil
	}
	for _, room := range []string{"charts", "values"} {
		if _, err := os.Stat(filepath.Join(dir, room)); err != nil {
			return false, nil
		}
	}
	return true, nil
}
