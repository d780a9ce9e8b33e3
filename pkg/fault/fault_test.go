package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"platformctl/pkg/fault"
)

func TestCodeAndCure(t *testing.T) {
	inner := fault.Unfit("platformctl doctor --fix", "the engine does not answer")
	tests := []struct {
		name string
		err  error
		code int
		cure string
	}{
		{"none", nil, fault.CodeOK, ""},
		{"plain", errors.New("broken"), fault.CodeFailed, ""},
		{"interrupted", fmt.Errorf("create: %w", context.Canceled), fault.CodeInterrupted, ""},
		{"late", fmt.Errorf("wait: %w", context.DeadlineExceeded), fault.CodeTimedOut, ""},
		{"wrapped once", fmt.Errorf("cluster: %w", inner), fault.CodeUnfit, "platformctl doctor --fix"},
		{"the outer code, the inner cure", fault.New(fault.CodeTimedOut, "", "wait: %w", inner), fault.CodeTimedOut, "platformctl doctor --fix"},
		{"one of several", errors.Join(errors.New("first"), inner), fault.CodeUnfit, "platformctl doctor --fix"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := fault.CodeOf(tt.err); got != tt.code {
				t.Errorf("code %d, want %d", got, tt.code)
			}
			if got := fault.CureOf(tt.err); got != tt.cure {
				t.Errorf("cure %q, want %q", got, tt.cure)
			}
		})
	}
}
