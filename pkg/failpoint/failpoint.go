// Package failpoint marks the gaps in which a service must not lose anything when it is killed there. Compiled with the tag
// failpoint, a service ends in one, as by SIGKILL, when it is told to; in what is released there is nothing of it.
package failpoint

// The gaps.
const (
	Committed = "committed" // after COMMIT, before what it wrote is published
	Published = "published" // after the broker confirmed an event, before it is forgotten
	Effect    = "effect"    // after messages had their effect, before they are acknowledged
)
