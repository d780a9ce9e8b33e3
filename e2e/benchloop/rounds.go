package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
)

// leaving is what cleaning up may take.
const leaving = 2 * time.Minute

// starts is how often in a round the program is started for nothing but its version.
const starts = 5

// full is the name of the snapshot with many orders.
const full = "full"

// measure measures the rows round by round, so that what disturbs the machine for a while disturbs all of them.
func (b *bench) measure(ctx context.Context) error {
	if b.cold != "none" {
		if err := b.measureCold(ctx); err != nil {
			return fmt.Errorf("the cold build: %w", err)
		}
	}
	if slices.Equal(b.only, []string{doVersion}) {
		return b.eachRound(ctx, b.versions)
	}
	// What is not cached yet is made here, and the name of the node's image is read.
	b.say("bringing the platform up once, to fill the caches")
	if err := b.up(ctx); err != nil {
		return err
	}
	if err := b.prepareData(ctx); err != nil {
		return fmt.Errorf("fill the database: %w", err)
	}
	if err := b.asksFirst(ctx); err != nil {
		return err
	}
	out, err := b.run.Run(ctx, command.New("docker", "inspect", "--format", "{{.Config.Image}}", b.cluster+"-control-plane"))
	if err != nil {
		return err
	}
	b.image = strings.TrimSpace(string(out))
	// Where neither coming nor going is measured, what is there will do.
	anew := b.wants(doUp) || b.wants(doDown)
	if anew {
		if err := b.down(ctx); err != nil {
			return err
		}
	}
	round := 0
	err = b.eachRound(ctx, func(ctx context.Context) error {
		round++
		return b.round(ctx, anew, round == b.rounds)
	})
	if err != nil || anew {
		return err
	}
	return b.down(ctx)
}

func (b *bench) wants(what string) bool { return slices.Contains(b.only, what) }

func (b *bench) eachRound(ctx context.Context, do func(context.Context) error) error {
	for i := range b.rounds {
		b.say("round %d of %d", i+1, b.rounds)
		if err := do(ctx); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
	}
	return nil
}

// round measures everything but the cold build once, and in the last round what is measured only once.
func (b *bench) round(ctx context.Context, anew, last bool) error {
	if err := b.byKind(ctx); err != nil {
		return err
	}
	if anew {
		if err := b.coming(ctx); err != nil {
			return err
		}
	}
	if b.wants(doAgain) {
		if err := b.timed(ctx, rowAgain, b.cluster, func(ctx context.Context) error { return b.product(ctx, "up") }); err != nil {
			return err
		}
	}
	if b.wants(doStart) {
		if err := b.timed(ctx, rowStop, b.cluster, func(ctx context.Context) error { return b.product(ctx, "stop") }); err != nil {
			return err
		}
		if err := b.timed(ctx, rowStart, b.cluster, func(ctx context.Context) error {
			return errors.Join(b.product(ctx, "start"), b.order(ctx))
		}); err != nil {
			return err
		}
	}
	if b.wants(doDeploy) {
		if err := b.deploy(ctx); err != nil {
			return err
		}
	}
	if b.wants(doRestore) {
		if err := b.timed(ctx, rowRestore, b.cluster, func(ctx context.Context) error {
			return b.product(ctx, "snapshot", "restore", full)
		}); err != nil {
			return err
		}
	}
	if last && b.wants(doTrace) {
		if err := b.trace(ctx); err != nil {
			return err
		}
	}
	if b.wants(doVersion) {
		if err := b.versions(ctx); err != nil {
			return err
		}
	}
	switch {
	case !anew:
		return nil
	case !b.wants(doDown):
		return b.down(ctx)
	}
	return b.timed(ctx, rowDown, b.cluster, b.down)
}

// byKind measures the yardsticks.
func (b *bench) byKind(ctx context.Context) error {
	for _, y := range []struct {
		what, row string
		plain     bool
	}{{doKind, rowKind, true}, {doImage, rowImage, false}} {
		if !b.wants(y.what) {
			continue
		}
		if err := b.timed(ctx, y.row, b.yardstick(), func(ctx context.Context) error { return b.createByKind(ctx, y.plain) }); err != nil {
			return err
		}
		if err := b.deleteByKind(ctx); err != nil {
			return err
		}
	}
	return nil
}

// coming measures the way up to the first confirmed order, and the memory that it takes.
func (b *bench) coming(ctx context.Context) error {
	if !b.wants(doUp) {
		return b.up(ctx)
	}
	var peak int64
	err := b.timed(ctx, rowUp, b.cluster, func(ctx context.Context) (err error) {
		if peak, err = b.watched(ctx, "up", "--api-port", strconv.Itoa(b.port)); err != nil {
			return err
		}
		return b.order(ctx)
	})
	if err == nil {
		b.table.add(rowMemory, sample{value: float64(peak) / (1 << 20)})
	}
	return err
}

// deploy measures what a change of one line takes, in whole and in parts.
func (b *bench) deploy(ctx context.Context) error {
	if err := b.change(); err != nil {
		return err
	}
	var parts []struct {
		Changed bool  `json:"changed"`
		BuildMS int64 `json:"buildMilliseconds"`
		LoadMS  int64 `json:"loadMilliseconds"`
		RollMS  int64 `json:"rollMilliseconds"`
	}
	err := b.timed(ctx, rowDeploy, b.cluster, func(ctx context.Context) error {
		out, err := b.run.Run(ctx, b.line("deploy", "order", "-o", "json"))
		if err != nil {
			return err
		}
		return json.Unmarshal(out, &parts)
	})
	if err != nil {
		return err
	}
	if len(parts) != 1 || !parts[0].Changed {
		return fmt.Errorf("deploy found nothing to do: %+v", parts)
	}
	for row, took := range map[string]int64{rowBuild: parts[0].BuildMS, rowLoad: parts[0].LoadMS, rowRoll: parts[0].RollMS} {
		b.table.add(row, sample{value: float64(took) / 1000})
	}
	return nil
}

