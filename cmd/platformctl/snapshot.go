package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
	"platformctl/pkg/platform"
	"platformctl/pkg/snapshot"
	"platformctl/pkg/terminal"
)

// theData is what the commands want of the platform's data; a snapshot.Platform is it.
type theData interface {
	Save(ctx context.Context, to snapshot.Folder, name string) (snapshot.Manifest, error)
	SaveBefore(ctx context.Context, to snapshot.Folder, reason string) (m snapshot.Manifest, fresh bool, err error)
	TakeSeed(ctx context.Context, to snapshot.Folder) (taken bool, err error)
	Restore(ctx context.Context, from snapshot.Folder, name string, keep bool) (m, before snapshot.Manifest, err error)
}

func newSnapshot(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Save the platform's data under a name, and bring it back",
		Long: `snapshot saves what PostgreSQL and RabbitMQ hold, at one cut: orders wait for a
moment until what is on its way has come to its end, and the dead letters are
saved with the tables. Snapshots outlive the cluster.

The first up takes one named seed, so that restore seed is the reset. restore,
down and cleanup first save what they destroy, and say how to get it back; of
these the newest three of each are kept.`,
		Example: `  platformctl snapshot save before-the-demo
  platformctl snapshot restore before-the-demo
  platformctl snapshot restore seed`,
		Args: noSubcommand(e),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	// So that its last line has room.
	cmd.SetUsageTemplate(strings.Replace(cmd.UsageTemplate(), "for more information about", "for more about", 1))
	cmd.AddCommand(newSnapshotSave(e), newSnapshotRestore(e), newSnapshotLs(e), newSnapshotRm(e))
	return cmd
}

// oneName wants exactly one name.
func oneName(e *env) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fault.Usage(e.self()+" snapshot ls", "%s takes one name, and got %d", cmd.CommandPath(), len(args))
		}
		return nil
	}
}

// known completes names of snapshots.
func (e *env) known(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	folder, err := e.snapshots()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	all, err := folder.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, k := range all {
		names = append(names, k.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// snapshots is where those of this cluster lie: beside its folder, which goes with it.
func (e *env) snapshots() (snapshot.Folder, error) {
	set, err := e.settings()
	if err != nil {
		return "", err
	}
	return snapshot.Folder(filepath.Join(set.State, "snapshots", set.Cluster)), nil
}

func newSnapshotSave(e *env) *cobra.Command {
	return &cobra.Command{
		Use:         "save NAME",
		Short:       "Save the data under a name",
		Args:        oneName(e),
		Annotations: map[string]string{annotationRerun: "nothing was saved; the snapshots that there were are whole"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return saveSnapshot(cmd.Context(), e, args[0])
		},
	}
}

func saveSnapshot(ctx context.Context, e *env, name string) error {
	if err := snapshot.CheckName(name); err != nil {
		return err
	}
	p, folder, err := e.platformAndSnapshots()
	if err != nil {
		return err
	}
	var m snapshot.Manifest
	err = e.withData(ctx, p, "it is to be saved as "+name, func(ctx context.Context, data theData) (err error) {
		m, err = data.Save(ctx, folder, name)
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.Out, "saved as %s: %s\n", m.Name, contents(m))
	return err
}

type restoreFlags struct{ noSnapshot bool }

func newSnapshotRestore(e *env) *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore NAME",
		Short: "Replace the data by a snapshot",
		Long: `restore replaces all that PostgreSQL and RabbitMQ hold by a snapshot. What it
replaces is saved first. Orders that come in meanwhile wait; ids that were given
out once are not given out again. The files are checked before anything is
changed.`,
		Args:              oneName(e),
		ValidArgsFunction: e.known,
		Annotations:       map[string]string{annotationRerun: "run it again: a restore takes effect as a whole, or not at all"},
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), e, args[0]) },
	}
	cmd.Flags().BoolVar(&f.noSnapshot, "no-snapshot", false, "do not save first what is replaced")
	return cmd
}

func (f restoreFlags) run(ctx context.Context, e *env, name string) error {
	p, folder, err := e.platformAndSnapshots()
	if err != nil {
		return err
	}
	if _, err := folder.Find(name); err != nil {
		return err
	}
	began := time.Now()
	var m, before snapshot.Manifest
	err = e.withData(ctx, p, "snapshot "+name+" is to take its place", func(ctx context.Context, data theData) (err error) {
		m, before, err = data.Restore(ctx, folder, name, !f.noSnapshot)
		return err
	})
	if err != nil {
		return err
	}
	if before.Name != "" && before.Name != name {
		e.ui().Say("What was there before is in " + before.Name + " (" + contents(before) + "). To have it back:\n  " + e.line("snapshot restore "+before.Name))
	}
	_, err = fmt.Fprintf(e.Out, "restored %s in %s: %s\n", m.Name, terminal.Duration(time.Since(began)), contents(m))
	return err
}

