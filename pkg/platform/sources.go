package platform

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// SourceState is what Deploy would look at in the checkout.
type SourceState struct {
	Hash    string   // of all of it: the same hash is the same deployment
	Folders []string // where a change would change it, those of files that may come included
}

// Sources is the state of what the services are deployed from: their programs' sources, charts, values and ConfigMaps. It may
// be asked for while Deploy is at work.
func (p *Platform) Sources(services []Service) (SourceState, error) {
	sum := sha256.New()
	folders := map[string]bool{".": true} // go.mod lies there
	var roots []string                    // whatever is in them counts
	for _, s := range services {
		hash, of, err := p.kitchen.ServiceState(s.Release)
		if err != nil {
			return SourceState{}, err
		}
		fmt.Fprintln(sum, s.Release, hash)
		for _, folder := range append(of, filepath.Join("cmd", s.Release)) {
			folders[folder] = true
		}
		roots = append(roots, filepath.Join("charts", s.Release), filepath.Join("values", "dev", s.Release+".yaml"))
	}
	for _, root := range append(roots, "configmaps") {
		if err := p.hashBelow(root, sum, folders); err != nil {
			return SourceState{}, fmt.Errorf("read what is deployed: %w", err)
		}
	}
	// The folders above them too: a branch that is checked out may take one away and put it back.
	for _, folder := range slices.Collect(maps.Keys(folders)) {
		for ; folder != "."; folder = filepath.Dir(folder) {
			folders[folder] = true
		}
	}
	state := SourceState{Hash: hex.EncodeToString(sum.Sum(nil))}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		state.Folders = append(state.Folders, filepath.Join(p.set.Project, folder))
	}
	return state, nil
}

// hashBelow takes in a file, or all files of a folder and those below it, and notes the folders. What is not there counts as
// that.
func (p *Platform) hashBelow(root string, sum io.Writer, folders map[string]bool) error {
	folders[filepath.Dir(root)] = true
	return fs.WalkDir(os.DirFS(p.set.Project), filepath.ToSlash(root), func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir():
			folders[name] = true
			return nil
		}
		content, err := os.ReadFile(filepath.Join(p.set.Project, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		fmt.Fprintf(sum, "%s %d\n%s\n", name, len(content), content)
		return nil
	})
}
