package release

import (
	"slices"
	"strings"
	"testing"

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
