package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// UserFiles says where the user's kubeconfig is, by kubectl's rules: Explicit alone; else the files of List, of which the
// first to name a thing counts; else .kube/config in Home.
type UserFiles struct {
	Explicit string // what --kubeconfig said
	List     string // what the environment's KUBECONFIG says
	Home     string
}

func (u UserFiles) paths() []string {
	if u.Explicit != "" {
		return []string{u.Explicit}
	}
	var paths []string
	for _, p := range filepath.SplitList(u.List) {
		if p != "" && !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 {
		paths = []string{filepath.Join(u.Home, ".kube", "config")}
	}
	return paths
}

// Change is what was done to the user's kubeconfig.
type Change struct {
	Context string
	Files   []string // that were changed; none where nothing had to be
	Current bool     // merging: it was made the current context; removing: it was, and no other took its place
	Left    []string // removing: why something was left where it is
}

// contextRecord is kept in the state folder: what was added to which file, so that exactly that can be taken away.
const contextRecord = "context.json"

type added struct {
	File    string `json:"file"`
	CA      string `json:"ca"`      // sha256 of the cluster's certificate authority as it stands in the file
	Created bool   `json:"created"` // the file was not there before
}

// ContextMissing is the cause why MergeContext would change something, "" where it would not.
func (c *Cluster) ContextMissing(ctx context.Context, u UserFiles) (string, error) {
	m, err := c.planMerge(ctx, u)
	if err != nil || len(m.changed) == 0 {
		return "", err
	}
	return fmt.Sprintf("the context %s is not in %s as it should be", c.Context(), m.changed[0].path), nil
}

// MergeContext adds the cluster's one context to the user's kubeconfig, as kind does, and makes it the current one where no
// other is. All else in the files stays as it is, comments and order included; a namespace that the user gave the context
// stays too. What was added is recorded in the state folder for RemoveContext.
func (c *Cluster) MergeContext(ctx context.Context, u UserFiles) (Change, error) {
	change := Change{Context: c.Context()}
	m, err := c.planMerge(ctx, u)
	if err != nil || len(m.changed) == 0 {
		return change, err
	}
	unlock, err := lockAll(ctx, m.changed)
	if err != nil {
		return change, err
	}
	err = func() error {
		// Now that nobody else writes them: what do they hold?
		locked := paths(m.changed)
		if m, err = c.planMerge(ctx, u); err != nil {
			return err
		}
		for _, f := range m.changed {
			if !slices.Contains(locked, f.path) {
				return fmt.Errorf("the kubeconfig files %s were changed by another program meanwhile; run it again", strings.Join(u.paths(), ", "))
			}
		}
		// The record comes first: a run that is killed between the two leaves nothing that would not be found.
		if err := c.recordAdded(m); err != nil {
			return err
		}
		for _, f := range m.changed {
			if err := f.write(); err != nil {
				return err
			}
			change.Files = append(change.Files, f.path)
		}
		change.Current = m.current
		return nil
	}()
	return change, errors.Join(err, unlock())
}

// merge is what is to be changed.
type merge struct {
	changed []*kubefile
	ca      string
	current bool
}

// planMerge reads the files and changes them in memory.
func (c *Cluster) planMerge(ctx context.Context, u UserFiles) (merge, error) {
	raw, err := c.Kubeconfig(ctx)
	if err != nil {
		return merge{}, err
	}
	doc, err := parse(raw)
	if err != nil {
		return merge{}, fmt.Errorf("reading the kubeconfig of cluster %s: %w", c.name, err)
	}
	ours := &kubefile{path: c.KubeconfigPath(), doc: doc.Content[0]}
	var files []*kubefile
	for _, path := range u.paths() {
		f, err := openKubefile(path)
		if err != nil {
			return merge{}, err
		}
		files = append(files, f)
	}
	// As kubectl has it: a new thing goes to the first file that exists, else to the last of the list.
	home := files[len(files)-1]
	for _, f := range files {
		if f.exists {
			home = f
			break
		}
	}

	var m merge
	touch := func(f *kubefile) {
		if !slices.Contains(m.changed, f) {
			m.changed = append(m.changed, f)
		}
	}
	for _, s := range sections {
		want := ours.get(s, c.Context())
		if want == nil {
			return merge{}, fmt.Errorf("%s has no %s named %s", ours.path, s.item, c.Context())
		}
		if s.item == "cluster" {
			m.ca = caOf(want)
		}
		in := home
		for _, f := range files {
			if f.find(s, c.Context()) != nil {
				in = f
				break
			}
		}
		have := in.get(s, c.Context())
		if same(s, have, want) {
			continue
		}
		in.put(s, c.Context(), want)
		touch(in)
	}
	if !slices.ContainsFunc(files, func(f *kubefile) bool { return f.current() != "" }) {
		home.setCurrent(c.Context())
		m.current = true
		touch(home)
	}
	return m, nil
}

// same tells whether what stands in a file does as it is. Of a context only the names count that it joins.
func same(s section, have, want *yaml.Node) bool {
	var a, b map[string]any
	if have == nil || have.Decode(&a) != nil || want.Decode(&b) != nil {
		return false
	}
	if s.item == "context" {
		return a["cluster"] == b["cluster"] && a["user"] == b["user"]
	}
	return fmt.Sprint(a) == fmt.Sprint(b) // maps print in the order of their keys
}

// caOf is a hash by which a cluster is known again after its name was given to another.
func caOf(cluster *yaml.Node) string {
	n := value(cluster, "certificate-authority-data")
	if n == nil {
		return ""
	}
	sum := sha256.Sum256([]byte(n.Value))
	return hex.EncodeToString(sum[:])
}

func (c *Cluster) recordAdded(m merge) error {
	all, err := c.readAdded()
	if err != nil {
		return err
	}
	for _, f := range m.changed {
		path, err := filepath.Abs(f.path)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(a added) bool { return a.File == path })
		if i < 0 {
			all = append(all, added{File: path, Created: !f.exists})
			i = len(all) - 1
		}
		all[i].CA = m.ca
	}
	raw, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return writeAtomically(filepath.Join(c.state, contextRecord), append(raw, '\n'), 0o600)
}

