package recipe

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// written is how this package was written: its own sources, which go into the keys of what it makes.
//
//go:embed *.go node_files
var written embed.FS

// digest is a short hash over the parts; where one ends and the next begins counts too.
func digest(parts ...string) string {
	sum := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(sum, "%d:%s\n", len(p), p)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}

// sources is a hash over this package's files that decide about the images of that kind, "node" or "server": those whose
// name begins with it, and those that belong to no kind.
func sources(kind string) (string, error) {
	return hashFiles(written, func(name string) bool {
		top, _, _ := strings.Cut(name, "/")
		if strings.HasSuffix(top, "_test.go") {
			return false
		}
		for _, other := range []string{"node", "server", "service"} {
			if strings.HasPrefix(top, other) {
				return other == kind
			}
		}
		return true
	})
}

// hashFolder is a hash over all files below dir: their names, and what is in them.
func hashFolder(dir string) (string, error) {
	return hashFiles(os.DirFS(dir), func(string) bool { return true })
}

func hashFiles(files fs.FS, counts func(name string) bool) (string, error) {
	var parts []string
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !counts(name) {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		parts = append(parts, name, string(content))
		return nil
	})
	return digest(parts...), err
}
