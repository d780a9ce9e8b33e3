//go:build e2e

package e2e

import "testing"

// TestPlatform tells the scenarios in the order of a platform's life, so that one up serves most of them. Each can be told
// alone: go test -tags e2e -run 'TestPlatform/shop' ./e2e
func TestPlatform(t *testing.T) {
	w := begin(t)
	for _, s := range []struct {
		name  string
		story func(*scenario)
	}{
		{"from nothing to a paid order", fromNothing},
		{"the commands that existing users rely on", contracts},
		{"pods that are restricted", restricted},
		{"the tool's own commands", tools},
		{"what one sees of orders and events", looking},
		{"wrong orders", wrongOrders},
		{"a show is never oversold", neverOversold},
		{"snapshots", snapshots},
		{"up again", upAgain},
		{"stop and start", stopAndStart},
		{"a forward", forwards},
		{"pods are killed while orders come in", killed},
		{"a checkout with changes", changedCheckout},
		{"a service is deployed", deploys},
		{"a service is developed", develops},
		{"a checkout with faults", faultyCheckout},
		{"refusals that leave everything as it is", refusals},
		{"chaos", chaosHeals},
		{"secrets are kept", secretsAreKept},
		{"a disk is full", diskIsFull},
		{"cleanup, an interrupted up, two at once", cleanupAndAgain},
		{"an up that is cut short", cutShort},
		{"down", down},
	} {
		t.Run(s.name, func(t *testing.T) { w.tell(t, s.story) })
	}
}
