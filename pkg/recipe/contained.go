package recipe

import "platformctl/pkg/command"

// contained is the command in namespaces of its own for mounts and processes. What it mounts is never seen outside, least
// of all by who removes its folder; and when we end, however we end, the kernel kills it and all that it started.
func contained(c command.Command) command.Command {
	words := []string{"--pdeathsig=KILL", "unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child=KILL", "--", c.Name}
	c.Name, c.Args = "setpriv", append(words, c.Args...)
	return c
}
