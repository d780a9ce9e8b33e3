package host

import (
	"slices"
	"testing"
)

func TestPackagesAreWantedOnlyWhereTheyAreBuiltFrom(t *testing.T) {
	m, _ := machine(t, nil, nil)
	if slices.ContainsFunc(Requirements(m), func(r Requirement) bool { return r.Name == "packages/tools" }) {
		t.Error("a machine that pulls its images needs no mmdebstrap")
	}
}

func TestPackages(t *testing.T) {
	m, _ := machine(t, nil, nil)
	m.Needs.Packages = true
	wantContains(t, why(t, m, "packages/platform"), "")
	wantContains(t, why(t, m, "packages/root"), "")
	wantContains(t, why(t, m, "packages/tools"), "mmdebstrap is not installed")
	write(t, m.path("/usr/bin/mmdebstrap"), "")
	m.Getenv = func(string) string { return "/usr/bin" }
	wantContains(t, why(t, m, "packages/tools"), "archive keys are not installed")
	write(t, m.path(keyring), "")
	wantContains(t, why(t, m, "packages/tools"), "")
	m.UID = 1000
	wantContains(t, why(t, m, "packages/root"), "only root")
}

func TestPlatformFault(t *testing.T) {
	wantContains(t, platformFault("linux", "amd64"), "")
	wantContains(t, platformFault("linux", "arm64"), "this is linux/arm64")
	wantContains(t, platformFault("darwin", "amd64"), "this is darwin/amd64")
}
