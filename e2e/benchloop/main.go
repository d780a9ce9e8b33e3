// Command benchloop measures what a user waits for, round by round in one run on one machine: a cluster that comes and goes,
// a change that is deployed, data that is brought back. Its yardstick is kind itself creating a cluster of the same node image
// with kubeadm's defaults.
//
//	make bench-loop [ARGS="-rounds 3 -only up,again"]
//
// It works on a copy of the checkout and on a cluster of its own. A figure stands beside the CPU that others took meanwhile: on
// a machine that somebody else uses too it says little without that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		if cure := fault.CureOf(err); cure != "" {
			fmt.Fprintf(os.Stderr, "Try:   %s\n", cure)
		}
	}
	os.Exit(fault.CodeOf(err))
}

type flags struct {
	rounds  int
	only    []string
	cold    string
	cluster string
	port    int
	write   string
}

// What can be named by -only. What the others need is done all the same, and not measured.
const (
	doKind    = "kind"
	doImage   = "image" // the yardstick with our node image as it is; only where it is asked for
	doUp      = "up"
	doAgain   = "again"
	doStart   = "start"
	doDeploy  = "deploy"
	doRestore = "restore"
	doTrace   = "trace" // once, after the rounds' other measurements: the million takes a while
	doDown    = "down"
	doVersion = "version"
)

var usual = []string{doKind, doUp, doAgain, doStart, doDeploy, doRestore, doTrace, doDown, doVersion}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	f := flags{only: usual}
	set := flag.NewFlagSet("benchloop", flag.ContinueOnError)
	set.SetOutput(log)
	set.IntVar(&f.rounds, "rounds", 5, "how often each is measured; the median counts")
	set.Func("only", "measure these alone, of "+strings.Join(append(slices.Clone(usual), doImage), ","), func(list string) error {
		f.only = strings.Split(list, ",")
		for _, name := range f.only {
			if !slices.Contains(usual, name) && name != doImage {
				return fmt.Errorf("there is no %q", name)
			}
		}
		return nil
	})
	set.StringVar(&f.cold, "cold", "none", "first a cold build, that finds: images (Go's caches, but no image), all (no image, no Go module, nothing compiled); none is no cold build")
	set.StringVar(&f.cluster, "cluster", "platformctl-bench", "name of the cluster to make; kind's own is NAME-kind")
	set.IntVar(&f.port, "api-port", 18085, "port of its API")
	set.StringVar(&f.write, "write", "", "write the table into this file, where it is whole")
	if err := set.Parse(args); err != nil {
		return fault.New(fault.CodeUsage, "", "%w", err)
	}
	if f.rounds < 1 || set.NArg() > 0 || f.cold != "all" && f.cold != "images" && f.cold != "none" {
		return fault.Usage("go run ./e2e/benchloop -rounds 3 -cold none", "-rounds takes a number from 1, -cold all, images or none, and nothing else is taken")
	}
	b, err := newBench(ctx, f, log)
	if err != nil {
		return err
	}
	err = b.measure(ctx)
	switch whole := !slices.ContainsFunc(usual, func(what string) bool { return !b.wants(what) }); {
	case err != nil || f.write == "":
	case whole:
		err = b.document(ctx, f.write)
	default:
		b.say("%s is left as it is: this is a part of it", f.write)
	}
	// Also what was measured before a failure is shown, and what was made is removed after Ctrl-C.
	return errors.Join(err, b.table.print(out), b.remove(context.WithoutCancel(ctx)))
}

// bench is one run of all measurements.
type bench struct {
	flags
	run      command.Local
	log      io.Writer
	checkout string
	binary   string // the program that is measured
	temp     string
	copy     string   // of the checkout, where the change is made
	env      []string // of the product
	kind     string   // the program, built from the version that go.mod names
	image    string   // the node's
	changes  int      // of the copy
	table    table

	hidden map[string]string // the node image's tags while the cold build may not find them, by the names they have meanwhile
}

func newBench(ctx context.Context, f flags, log io.Writer) (*bench, error) {
	b := &bench{flags: f, log: log}
	out, err := b.run.Run(ctx, command.New("go", "list", "-m", "-f", "{{.Dir}}"))
	if err != nil {
		return nil, fmt.Errorf("find the checkout: %w", err)
	}
	b.checkout = strings.TrimSpace(string(out))
	b.binary = filepath.Join(b.checkout, "bin", "platformctl")
	if _, err := os.Stat(b.binary); err != nil {
		return nil, fault.New(fault.CodeFailed, "make build", "find the program to measure: %w", err)
	}
	for _, name := range []string{b.cluster, b.yardstick()} {
		there, err := b.container(ctx, name)
		if err != nil {
			return nil, err
		}
		if there != "" {
			return nil, fault.Unfit("remove it: docker rm -f -v "+name+"-control-plane", "a cluster %s is there already; the bench wants to make it", name)
		}
	}
	if b.temp, err = os.MkdirTemp("", b.cluster+"-"); err != nil {
		return nil, err
	}
	b.env = []string{
		"PLATFORMCTL_CLUSTER=" + b.cluster, "PLATFORMCTL_STATE=" + filepath.Join(b.temp, "state"), "KUBECONFIG=" + filepath.Join(b.temp, "kubeconfig"),
	}
	b.kind, b.copy = filepath.Join(b.temp, "kind"), filepath.Join(b.temp, "checkout")
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.temp))
	}
	return b, nil
}

// prepare builds kind and copies what the product reads of the checkout, without its secrets: the copy makes its own.
func (b *bench) prepare(ctx context.Context) error {
	if _, err := b.run.Run(ctx, command.Command{Name: "go", Args: []string{"build", "-o", b.kind, "sigs.k8s.io/kind"}, Dir: b.checkout}); err != nil {
		return fmt.Errorf("build kind: %w", err)
	}
	for _, folder := range []string{"charts", "cmd", "configmaps", "pkg", filepath.Join("secrets", "examples"), "values"} {
		if err := os.CopyFS(filepath.Join(b.copy, folder), os.DirFS(filepath.Join(b.checkout, folder))); err != nil {
			return fmt.Errorf("copy the checkout: %w", err)
		}
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(b.checkout, file))
		if err == nil {
			err = os.WriteFile(filepath.Join(b.copy, file), content, 0o644)
		}
		if err != nil {
			return fmt.Errorf("copy the checkout: %w", err)
		}
	}
	return nil
}

// yardstick is the name of kind's own cluster.
func (b *bench) yardstick() string { return b.cluster + "-kind" }

// container is the id of a cluster's node, or "".
func (b *bench) container(ctx context.Context, cluster string) (string, error) {
	out, err := b.run.Run(ctx, command.New("docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", "name=^/?"+cluster+"-control-plane$"))
	if err != nil {
		return "", fmt.Errorf("look for cluster %s: %w", cluster, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

// remove takes away all that the bench made.
func (b *bench) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaving)
	defer cancel()
	err := b.unhide(ctx)
	for _, name := range []string{b.cluster, b.yardstick()} {
		id, findErr := b.container(ctx, name)
		if findErr != nil {
			err = errors.Join(err, findErr)
		} else if id != "" {
			_, rmErr := b.run.Run(ctx, command.New("docker", "rm", "--force", "--volumes", id))
			err = errors.Join(err, rmErr)
		}
	}
	return errors.Join(err, removeAll(b.temp))
}

// removeAll is os.RemoveAll for a folder with Go's module cache in it, whose folders are read-only.
func removeAll(dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o755)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}