// contents says what a snapshot holds.
func contents(m snapshot.Manifest) string {
	text := plural(int(m.Orders), "order")
	if m.Pending > 0 {
		text += fmt.Sprintf(", %d of them without an end", m.Pending)
	}
	return text + ", " + plural(m.DeadLetters, "dead letter")
}

type snapshotLsFlags struct{ out output }

func newSnapshotLs(e *env) *cobra.Command {
	var f snapshotLsFlags
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the snapshots, the newest first",
		Args:  noArgs,
		RunE:  func(*cobra.Command, []string) error { return f.run(e) },
	}
	f.out.add(cmd.Flags())
	return cmd
}

// listedSnapshot is a line of snapshot ls.
type listedSnapshot struct {
	Name        string    `json:"name"`
	Taken       time.Time `json:"taken"`
	Reason      string    `json:"reason,omitempty"` // it was taken by up, or before a restore, down or cleanup
	Orders      int64     `json:"orders"`
	Pending     int64     `json:"pending"`
	DeadLetters int       `json:"deadLetters"`
	Schema      int64     `json:"schema"`
	Bytes       int64     `json:"bytes"`
	Broken      string    `json:"broken,omitempty"`
	Path        string    `json:"path"`
}

func (f snapshotLsFlags) run(e *env) error {
	asJSON, err := f.out.json()
	if err != nil {
		return err
	}
	folder, err := e.snapshots()
	if err != nil {
		return err
	}
	all, err := folder.List()
	if err != nil {
		return err
	}
	lines := make([]listedSnapshot, 0, len(all))
	for _, k := range all {
		lines = append(lines, listedSnapshot{
			Name: k.Name, Taken: k.Taken, Reason: k.Automatic, Orders: k.Orders, Pending: k.Pending, DeadLetters: k.DeadLetters,
			Schema: k.Schema, Bytes: k.Bytes(), Broken: k.Broken, Path: filepath.Join(string(folder), k.Name),
		})
	}
	if asJSON {
		return printJSON(e.Out, lines)
	}
	if len(lines) == 0 {
		e.ui().Say("there are no snapshots; to take one: " + e.line("snapshot save NAME"))
		return nil
	}
	rows := make([][]string, 0, len(lines))
	for _, l := range lines {
		row := []string{l.Name, "", "", "", "", l.Broken}
		if l.Broken == "" {
			row = []string{
				l.Name, terminal.Age(time.Since(l.Taken)), strconv.FormatInt(l.Orders, 10), strconv.Itoa(l.DeadLetters), terminal.Bytes(l.Bytes),
				map[string]string{"": "save", "up": "the first up"}[l.Reason],
			}
			if row[5] == "" {
				row[5] = "before " + l.Reason
			}
		}
		rows = append(rows, row)
	}
	return terminal.Table(e.Out, []string{"NAME", "AGE", "ORDERS", "DEAD LETTERS", "SIZE", "TAKEN BY"}, rows)
}

func newSnapshotRm(e *env) *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME...",
		Short:             "Delete snapshots",
		ValidArgsFunction: e.known,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fault.Usage(e.self()+" snapshot ls", "%s takes one name or several", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return removeSnapshots(cmd.Context(), e, args) },
	}
}

