// Command bench measures what a user waits for, in one run on one machine, against a yardstick of the same run: kind itself
// creating a cluster of the same node image with kubeadm's defaults.
//
//	make build && go run ./e2e/bench [-n 3] [-cold all|images|none]
//
// Everything is measured on a cluster of its own. A figure stands beside the CPU that others took meanwhile: on a machine
// that somebody else uses too it says little without that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

const (
	binary    = "bin/platformctl"
	ours      = "platformctl-bench"
	yardstick = "platformctl-bench-kind"
	apiPort   = "18085"
)

// The rows of the report.
const (
	rowCold   = "up from nothing cached to the first CONFIRMED order"
	rowKind   = "kind create cluster --wait, kubeadm's defaults, a plain node"
	rowSame   = "the same with our node image as it is"
	rowCached = "up from cached images to the first CONFIRMED order"
	rowAgain  = "the second up"
	rowDown   = "down"
)

// limit is what a row's median is to keep to on two cores without a registry; what is "" where there is no limit.
func limit(row string, median, kind time.Duration) (what string, holds bool) {
	switch row {
	case rowCold:
		return "14m", median <= 14*time.Minute
	case rowCached:
		return "1.5 x kind", 2*median <= 3*kind
	case rowAgain:
		return "2s", median <= 2*time.Second
	}
	return "", true
}

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
	rounds int
	cold   string
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	var f flags
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(log)
	set.IntVar(&f.rounds, "n", 1, "how often each is measured; the median counts")
	set.StringVar(&f.cold, "cold", "all", "what the cold build finds: all (nothing: no image, no Go module, nothing compiled), images (Go's caches, but no image), or none (no cold build)")
	if err := set.Parse(args); err != nil {
		return fault.New(fault.CodeUsage, "", "%w", err)
	}
	if f.rounds < 1 || set.NArg() > 0 || f.cold != "all" && f.cold != "images" && f.cold != "none" {
		return fault.Usage("go run ./e2e/bench -n 3 -cold none", "-n takes a number from 1, -cold all, images or none, and nothing else is taken")
	}
	b, err := newBench(ctx, f, log)
	if err != nil {
		return err
	}
	err = b.measure(ctx)
	// Also what was measured before a failure is shown, and what was made is removed after Ctrl-C.
	return errors.Join(err, b.report(out), b.remove(context.WithoutCancel(ctx)))
}

// bench is one run of all measurements.
type bench struct {
	flags
	run   command.Local
	log   io.Writer
	dir   string // the checkout
	temp  string
	env   []string // of the product, for all that is not cold
	kind  string   // the program, built from the version that go.mod names
	image string   // the node's
	rows  []*row

	hidden map[string]string // the node image's tags while the cold build may not find them, by the names they have meanwhile
}

func newBench(ctx context.Context, f flags, log io.Writer) (*bench, error) {
	b := &bench{flags: f, log: log}
	out, err := b.run.Run(ctx, command.New("go", "list", "-m", "-f", "{{.Dir}}"))
	if err != nil {
		return nil, fmt.Errorf("find the checkout: %w", err)
	}
	b.dir = strings.TrimSpace(string(out))
	if _, err := os.Stat(filepath.Join(b.dir, binary)); err != nil {
		return nil, fault.New(fault.CodeFailed, "make build", "find the program to measure: %w", err)
	}
	for _, name := range []string{ours, yardstick} {
		there, err := b.container(ctx, name)
		if err != nil {
			return nil, err
		}
		if there != "" {
			return nil, fault.Unfit("remove it: docker rm -f -v "+name+"-control-plane", "a cluster %s is there already; the bench wants to make it", name)
		}
	}
	if b.temp, err = os.MkdirTemp("", ours+"-"); err != nil {
		return nil, err
	}
	b.env = []string{
		"PLATFORMCTL_CLUSTER=" + ours, "PLATFORMCTL_STATE=" + filepath.Join(b.temp, "state"), "KUBECONFIG=" + filepath.Join(b.temp, "kubeconfig"),
	}
	b.kind = filepath.Join(b.temp, "kind")
	if _, err := b.run.Run(ctx, command.Command{Name: "go", Args: []string{"build", "-o", b.kind, "sigs.k8s.io/kind"}, Dir: b.dir}); err != nil {
		return nil, errors.Join(fmt.Errorf("build kind: %w", err), os.RemoveAll(b.temp))
	}
	return b, nil
}

