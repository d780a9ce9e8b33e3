package host

import (
	"os"
	"slices"
	"strings"
	"testing"

	"platformctl/pkg/fault"
)

func limits(watches, instances string) map[string]string {
	return map[string]string{watchesFile: watches + "\n", instancesFile: instances + "\n"}
}

func TestInotify(t *testing.T) {
	for name, c := range map[string]struct{ watches, instances, needed, recommended string }{
		"kernel's old default": {"8192", "128", "", "8192 inotify watches and 128 instances; 524288 and 512 are wanted"},
		"as kind wants it":     {"524288", "512", "", ""},
		"few instances":        {"1048576", "100", "100 instances; 8192 and 128", "100 instances; 524288"},
		"few watches":          {"1000", "512", "1000 inotify watches", "1000 inotify watches"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := machine(t, limits(c.watches, c.instances), nil)
			wantContains(t, why(t, m, "host/inotify"), c.needed)
			wantContains(t, why(t, m, "host/inotify-recommended"), c.recommended)
		})
	}
}

func TestInotifyIsRaisedAndNeverLowered(t *testing.T) {
	m, _ := machine(t, limits("1048576", "128"), nil)
	r := named(t, m, "host/inotify-recommended")
	if !r.Optional {
		t.Error("what is only recommended must not stop anybody")
	}
	said, say := sayings()
	if err := r.Mend(t.Context(), say); err != nil {
		t.Fatal(err)
	}
	if want := []string{"echo 512 > " + instancesFile}; !slices.Equal(*said, want) {
		t.Errorf("said %q, want %q", *said, want)
	}
	wantContains(t, why(t, m, r.Name), "")
	if text, err := os.ReadFile(m.path(watchesFile)); err != nil || strings.TrimSpace(string(text)) != "1048576" {
		t.Errorf("watches are %q, %v", text, err)
	}
}

func TestInotifyThatCannotBeRaised(t *testing.T) {
	m, _ := machine(t, limits("8192", "128"), nil)
	r := named(t, m, "host/inotify-recommended")
	// A folder stands where the file was: nobody, root neither, can write to that.
	check := r.Check
	if why, err := check(t.Context()); err != nil || why == "" {
		t.Fatal(why, err)
	}
	err := m.raiseInotify(t.Context(), func(string) {
		if err := os.Remove(m.path(watchesFile)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(m.path(watchesFile), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	if fault.CodeOf(err) != fault.CodeUnfit || fault.CureOf(err) == "" {
		t.Errorf("got %v, code %d", err, fault.CodeOf(err))
	}
}
