package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"platformctl/pkg/fault"
)

// kubefile is one of the user's kubeconfig files as a tree of YAML: what we do not touch keeps its order, its style and its
// comments.
type kubefile struct {
	path   string // as the user named it
	real   string // with symbolic links followed
	exists bool
	info   fs.FileInfo // nil unless it exists
	whole  *yaml.Node  // the document
	doc    *yaml.Node  // the mapping in it
}

// section is one of the three lists of a kubeconfig: the key of the list, and the key of an item's content.
type section struct{ list, item string }

var sections = []section{{"clusters", "cluster"}, {"contexts", "context"}, {"users", "user"}}

// openKubefile reads a file; one that does not exist is an empty configuration.
func openKubefile(path string) (*kubefile, error) {
	f := &kubefile{path: path}
	var err error
	if f.real, err = followLink(path); err != nil {
		return nil, f.unusable("following it", err)
	}
	raw, err := os.ReadFile(f.real)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, f.unusable("reading it", err)
	default:
		f.exists = true
		if f.info, err = os.Stat(f.real); err != nil {
			return nil, f.unusable("reading it", err)
		}
	}
	if f.whole, err = parse(raw); err != nil {
		return nil, f.unusable("reading it", err)
	}
	f.doc = f.whole.Content[0]
	return f, nil
}

// unusable names the file that could not be used, and the ways round it.
func (f *kubefile) unusable(doing string, err error) error {
	return fault.New(fault.CodeFailed, "mend that file, or write the context elsewhere with --kubeconfig FILE or nowhere with --no-kubeconfig",
		"your kubeconfig %s: %s: %w", f.path, doing, err)
}

// followLink finds the file behind symbolic links, also where the last one leads to a file that does not exist yet.
func followLink(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for range 40 {
		target, err := os.Readlink(abs)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EINVAL) {
			return abs, nil // no file, or no link
		}
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(abs), target)
		}
		abs = target
	}
	return "", fmt.Errorf("too many symbolic links")
}

// parse returns the one document of a kubeconfig; an empty file is an empty configuration.
func parse(raw []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	doc := &yaml.Node{}
	if err := dec.Decode(doc); errors.Is(err, io.EOF) {
		return &yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode, Content: []*yaml.Node{
			text("apiVersion"), text("v1"), text("kind"), text("Config"),
		}}}}, nil
	} else if err != nil {
		return nil, err
	}
	if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("it holds more than one YAML document")
	}
	root := doc.Content[0]
	if null(root) {
		root.Kind, root.Tag, root.Value = yaml.MappingNode, "", ""
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: it is no mapping, as a kubeconfig must be", root.Line)
	}
	for _, s := range sections {
		if list := value(root, s.list); list != nil && list.Kind != yaml.SequenceNode && !null(list) {
			return nil, fmt.Errorf("line %d: %s is no list", list.Line, s.list)
		}
	}
	return doc, nil
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// value is what stands under a key of a mapping, or nil.
func value(mapping *yaml.Node, key string) *yaml.Node {
	if mapping == nil || mapping.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// get is the content of the named item of a section, or nil.
func (f *kubefile) get(s section, name string) *yaml.Node {
	if item := f.find(s, name); item != nil {
		return value(item, s.item)
	}
	return nil
}

func (f *kubefile) find(s section, name string) *yaml.Node {
	list := value(f.doc, s.list)
	if list == nil {
		return nil
	}
	for _, item := range list.Content {
		if n := value(item, "name"); n != nil && n.Value == name {
			return item
		}
	}
	return nil
}

// put makes content that of the named item of a section.
func (f *kubefile) put(s section, name string, content *yaml.Node) {
	if item := f.find(s, name); item != nil {
		set(item, s.item, content)
		return
	}
	list := value(f.doc, s.list)
	if list == nil || null(list) {
		list = &yaml.Node{Kind: yaml.SequenceNode}
		set(f.doc, s.list, list)
	}
	if len(list.Content) == 0 {
		list.Style = 0 // an empty list can only be written as []; a full one need not be
	}
	list.Content = append(list.Content, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
		text(s.item), content, text("name"), text(name),
	}})
}

