package cluster

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"platformctl/pkg/command"
)

// Store is a folder of the host with what the containerd of new nodes begins with: the images of Kubernetes' own pods and of the
// servers, unpacked. Each is prepared once, under a key, and linked into a node's own folder file by file when the node is made:
// to load the same images takes half of the time in which a cluster comes up.
//
//	prepared/KEY   never written to
//	nodes/NODE     a node's own, which goes with it
//
// The files are root's. Where we are not, the engine does for us what we may not.
type Store struct {
	dir string
	run command.Runner
}

const (
	storeInNode = "/platformctl-content"
	contentKey  = "content" // in the state folder: which of the prepared folders the node begins with
	sizeFile    = ".size"   // in a prepared folder: its size in bytes
)

// NewStore returns the store in the folder dir, which need not exist.
func NewStore(dir string, run command.Runner) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = resolve(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the folder of prepared images: %w", err)
	}
	return &Store{dir: dir, run: run}, nil
}

// Content is one prepared folder.
type Content struct {
	Key  string
	Path string
	Size int64     // in bytes
	Made time.Time // when it was prepared
}

// Has tells whether something is prepared under key.
func (s *Store) Has(key string) (bool, error) {
	_, err := os.Stat(s.prepared(key))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for prepared images: %w", err)
	}
	return true, nil
}

func (s *Store) prepared(key string) string { return filepath.Join(s.dir, "prepared", key) }

//go:embed prepare.sh
var prepare string

// Prepare prepares, under key, what the node image holds and the images of these docker archives, by the containerd of that image.
// unfit says why this machine's nodes could not use it; nothing is prepared then. One that another process prepares is waited for.
func (s *Store) Prepare(ctx context.Context, key, nodeImage string, archives ...string) (unfit string, err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return "", fmt.Errorf("preparing images: %w", err)
	}
	name := "platformctl-content-" + key
	words := []string{"run", "--rm", "--name", name, "--privileged", "--network", "none", "--volume", s.dir + ":" + storeInNode}
	for i, path := range archives {
		words = append(words, "--volume", fmt.Sprintf("%s:/images/%d.tar:ro", path, i))
	}
	words = append(words, "--entrypoint", "/bin/sh", nodeImage, "-c", prepare, "prepare", storeInNode, key)
	for {
		// The container's name is the lock. It outlives a client that was killed, and ends by itself.
		if _, err := s.run.Run(ctx, command.New("docker", "wait", name)); err == nil {
			// Only an engine that was killed leaves a container that has ended.
			_, _ = s.run.Run(ctx, command.New("docker", "rm", name))
		}
		if has, err := s.Has(key); err != nil || has {
			return "", err
		}
		out, err := s.run.Run(ctx, command.New("docker", words...))
		if err == nil {
			return strings.TrimSpace(string(out)), nil
		}
		if command.ExitCode(err) != dockerRefused || ctx.Err() != nil {
			return "", fmt.Errorf("preparing images: %w", err)
		}
		if _, busy := s.run.Run(ctx, command.New("docker", "inspect", "--type", "container", "--format", "{{.Id}}", name)); busy != nil {
			return "", fmt.Errorf("preparing images: %w", err)
		}
	}
}

// dockerRefused is what docker run ends with when there was no container to end with something.
const dockerRefused = 125

// List tells what is prepared, the latest first.
func (s *Store) List() ([]Content, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "prepared"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing prepared images: %w", err)
	}
	var all []Content
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // in the making
		}
		c := Content{Key: e.Name(), Path: s.prepared(e.Name())}
		note := filepath.Join(c.Path, sizeFile)
		text, err := os.ReadFile(note)
		if err == nil {
			c.Size, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		}
		var info fs.FileInfo
		if err == nil {
			info, err = os.Stat(note)
		}
		if err != nil {
			return nil, fmt.Errorf("listing prepared images: %w", err)
		}
		c.Made = info.ModTime()
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Content) int { return b.Made.Compare(a.Made) })
	return all, nil
}

// Remove removes what is prepared under key; nodes keep what they were given. nodeImage is any node image in the engine.
func (s *Store) Remove(ctx context.Context, key, nodeImage string) error {
	if err := s.remove(ctx, filepath.Join("prepared", key), nodeImage); err != nil {
		return fmt.Errorf("removing prepared images: %w", err)
	}
	return nil
}

// removeNode removes what a node had, once the node is gone.
func (s *Store) removeNode(ctx context.Context, node, nodeImage string) error {
	if err := s.remove(ctx, filepath.Join("nodes", node), nodeImage); err != nil {
		return fmt.Errorf("removing the images of node %s: %w", node, err)
	}
	return nil
}

func (s *Store) remove(ctx context.Context, what, nodeImage string) error {
	err := os.RemoveAll(filepath.Join(s.dir, what))
	if !errors.Is(err, fs.ErrPermission) || nodeImage == "" {
		return err
	}
	_, err = s.run.Run(ctx, command.New("docker", "run", "--rm", "--network", "none", "--volume", s.dir+":"+storeInNode,
		"--entrypoint", "/bin/rm", nodeImage, "-rf", "--", storeInNode+"/"+filepath.ToSlash(what)))
	return err
}
