// Package failpoint marks the gaps in which a service must not lose anything when it is killed there. Compiled with the tag
// failpoint, a service that was sent a gap's signal ends when it comes to that gap, as by SIGKILL; in what is released there is
// nothing of it, and the signals are ignored.
package failpoint

import "syscall"

// Gap is a place in a service between two things that cannot happen at once.
type Gap string

// The gaps.
const (
	Committed Gap = "committed" // after COMMIT, before what it wrote is published
	Published Gap = "published" // after the broker confirmed an event, before it is forgotten
	Effect    Gap = "effect"    // after messages had their effect, before they are acknowledged
)

// Gaps lists all of them.
func Gaps() []Gap { return []Gap{Committed, Published, Effect} }

// Mark is in a program that has failpoints, and in no other.
const Mark = "platformctl/pkg/failpoint.listen"

// Signal is the real-time signal by which a service is told to end in the gap; 0 for what is none.
func (g Gap) Signal() syscall.Signal {
	const first = 40 // the C library and Go's runtime leave those from 35 on alone
	for i, gap := range Gaps() {
		if g == gap {
			return first + syscall.Signal(i)
		}
	}
	return 0
}