// drop takes the named item out of a section and tells whether it was there.
func (f *kubefile) drop(s section, name string) bool {
	item := f.find(s, name)
	if item == nil {
		return false
	}
	list := value(f.doc, s.list)
	kept := list.Content[:0]
	for _, other := range list.Content {
		if other != item {
			kept = append(kept, other)
		}
	}
	list.Content = kept
	return true
}

func set(mapping *yaml.Node, key string, to *yaml.Node) {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			mapping.Content[i+1] = to
			return
		}
	}
	mapping.Content = append(mapping.Content, text(key), to)
}

func (f *kubefile) current() string {
	if n := value(f.doc, "current-context"); n != nil && !null(n) {
		return n.Value
	}
	return ""
}

func (f *kubefile) setCurrent(name string) {
	n := text(name)
	if name == "" {
		n.Style = yaml.DoubleQuotedStyle
	}
	set(f.doc, "current-context", n)
}

// empty tells whether the file names no cluster, context or user any more.
func (f *kubefile) empty() bool {
	for _, s := range sections {
		if list := value(f.doc, s.list); list != nil && len(list.Content) > 0 {
			return false
		}
	}
	return true
}

// write replaces the file, with the mode and the owner that it had.
func (f *kubefile) write() error {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	enc.CompactSeqIndent() // as kubectl writes it
	if err := errors.Join(enc.Encode(f.whole), enc.Close()); err != nil {
		return f.unusable("writing it", err)
	}
	if _, err := parse(out.Bytes()); err != nil { // the library writes some comments where they break the document
		return f.unusable("writing it as it was", err)
	}
	mode := fs.FileMode(0o600)
	if f.exists {
		mode = f.info.Mode().Perm()
	}
	if err := writeAtomically(f.real, out.Bytes(), mode); err != nil {
		return f.unusable("writing it", err)
	}
	if f.exists {
		if was, ok := f.info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
			if err := os.Chown(f.real, int(was.Uid), int(was.Gid)); err != nil {
				return f.unusable("giving it back to its owner", err)
			}
		}
	}
	return nil
}

// lockWait is how long another program may hold a kubeconfig.
const lockWait = 5 * time.Second

// lock keeps kubectl and others of its kind from writing the file meanwhile, in the way they agree on: by a file beside it.
// It carries our process id, so that one left by a killed run is known for what it is: a symbolic link to it, which is there with
// what it carries from its first instant. Others look no further than whether there is something of that name.
func (f *kubefile) lock(ctx context.Context) (unlock func() error, err error) {
	if f.exists && f.info.Mode()&0o200 == 0 {
		// Replacing it would be possible, and not what its owner means.
		return nil, f.unusable("writing it", fmt.Errorf("it is read-only (mode %04o)", f.info.Mode().Perm()))
	}
	path := f.real + ".lock"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, f.unusable("making its folder", err)
	}
	giveUp := time.After(lockWait)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := os.Symlink(fmt.Sprintf("platformctl %d", os.Getpid()), path)
		if err == nil {
			return func() error { return os.Remove(path) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, f.unusable("locking it", err)
		}
		if abandoned(path) {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, f.unusable("removing the lock of a killed run", err)
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-giveUp:
			return nil, fault.New(fault.CodeFailed, "when no kubectl is at work, remove it: rm "+path,
				"your kubeconfig %s: another program holds its lock %s", f.path, path)
		case <-tick.C:
		}
	}
}

// abandoned tells whether a lock was left by a run of ours that is no more.
func abandoned(path string) bool {
	holder, err := os.Readlink(path)
	if err != nil {
		return false
	}
	id, ours := strings.CutPrefix(holder, "platformctl ")
	pid, err := strconv.Atoi(id)
	return ours && err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
