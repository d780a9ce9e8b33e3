package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

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
	line := b.line("up", "--api-port", strconv.Itoa(b.port), "--progress", "json")
	if b.cold == "all" {
		line.Env = append(slices.Clone(b.env), "GOCACHE="+filepath.Join(caches, "go-build"), "GOMODCACHE="+filepath.Join(caches, "go-mod"))
	}
	if err := b.hide(ctx); err != nil {
		return err
	}
	var events bytes.Buffer
	line.Stderr = &events
	err := b.timed(ctx, rowCold, b.cluster, func(ctx context.Context) error {
		if _, err := b.run.Run(ctx, line); err != nil {
			return err
		}
		return b.order(ctx)
	})
	b.coldRows(&events)
	if err != nil {
		return errors.Join(err, b.unhide(context.WithoutCancel(ctx)))
	}
	return errors.Join(b.unhide(ctx), b.down(ctx))
}

// coldRows makes a row of each image that the run has made; they stand before the sum.
func (b *bench) coldRows(events *bytes.Buffer) {
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // a program that up runs may say something of its own
		}
		if image, ok := strings.CutPrefix(e.Step, "image/"); ok && e.Event == "done" {
			row := "cold build of " + image
			b.table.extra = append(b.table.extra, row)
			b.table.add(row, sample{value: float64(e.TookMS) / 1000})
		}
	}
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
		aside := b.cluster + "/aside:" + tag
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
