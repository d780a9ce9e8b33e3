package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"platformctl/pkg/command"
)

// event is what is read of a line of `up --progress json`.
type event struct {
	Event  string `json:"event"`
	Step   string `json:"step"`
	TookMS int64  `json:"tookMs"`
}

// measureCold brings the platform up where nothing is cached, and reads from up's own events what each image took. They are
// built side by side, as up does it, so the parts add up to more than the whole.
func (b *bench) measureCold(ctx context.Context) error {
	b.say("bringing the platform up with nothing cached; that takes minutes")
	caches := filepath.Join(b.temp, "cold")
	// What was built cold serves the rounds that follow.
	b.env = append(b.env, "PLATFORMCTL_CACHE="+filepath.Join(caches, "platformctl"))
	env := b.env
	if b.cold == "all" {
		env = append(env[:len(env):len(env)], "GOCACHE="+filepath.Join(caches, "go-build"), "GOMODCACHE="+filepath.Join(caches, "go-mod"))
	}
	if err := b.hide(ctx); err != nil {
		return err
	}
	var events bytes.Buffer
	err := b.timed(ctx, rowCold, ours, func(ctx context.Context) error {
		_, err := b.run.Run(ctx, command.Command{
			Name: binary, Args: []string{"up", "--api-port", apiPort, "--progress", "json"}, Dir: b.dir, Env: env, Stderr: &events,
		})
		if err != nil {
			return err
		}
		return b.order(ctx, env)
	})
	b.coldRows(&events)
	if err != nil {
		return errors.Join(err, b.unhide(context.WithoutCancel(ctx)))
	}
	if err := errors.Join(b.readImage(ctx), b.unhide(ctx)); err != nil {
		return err
	}
	return b.product(ctx, b.env, "down", "-y", "--no-snapshot")
}

// coldRows makes a row of each image that the run has made; they stand before the sum.
func (b *bench) coldRows(events *bytes.Buffer) {
	whole := b.rows
	b.rows = nil
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // a program that up runs may say something of its own
		}
		if image, ok := strings.CutPrefix(e.Step, "image/"); ok && e.Event == "done" {
			took := time.Duration(e.TookMS) * time.Millisecond
			b.rows = append(b.rows, &row{name: "  cold build of " + image, times: []time.Duration{took}})
		}
	}
	b.rows = append(b.rows, whole...)
}

// hide takes the node image's tags away from the engine, which would else count as a cache; its layers and whoever runs on
// them stay.
func (b *bench) hide(ctx context.Context) error {
	out, err := b.run.Run(ctx, command.New("docker", "image", "ls", "--filter", "reference=platformctl.local/node", "--format", "{{.Repository}}:{{.Tag}}"))
	if err != nil {
		return err
	}
	b.hidden = map[string]string{}
	for _, ref := range strings.Fields(string(out)) {
		_, tag, _ := strings.Cut(ref, ":")
		aside := ours + "/aside:" + tag
		if _, err := b.run.Run(ctx, command.New("docker", "tag", ref, aside)); err != nil {
			return err
		}
		b.hidden[aside] = ref
		if _, err := b.run.Run(ctx, command.New("docker", "rmi", "--no-prune", ref)); err != nil {
			return err
		}
	}
	return nil
}

// unhide gives the tags back, also those that the cold build has made anew: their image is the same.
func (b *bench) unhide(ctx context.Context) (err error) {
	for aside, ref := range b.hidden {
		_, tagErr := b.run.Run(ctx, command.New("docker", "tag", aside, ref))
		if tagErr == nil {
			_, tagErr = b.run.Run(ctx, command.New("docker", "rmi", "--no-prune", aside))
		}
		if tagErr == nil {
			delete(b.hidden, aside)
		}
		err = errors.Join(err, tagErr)
	}
	return err
}
