// Package checker checks the checker: a platform that breaks a promise is found out by verify within one run.
//
//	make checker
//
// The platform runs on this machine without a cluster, on real servers. One of its protections after another is taken away: the
// outbox, the unique index of payments, the consumers' acknowledgements, the rule of capacity. Each time orders flow, what the
// protection is for happens, and verify must be red for it. Between these, with everything in its place, it must be green.
package checker