// container is the id of a cluster's node, or "".
func (b *bench) container(ctx context.Context, cluster string) (string, error) {
	out, err := b.run.Run(ctx, command.New("docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", "name=^/?"+cluster+"-control-plane$"))
	if err != nil {
		return "", fmt.Errorf("look for cluster %s: %w", cluster, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (b *bench) measure(ctx context.Context) error {
	if b.cold != "none" {
		if err := b.measureCold(ctx); err != nil {
			return fmt.Errorf("the cold build: %w", err)
		}
	} else {
		// What is not cached yet is made here, and the name of the node's image is read.
		b.say("bringing the platform up once, to fill the caches")
		if err := b.warm(ctx); err != nil {
			return fmt.Errorf("the first up: %w", err)
		}
	}
	for i := range b.rounds {
		b.say("round %d of %d", i+1, b.rounds)
		if err := b.round(ctx); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
	}
	return nil
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

func (b *bench) warm(ctx context.Context) error {
	if err := b.up(ctx, b.env); err != nil {
		return err
	}
	if err := b.readImage(ctx); err != nil {
		return err
	}
	return b.product(ctx, b.env, "down", "-y", "--no-snapshot")
}

func (b *bench) readImage(ctx context.Context) error {
	out, err := b.run.Run(ctx, command.New("docker", "inspect", "--format", "{{.Config.Image}}", ours+"-control-plane"))
	b.image = strings.TrimSpace(string(out))
	return err
}

func (b *bench) up(ctx context.Context, env []string) error {
	return b.product(ctx, env, "up", "--api-port", apiPort)
}

func (b *bench) product(ctx context.Context, env []string, args ...string) error {
	_, err := b.run.Run(ctx, command.Command{Name: binary, Args: args, Dir: b.dir, Env: env})
	return err
}

// order places orders until one is CONFIRMED; of the first ten nine are.
func (b *bench) order(ctx context.Context, env []string) error {
	for range 10 {
		out, err := b.run.Run(ctx, command.Command{
			Name: binary, Args: []string{"order", "--show", "1", "--qty", "1", "-o", "json"}, Dir: b.dir, Env: env,
		})
		if err != nil {
			return err
		}
		if strings.Contains(string(out), `"CONFIRMED"`) {
			return nil
		}
	}
	return errors.New("none of ten orders was confirmed")
}

// round measures everything but the cold build once.
func (b *bench) round(ctx context.Context) error {
	for _, y := range []struct {
		row   string
		plain bool
	}{{rowKind, true}, {rowSame, false}} {
		if err := b.timed(ctx, y.row, yardstick, func(ctx context.Context) error { return b.createByKind(ctx, y.plain) }); err != nil {
			return err
		}
		if err := b.deleteByKind(ctx); err != nil {
			return err
		}
	}
	for _, step := range []struct {
		row string
		do  func(context.Context) error
	}{
		{rowCached, func(ctx context.Context) error { return errors.Join(b.up(ctx, b.env), b.order(ctx, b.env)) }},
		{rowAgain, func(ctx context.Context) error { return b.product(ctx, b.env, "up") }},
		{rowDown, func(ctx context.Context) error { return b.product(ctx, b.env, "down", "-y", "--no-snapshot") }},
	} {
		if err := b.timed(ctx, step.row, ours, step.do); err != nil {
			return err
		}
	}
	return nil
}

// remove takes away all that the bench made.
func (b *bench) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err := b.unhide(ctx)
	for _, name := range []string{ours, yardstick} {
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
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o755)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}
