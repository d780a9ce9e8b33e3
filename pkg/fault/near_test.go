package fault_test

import (
	"testing"

	"platformctl/pkg/fault"
)

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"up", "UP", 0}, {"", "down", 4}, {"statsu", "status", 2}, {"kitten", "sitting", 3}, {"order", "orders", 1}} {
		if got := fault.Distance(tt.a, tt.b); got != tt.want || fault.Distance(tt.b, tt.a) != tt.want {
			t.Errorf("%q and %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
