// Package e2e proves the product as a user has it: scenarios on the real binary, a real cluster, docker, kubectl and curl.
//
//	make build && go test -tags e2e -count=1 -timeout 60m -v ./e2e
//
// One cluster serves the run, platformctl-e2e, with the API on port 18080 and a kubeconfig of its own; it is removed at the
// end, also after a failure or Ctrl-C. The image cache is the user's, which is what makes the second run quick.
package e2e
