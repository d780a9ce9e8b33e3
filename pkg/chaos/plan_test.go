package chaos

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// A seed that failed once is typed again months later: its plan must still be the same.
func TestThePlanOfASeed(t *testing.T) {
	for _, c := range []struct {
		file     string
		seed     uint64
		duration time.Duration
		faults   string
	}{
		{"minute-7", 7, time.Minute, ""},
		{"ten-minutes-42", 42, 10 * time.Minute, ""},
		{"kills-1", 1, 30 * time.Second, "kill,partition"},
	} {
		kinds, err := ParseKinds(c.faults)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Draw(c.seed, c.duration, kinds)
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", c.file+".golden")
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(golden, []byte(plan.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), plan.String()); diff != "" {
			t.Errorf("%s, want and got:\n%s", c.file, diff)
		}
	}
}

func TestWhatEveryPlanIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		duration := time.Duration(rapid.Int64Range(int64(Shortest), int64(time.Hour)).Draw(t, "duration"))
		kinds := rapid.SliceOfNDistinct(rapid.SampledFrom(Kinds()), 1, -1, func(k Kind) Kind { return k }).Draw(t, "kinds")
		plan, err := Draw(seed, duration, kinds)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Draw(seed, duration, kinds); err != nil || again.String() != plan.String() {
			t.Fatalf("another time it is %s %v", again, err)
		}
		made := map[Kind]int{}
		for i, f := range plan.Faults {
			if made[f.Kind]++; f.N != i+1 || !slices.Contains(kinds, f.Kind) || f.At < 0 || f.At >= duration || i > 0 && f.At < plan.Faults[i-1].At {
				t.Fatalf("%+v", f)
			}
			of := sorts()[slices.IndexFunc(sorts(), func(s sort) bool { return s.kind == f.Kind })]
			if !slices.Contains(of.targets, f.Target) || f.For < of.least || f.For > of.most {
				t.Fatalf("%+v", f)
			}
		}
		for _, k := range kinds {
			if n := len(plan.Faults) / len(kinds); made[k] < n || made[k] > n+1 {
				t.Fatalf("%d of %s, of %d faults of %d kinds", made[k], k, len(plan.Faults), len(kinds))
			}
		}
		if duration >= time.Minute && len(plan.Faults) < 12 || duration >= 30*time.Minute && len(plan.Faults) < 100 {
			t.Fatalf("%d faults in %s", len(plan.Faults), duration)
		}
	})
}

func TestKindsByName(t *testing.T) {
	kinds, err := ParseKinds("node, kill,node")
	if err != nil || !slices.Equal(kinds, []Kind{Node, Kill}) {
		t.Errorf("%v %v", kinds, err)
	}
	if kinds, err := ParseKinds("all"); err != nil || !slices.Equal(append(kinds, Full), Kinds()) || len(Kinds()) != len(sorts()) {
		t.Errorf("%v %v", kinds, err)
	}
	if kinds, err := ParseKinds(""); err != nil || len(kinds) != len(sorts())-2 || slices.Contains(kinds, Gap) || slices.Contains(kinds, Full) { // they want a platform that is made for them
		t.Errorf("%v %v", kinds, err)
	}
	if _, err := ParseKinds("kill,,"); err == nil {
		t.Error("nothing is a kind")
	}
	if _, err := Draw(1, time.Second, Kinds()); err == nil {
		t.Error("a second has room for a fault")
	}
	if _, err := Draw(1, time.Minute, nil); err == nil {
		t.Error("a plan of nothing")
	}
}

func TestWhatIsDroppedInTheNode(t *testing.T) {
	for target, want := range map[string][]string{
		"apps→database":  {"ip saddr { $apps } ip daddr { $far } ct state established counter drop", "ip saddr { $apps } ip daddr { $far } drop"},
		"apps←messaging": {"ip saddr { $far } ip daddr { $apps } ct state established counter drop", "ip saddr { $far } ip daddr { $apps } drop"},
	} {
		script := rules(target, "drop")
		var got []string
		for line := range strings.Lines(script) {
			if strings.Contains(line, "saddr") {
				got = append(got, strings.TrimSpace(line))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q", target, got)
		}
		if far := target[strings.LastIndexAny(target, "→←")+len("→"):]; !strings.Contains(script, "far=$(ips "+far+")") {
			t.Errorf("%s: %s", target, script)
		}
	}
	if n := strings.Count(rules("apps↔database", "reject with tcp reset"), "meta l4proto tcp ct state established counter reject with tcp reset"); n != 2 {
		t.Errorf("%d ways", n)
	}
	if n := counted("chain forward {\n ct state established counter packets 12 bytes 700 drop\n counter packets 3 bytes 1 drop\n}"); n != 15 {
		t.Errorf("%d packets", n)
	}
	if n := counted("counter packets"); n != 0 {
		t.Errorf("%d packets", n)
	}
}
