package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
)

// keyring is what Debian's packages are verified with; Ubuntu has it as a package too.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// packageRequirements are those of building images from Go modules and Debian packages; none where images are pulled.
func (m Machine) packageRequirements() []Requirement {
	if !m.Needs.Packages {
		return nil
	}
	platform := Requirement{
		Name:  "packages/platform",
		Cure:  []string{"run platformctl where a container registry can be reached: there the images are pulled"},
		Check: func(context.Context) (string, error) { return platformFault(m.OS, m.Arch), nil },
	}
	root := Requirement{
		Name: "packages/root", After: []string{platform.Name},
		Cure: []string{
			"run platformctl as root",
			"or run it where a container registry can be reached: there the images are pulled",
		},
		Check: func(context.Context) (string, error) {
			if m.UID != 0 {
				return "images are to be built from packages, since no container registry answers or --images packages was given, and only root can do that", nil
			}
			return "", nil
		},
	}
	needed := []string{"mmdebstrap", "debian-archive-keyring", "mount", "ca-certificates"}
	tools := m.withPackages(Requirement{
		Name: "packages/tools", After: []string{platform.Name, root.Name},
		Check: func(context.Context) (string, error) {
			if m.find("mmdebstrap") == "" {
				return "mmdebstrap is not installed; it makes the images' file systems from Debian packages", nil
			}
			if _, err := os.Stat(m.path(keyring)); errors.Is(err, fs.ErrNotExist) {
				return "Debian's archive keys are not installed; its packages cannot be verified without them", nil
			} else if err != nil {
				return "", err
			}
			return "", nil
		},
	}, func(ctx context.Context, say func(string)) error { return m.install(ctx, say, needed...) }, needed...)
	return []Requirement{platform, root, tools}
}

// platformFault tells why images cannot be built from packages on a platform, or "".
func platformFault(system, arch string) string {
	if system == "linux" && arch == "amd64" {
		return ""
	}
	return "images are to be built from packages, since no container registry answers or --images packages was given, and that works on linux/amd64 only; this is " + system + "/" + arch
}
