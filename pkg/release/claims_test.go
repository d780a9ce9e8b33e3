package release

import (
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/storage"

	"platformctl/pkg/fault"
)

func manifestOf(t *testing.T, values string) string {
	t.Helper()
	manifest, err := Render(with(t, "postgresql", "auth: {existingSecret: s}\n"+values))
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

func TestClaimChangesAreNamed(t *testing.T) {
	base := "primary: {persistence: {size: 1Gi}}"
	for _, test := range []struct {
		name, values string
		want         []string
	}{
		{"nothing", base, nil},
		{"what is no claim", "primary: {persistence: {size: 1Gi}, podAnnotations: {a: b}}", nil},
		{"the size", "primary: {persistence: {size: 2Gi}}", []string{
			"statefulset/postgresql volumeClaimTemplates.data.spec.resources.requests.storage is 1Gi, 2Gi is wanted"}},
		{"the class", "primary: {persistence: {size: 1Gi, storageClass: fast}}", []string{
			"statefulset/postgresql volumeClaimTemplates.data.spec.storageClassName is absent, fast is wanted"}},
		{"the mode", "primary: {persistence: {size: 1Gi, accessModes: [ReadWriteMany]}}", []string{
			`statefulset/postgresql volumeClaimTemplates.data.spec.accessModes is ["ReadWriteOnce"], ["ReadWriteMany"] is wanted`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := claimChanges(manifestOf(t, base), manifestOf(t, test.values))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestAVolumeLessIsAChangeToo(t *testing.T) {
	got, err := claimChanges(manifestOf(t, ""), manifestOf(t, "primary: {persistence: {enabled: false}}"))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || !strings.Contains(got[0], "absent is wanted") {
		t.Errorf("got %q", got)
	}
}

func TestAClaimChangeIsRefusedWithItsCure(t *testing.T) {
	err := refuseClaimChange(dev("postgresql"), manifestOf(t, ""), manifestOf(t, "primary: {persistence: {size: 9Gi}}"))
	if fault.CodeOf(err) != fault.CodeUsage || !strings.Contains(fault.CureOf(err), "postgresql.yaml") {
		t.Errorf("got %v with the cure %q", err, fault.CureOf(err))
	}
}

// Where a release's label tells that its volumes stay, its record is not read; where it does not, or nobody has written one, it is.
func TestPossibleReadsARecordOnlyWhereItMust(t *testing.T) {
	b := newBench()
	b.apply(t, sized(t, "one"))
	last, err := b.store.Last("postgresql")
	if err != nil {
		t.Fatal(err)
	}
	read, stored := 0, b.stored
	b.stored = func(namespace string) *storage.Storage {
		read++
		return stored(namespace)
	}
	labelled := Status{Claims: last.Labels[claimsLabel]}
	other := with(t, "postgresql", "auth: {existingSecret: s}\nprimary: {persistence: {size: 1Gi}}")
	for _, test := range []struct {
		name  string
		spec  Spec
		found Status
		reads int
		code  int
	}{
		{"the same volumes", sized(t, "two"), labelled, 0, 0},
		{"the same, of before there were labels", sized(t, "two"), Status{}, 1, 0},
		{"others", other, labelled, 1, fault.CodeUsage},
		{"others, of before there were labels", other, Status{}, 1, fault.CodeUsage},
	} {
		read = 0
		err := b.Possible(test.spec, test.found)
		if read != test.reads || (err == nil) != (test.code == 0) || err != nil && fault.CodeOf(err) != test.code {
			t.Errorf("%s: %d records read, %v", test.name, read, err)
		}
	}
}