// changed is the line that is changed, in a package that the service's program links.
const changed = `"the database refused an order's data`

// change changes one line of order-api in the copy of the checkout, each time to what it has never been.
func (b *bench) change() error {
	path := filepath.Join(b.copy, "pkg", "order", "http.go")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, after, found := strings.Cut(string(text), changed)
	_, after, ended := strings.Cut(after, `"`)
	if !found || !ended {
		return fmt.Errorf("change a line: %s has no %s", path, changed)
	}
	b.changes++
	stamp := fmt.Sprintf(`, %d of the bench of %s"`, b.changes, time.Now().Format(time.RFC3339Nano))
	return os.WriteFile(path, []byte(before+changed+stamp+after), 0o644)
}

// versions measures the program's start.
func (b *bench) versions(ctx context.Context) error {
	for range starts {
		began := time.Now()
		if err := b.product(ctx, "version"); err != nil {
			return err
		}
		b.table.add(rowVersion, sample{value: time.Since(began).Seconds()})
	}
	return nil
}

// prepareData saves a snapshot with a hundred thousand orders that have come to their ends, with all that belongs to them.
func (b *bench) prepareData(ctx context.Context) error {
	if !b.wants(doRestore) {
		return nil
	}
	b.say("saving a snapshot with 100,000 orders")
	if err := b.fill(ctx, 100_000); err != nil {
		return err
	}
	return b.product(ctx, "snapshot", "save", full)
}

// fill stores orders that have come to their ends, with all that belongs to them.
func (b *bench) fill(ctx context.Context, orders int) error {
	for _, line := range [][]string{
		{"psql", "-c", "UPDATE shows SET capacity = 2000000 WHERE id = 1"},
		{"psql", "-c", fmt.Sprintf(`WITH o AS (
	INSERT INTO orders (user_id, show_id, quantity, status, ended_at)
	SELECT (n %% 1000)::text, 1, 1, 'CONFIRMED', now() FROM generate_series(1, %d) n RETURNING id, user_id
), r AS (
	INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at) SELECT 1, id, 1, 'COMMITTED', now() FROM o
), p AS (
	INSERT INTO payments (order_id, user_id, amount, status, message_id) SELECT id, user_id, 50, 'SUCCEEDED', 'order.created:' || id FROM o
)
INSERT INTO order_events (order_id, hop, pod) SELECT o.id, hop, 'bench' FROM o, unnest(ARRAY['accepted', 'payment_succeeded', 'confirmed']) hop`, orders)},
		{"verify"},
	} {
		if err := b.product(ctx, line...); err != nil {
			return err
		}
	}
	return nil
}

// trace measures how long it takes to tell the life of one order of a million.
func (b *bench) trace(ctx context.Context) error {
	b.say("storing a million orders")
	if err := b.fill(ctx, 1_000_000); err != nil {
		return err
	}
	for i := range starts {
		err := b.timed(ctx, rowTrace, b.cluster, func(ctx context.Context) error {
			return b.product(ctx, "trace", strconv.Itoa((i+1)*1_000_000/(starts+1)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// asksFirst makes sure that nobody's cluster goes because nobody could be asked.
func (b *bench) asksFirst(ctx context.Context) error {
	err := b.product(ctx, "down", "--no-snapshot")
	if code := command.ExitCode(err); code != fault.CodeUsage {
		return fmt.Errorf("down without a terminal and without -y ended with %d, not %d: %w", code, fault.CodeUsage, err)
	}
	return b.order(ctx)
}

func (b *bench) up(ctx context.Context) error {
	return b.product(ctx, "up", "--api-port", strconv.Itoa(b.port))
}

func (b *bench) down(ctx context.Context) error {
	return b.product(ctx, "down", "-y", "--no-snapshot")
}

// line is a call of the product, in the copy of the checkout.
func (b *bench) line(args ...string) command.Command {
	return command.Command{Name: b.binary, Args: args, Dir: b.copy, Env: b.env}
}

func (b *bench) product(ctx context.Context, args ...string) error {
	_, err := b.run.Run(ctx, b.line(args...))
	return err
}

// order places orders until one is CONFIRMED; of the first ten nine are.
func (b *bench) order(ctx context.Context) error {
	for range 10 {
		out, err := b.run.Run(ctx, b.line("order", "--show", "1", "--qty", "1", "-o", "json"))
		if err != nil {
			return err
		}
		if strings.Contains(string(out), `"CONFIRMED"`) {
			return nil
		}
	}
	return errors.New("none of ten orders was confirmed")
}

// watched runs the product and tells the most memory that it had, in bytes: of its own process, without the programs that it
// runs. 0 is where the machine does not tell.
func (b *bench) watched(ctx context.Context, args ...string) (peak int64, err error) {
	line := b.line(args...)
	cmd := exec.CommandContext(ctx, line.Name, line.Args...)
	cmd.Dir, cmd.Env = line.Dir, append(os.Environ(), line.Env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = leaving
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		peak = max(peak, peakMemory(cmd.Process.Pid))
		select {
		case err := <-ended:
			if err != nil {
				err = fmt.Errorf("%s: %w\n%s", line, err, said.String())
			}
			return peak, err
		case <-again.C:
		}
	}
}

// peakMemory is the most memory that a process has had, in bytes; 0 where it is gone.
func peakMemory(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return 0
}
