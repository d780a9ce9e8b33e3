package recipe

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/image"
)

// suite is the Debian release that our images are made of.
const suite = "trixie"

// sourceDate stands for every date that a tool would write into what it makes.
const sourceDate = "1795478400" // 2026-11-24

// Bits of a mode that many may write to.
const (
	setgid = fs.ModeSetgid
	sticky = fs.ModeSticky
)

// debian is a root file system of Debian packages.
type debian struct {
	name     string
	packages []string
	without  []string // patterns of paths that are not unpacked
	setup    string   // shell lines that run before the packages are installed, the root in $1
}

// args are mmdebstrap's, save the file to write.
func (d debian) args() []string {
	args := []string{
		"--variant=minbase", "--format=tar", "--include=" + strings.Join(d.packages, ","),
		`--aptopt=APT::Install-Recommends "false"`, "--dpkgopt=force-confold",
	}
	for _, pattern := range append([]string{"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*"}, d.without...) {
		args = append(args, "--dpkgopt=path-exclude="+pattern)
	}
	if d.setup != "" {
		args = append(args, "--essential-hook="+d.setup)
	}
	return append(args, suite)
}

// key names it in the cache. The mirror's state does not count: what was unpacked once is used until the recipe changes.
func (d debian) key() string { return d.name + "-root-" + digest(d.args()...) }

// root returns the root file system, a tar, from the cache or from Debian's mirror.
func (k *Kitchen) root(ctx context.Context, d debian, note func(Note)) (image.CacheEntry, error) {
	return k.part(ctx, d.key(), func(ctx context.Context, work string) (image.Made, error) {
		note(Note{Text: "unpacking Debian packages"})
		file := filepath.Join(work, "root.tar")
		c := command.New("mmdebstrap", append(d.args(), file)...)
		// It unpacks in a temporary folder; ours is removed also where it is killed.
		c.Env = []string{"TMPDIR=" + work, "SOURCE_DATE_EPOCH=" + sourceDate, "LC_ALL=C.UTF-8"}
		c.Stderr = &lines{each: func(line string) {
			if text, ok := strings.CutPrefix(line, "I: "); ok {
				note(Note{Text: text})
			}
		}}
		if _, err := k.run.Run(ctx, contained(c)); err != nil {
			return image.Made{}, wrap(ctx, err, "look whether Debian's mirror answers (apt-get update), then run it again", "unpack the Debian packages of %s", d.name)
		}
		return image.Made{Path: file}, nil
	})
}

// wrap says what failed and gives it a cure, unless it only failed because it was stopped.
func wrap(ctx context.Context, err error, cure, format string, args ...any) error {
	if ctx.Err() != nil {
		return fmt.Errorf(format+": %w", append(args, err)...)
	}
	return fault.New(fault.CodeFailed, cure, format+": %w", append(args, err)...)
}

// keepOfDebian says which paths of a root file system belong into an image: not what the kernel and the engine put there
// when it runs, and not what packages were fetched and installed with.
func keepOfDebian(name string) bool {
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "var/tmp", "var/cache", "var/lib/apt/lists", "var/log/apt"} {
		if strings.HasPrefix(name, dir+"/") {
			return false
		}
	}
	return path.Dir(name) != "var/log" || path.Ext(name) != ".log"
}

// lines hands each full line that is written to it on. Its error is always nil.
type lines struct {
	each func(line string)
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.each(string(line))
		l.rest = append([]byte(nil), rest...)
	}
}
