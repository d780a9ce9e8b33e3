//go:build failpoint

package failpoint

import (
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
)

// armed are the gaps in which the process is to end. It listens from the first Hit on.
var armed = sync.OnceValue(listen)

func listen() map[Gap]*atomic.Bool {
	all := map[Gap]*atomic.Bool{}
	for _, gap := range Gaps() {
		all[gap] = new(atomic.Bool)
		told := make(chan os.Signal, 1)
		signal.Notify(told, gap.Signal())
		go func() {
			<-told
			all[gap].Store(true)
		}()
	}
	return all
}

// Hit ends the process, as SIGKILL does, where it was sent the gap's signal.
func Hit(gap Gap) {
	if !armed()[gap].Load() {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	syscall.Exit(137) // the first process of a container is spared its own signals; this way, too, nothing of the program runs any more
}
