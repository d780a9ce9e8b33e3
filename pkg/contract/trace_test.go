package contract_test

import (
	"regexp"
	"testing"

	"platformctl/pkg/contract"
)

// Whatever a client sends as its traceparent, what goes on is one of the standard's form, or none.
func FuzzParseTrace(f *testing.F) {
	for _, seed := range []string{"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", "", "00-----", "ff-"} {
		f.Add(seed)
	}
	form := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)
	f.Fuzz(func(t *testing.T, header string) {
		trace := contract.ParseTrace(header)
		if trace != "" && (!form.MatchString(string(trace)) || trace.ID() != header[3:35] || contract.ParseTrace(string(trace)) != trace) {
			t.Errorf("%q became %q", header, trace)
		}
		if next := trace.Next(); !form.MatchString(string(next)) || trace != "" && next.ID() != trace.ID() {
			t.Errorf("%q goes on as %q", header, next)
		}
	})
}

func TestParseTrace(t *testing.T) {
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	good := "00-" + trace + "-" + span + "-01"
	for header, want := range map[string]string{
		good: good, "cc-" + trace + "-" + span + "-00-more": "00-" + trace + "-" + span + "-00", // of a later version what is known is taken
		"": "", "00-" + trace + "-" + span: "", good + "-more": "", "ff-" + trace + "-" + span + "-01": "",
		"00-00000000000000000000000000000000-" + span + "-01": "", "00-" + trace + "-0000000000000000-01": "", "00-4BF92F3577B34DA6A3CE929D0E0E4736-" + span + "-01": "",
	} {
		if got := contract.ParseTrace(header); string(got) != want {
			t.Errorf("%q is %q, want %q", header, got, want)
		}
	}
	next := contract.ParseTrace(good).Next()
	if next.ID() != trace || string(next) == good || contract.ParseTrace(string(next)) != next {
		t.Errorf("the next span of %s is %s", good, next)
	}
	if a, b := contract.Trace("").Next(), contract.NewTrace(); a.ID() == b.ID() || len(a.ID()) != 32 {
		t.Errorf("%s and %s", a, b)
	}
	if contract.TraceOf(next.Headers()) != next || contract.Trace("").Headers() != nil {
		t.Error("the headers do not carry it")
	}
}
