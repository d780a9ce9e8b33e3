//go:build failpoint

package failpoint

import (
	"os"
	"path/filepath"
	"syscall"
)

// Hit ends the process, as SIGKILL does, where the folder FAILPOINTS has a file of the gap's name. The file goes, so that the next
// life passes.
func Hit(gap string) {
	if os.Remove(filepath.Join(os.Getenv("FAILPOINTS"), gap)) != nil {
		return // nobody has asked for it
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // a process may always end itself
	select {}
}