func (c *Cluster) readAdded() ([]added, error) {
	raw, err := os.ReadFile(filepath.Join(c.state, contextRecord))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []added
	if err == nil {
		err = json.Unmarshal(raw, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was added to your kubeconfig: %w", err)
	}
	return all, nil
}

// ContextFiles lists the user's files that hold something of ours, as recorded.
func (c *Cluster) ContextFiles() ([]string, error) {
	all, err := c.readAdded()
	var files []string
	for _, a := range all {
		files = append(files, a.File)
	}
	return files, err
}

// RemoveContext takes away what MergeContext added, from whichever files it was. What another tool has put under the same name
// since is left, and so is a current context that is not ours. It needs no cluster and may be called twice.
func (c *Cluster) RemoveContext(ctx context.Context) (Change, error) {
	change := Change{Context: c.Context()}
	all, err := c.readAdded()
	if err != nil || len(all) == 0 {
		return change, err
	}
	for _, a := range all {
		if err := c.removeFrom(ctx, a, &change); err != nil {
			return change, err
		}
	}
	return change, os.Remove(filepath.Join(c.state, contextRecord))
}

func (c *Cluster) removeFrom(ctx context.Context, a added, change *Change) (err error) {
	f, err := openKubefile(a.File)
	if err != nil {
		return err
	}
	if !f.exists {
		return nil
	}
	unlock, err := f.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if f, err = openKubefile(a.File); err != nil {
		return err
	}
	if cluster := f.get(sections[0], c.Context()); cluster != nil && caOf(cluster) != a.CA {
		change.Left = append(change.Left, fmt.Sprintf("%s in %s belongs to another cluster of that name by now", c.Context(), a.File))
		return nil
	}
	dropped := false
	for _, s := range sections {
		dropped = f.drop(s, c.Context()) || dropped
	}
	if f.current() == c.Context() {
		f.setCurrent("")
		change.Current, dropped = true, true
	}
	if !dropped {
		return nil
	}
	change.Files = append(change.Files, a.File)
	if a.Created && f.empty() {
		return os.Remove(f.real)
	}
	return f.write()
}

func paths(files []*kubefile) []string {
	var all []string
	for _, f := range files {
		all = append(all, f.path)
	}
	return all
}

// lockAll locks the files in the order of their names, so that two runs cannot wait for each other.
func lockAll(ctx context.Context, files []*kubefile) (unlock func() error, err error) {
	var unlocks []func() error
	unlock = func() error {
		var all error
		for _, u := range unlocks {
			all = errors.Join(all, u())
		}
		return all
	}
	sorted := slices.SortedFunc(slices.Values(files), func(a, b *kubefile) int { return strings.Compare(a.real, b.real) })
	for _, f := range sorted {
		u, err := f.lock(ctx)
		if err != nil {
			return nil, errors.Join(err, unlock())
		}
		unlocks = append(unlocks, u)
	}
	return unlock, nil
}
