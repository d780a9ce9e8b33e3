// Package resume holds platformctl to what it promises of kill -9: up again converges, with the data, wherever it was killed.
//
// Its one test makes the platform once without a disturbance and notes what is there then. Then it kills, 30 times: platformctl
// alone, with its process group, or with all that it has started, and the cluster's node, at moments that a seed draws over the
// whole length of a run: of an up from nothing, of one that mends or changes a complete platform, of one that takes on what the
// kill before has left, and of down, stop and cleanup. In the end the platform must be what it was without a kill, object by
// object; every order that was accepted must be there; and nothing may be left behind. RESUME_SEED repeats the moments.
//
// With RESUME_KILL_ENGINE=1 the container engine is killed too, where platformctl started it: never on a machine whose engine
// others use.
package resume