func removeSnapshots(ctx context.Context, e *env, names []string) error {
	p, folder, err := e.platformAndSnapshots()
	if err != nil {
		return err
	}
	// All names are looked at before the first is deleted. One that is broken may go too.
	for _, name := range names {
		if err := snapshot.CheckName(name); err != nil {
			return err
		}
		if there, err := folder.Has(name); err != nil {
			return err
		} else if !there {
			_, err := folder.Find(name)
			return err
		}
	}
	return p.Alone(ctx, e.ui().Event, "snapshot", "to be deleted: "+strings.Join(names, ", "), func(context.Context, func(plan.Note)) error {
		for _, name := range names {
			if err := folder.Remove(name); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *env) platformAndSnapshots() (thePlatform, snapshot.Folder, error) {
	p, err := e.platform()
	if err != nil {
		return nil, "", err
	}
	folder, err := e.snapshots()
	return p, folder, err
}

// withData does something with the platform's data under the cluster's lock. Where there is no database that is a fault.
func (e *env) withData(ctx context.Context, p thePlatform, cause string, do func(context.Context, theData) error) error {
	return p.Alone(ctx, e.ui().Event, "snapshot", cause, func(ctx context.Context, note func(plan.Note)) error {
		data, err := e.data(ctx, p, note)
		if err == nil && data == nil {
			err = fault.Unfit(e.line("up"), "the platform is not running: there is no database in its cluster")
		}
		if err != nil {
			return err
		}
		return do(ctx, data)
	})
}

// keepTime bounds how long a platform that may be broken is tried to be saved before it is deleted.
const keepTime = 45 * time.Second

// keep saves what a command is about to destroy, and says how to get it back. Where it can not be saved, that is an error, and
// the user's to decide.
func (e *env) keep(ctx context.Context, p thePlatform, command string) error {
	folder, err := e.snapshots()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, keepTime)
	defer cancel()
	var m snapshot.Manifest
	var fresh bool
	err = p.Alone(ctx, e.ui().Event, "snapshot", "the data is about to be deleted", func(ctx context.Context, note func(plan.Note)) error {
		data, err := e.data(ctx, p, note)
		if err != nil || data == nil {
			return err
		}
		m, fresh, err = data.SaveBefore(ctx, folder, command)
		return err
	})
	if err != nil {
		return fault.New(fault.CodeOf(err), e.line(command+" --no-snapshot")+"   # deletes it without saving it", "nothing was deleted, for the data could not be saved first: %w", err)
	}
	switch {
	case fresh:
		e.ui().Say("The data is saved as " + m.Name + " (" + contents(m) + "). To have it back:")
	case m.Name == "" || m.Name == snapshot.Seed:
		return nil // what every up makes
	default:
		e.ui().Say("Snapshot " + m.Name + " has all of the data (" + contents(m) + "). To have it back:")
	}
	e.ui().Say("  " + e.line("up") + " && " + e.line("snapshot restore "+m.Name))
	return nil
}

// seed takes the seed after the first up. Without one the platform is up all the same.
func (e *env) seed(ctx context.Context, p thePlatform) error {
	folder, err := e.snapshots()
	if err != nil {
		return err
	}
	quiet := func(plan.Event) {} // the platform is up, and nobody waits for this
	return p.Alone(ctx, quiet, "snapshot", "there may be no seed", func(ctx context.Context, note func(plan.Note)) error {
		data, err := e.data(ctx, p, note)
		if err != nil || data == nil {
			return err
		}
		_, err = data.TakeSeed(ctx, folder)
		return err
	})
}

// dataOf is the running platform's data, nil where it has no database.
func (e *env) dataOf(ctx context.Context, p thePlatform, note func(plan.Note)) (theData, error) {
	database, err := p.Database(ctx)
	if err != nil || database == nil {
		return nil, err
	}
	client, err := p.Kube(ctx)
	if err != nil {
		return nil, err
	}
	postgres, err := platform.FindService("postgres")
	if err != nil {
		return nil, err
	}
	rabbit, err := platform.FindService("rabbitmq")
	if err != nil {
		return nil, err
	}
	return snapshot.Platform{
		Database: snapshot.Database{
			Dial: func(ctx context.Context) (net.Conn, error) {
				return client.Dial(ctx, postgres.Namespace, postgres.Workload+"-0", 5432)
			},
			User: "postgres", Password: database.Password, Database: "postgresdb",
			Exec: inPod(client, kube.Exec{Namespace: postgres.Namespace, Pod: postgres.Workload + "-0", Container: postgres.Container}),
		},
		Broker: snapshot.Broker{
			Exec:  inPod(client, kube.Exec{Namespace: rabbit.Namespace, Pod: rabbit.Workload + "-0", Container: rabbit.Container}),
			VHost: "/", Queues: platform.WorkQueues(), DeadLetters: platform.DeadLetters,
		},
		Origin: database.Life, Program: version,
		Say: func(n snapshot.Note) {
			if n.Waiting != "" {
				note(plan.Note{Text: "waiting", Message: n.Waiting})
			} else {
				note(plan.Note{Text: n.Doing})
			}
		},
	}, nil
}

// inPod runs programs in a container.
func inPod(client *kube.Client, at kube.Exec) snapshot.Exec {
	return func(ctx context.Context, stdin io.Reader, stdout io.Writer, argv ...string) error {
		var said bytes.Buffer
		x := at
		x.Argv, x.Stdin, x.Stdout, x.Stderr = argv, stdin, stdout, &said
		code, err := client.Exec(ctx, x)
		if err == nil && code != 0 {
			err = fmt.Errorf("%s in pod %s/%s ended with %d: %.2000s", argv[0], x.Namespace, x.Pod, code, strings.TrimSpace(said.String()))
		}
		return err
	}
}
