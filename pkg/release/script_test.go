package release

import (
	"path/filepath"
	"testing"

	"platformctl/pkg/command"
)

func TestStartScriptsParse(t *testing.T) {
	for _, name := range []string{"rabbitmq", "postgresql"} {
		script := filepath.Join(checkout, "charts", name, "files/start.sh")
		if _, err := (command.Local{}).Run(t.Context(), command.New("sh", "-n", script)); err != nil {
			t.Error(err)
		}
	}
}
