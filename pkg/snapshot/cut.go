package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"platformctl/pkg/fault"
)

// Platform is the running platform whose data is saved and restored.
type Platform struct {
	Database Database
	Broker   Broker
	Origin   string // another one for each life of the database
	Program  string // version of platformctl
	Say      func(Note)
}

// Note is what a Platform says of its work.
type Note struct {
	Doing   string // what it is at
	Waiting string // or what it waits for
}

// Seed is the name of the snapshot of a platform in which nothing was ordered yet.
const Seed = "seed"

const (
	// restTime is how long what is on its way may take to come to its end while orders wait.
	restTime = 15 * time.Second
	restLook = 10 * time.Millisecond
	// steady is how long nothing must have moved for orders without an end to be taken for ones that get none: their events are
	// dead letters.
	steady = time.Second
)

// Save saves the platform's data under a name that no snapshot has. No order is lost and none is refused meanwhile: those that
// come in wait until what was on its way has come to its end, a matter of some tenths of a second.
func (p Platform) Save(ctx context.Context, to Folder, name string) (Manifest, error) {
	if err := CheckName(name); err != nil {
		return Manifest{}, err
	}
	if there, err := to.Has(name); err != nil {
		return Manifest{}, err
	} else if there {
		return Manifest{}, fault.Usage("platformctl snapshot rm "+name, "there is a snapshot %s already", name)
	}
	m, _, err := p.save(ctx, to, func(Manifest) string { return name }, "")
	return m, err
}

// SaveBefore saves what something is about to destroy, the data of a reason such as "down", unless a snapshot
// has all of it already. It returns that snapshot, or the new one and fresh. Of each reason the newest few stay.
func (p Platform) SaveBefore(ctx context.Context, to Folder, reason string) (m Manifest, fresh bool, err error) {
	m, fresh, err = p.save(ctx, to, before(reason), reason)
	if err == nil && fresh {
		err = to.prune(reason)
	}
	return m, fresh, err
}

// TakeSeed saves a platform in which nothing was ordered yet as Seed, unless there is one of this life of the database, or
// somebody saved one by that name. It tells whether it did.
func (p Platform) TakeSeed(ctx context.Context, to Folder) (taken bool, err error) {
	there, err := to.manifest(Seed)
	if err == nil && (there.Automatic == "" || there.Origin == p.Origin) {
		return false, nil
	}
	s, err := p.Database.connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if untouched, err := s.snapshotUntouched(ctx); err != nil || !untouched {
		return false, err
	}
	d, err := to.begin()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, d.drop()) }()
	m, err := p.export(ctx, s, d, found{})
	if err == nil {
		err = m.fetch(ctx)
	}
	if err != nil {
		return false, err
	}
	m.Name, m.Automatic = Seed, "up"
	return true, d.keep(m.Manifest)
}

// work is a session and a script at the two servers.
type work struct {
	s *session
	e *errands
}

func (p Platform) begin(ctx context.Context) (w work, err error) {
	w.e = p.Broker.open(ctx) // it takes its time, and nobody waits yet
	if w.s, err = p.Database.connect(ctx); err != nil {
		return w, errors.Join(err, w.e.close())
	}
	return w, nil
}

// end ends both; it is called once.
func (w work) end() error {
	said := make(chan error, 1)
	go func() { said <- w.e.close() }()
	return errors.Join(w.s.close(), <-said)
}

// save writes the data as a draft and keeps it. Without being asked for, it is not kept where another snapshot has the same.
func (p Platform) save(ctx context.Context, to Folder, name func(Manifest) string, reason string) (m Manifest, fresh bool, err error) {
	d, err := to.begin()
	if err != nil {
		return m, false, err
	}
	defer func() { err = errors.Join(err, d.drop()) }()
	if reason != "" {
		// Where nothing was ordered the broker need not be asked, which may be what ails the platform.
		if m, fresh, done, err := p.saveUntouched(ctx, to, d, name, reason); err != nil || done {
			return m, fresh, err
		}
	}
	w, err := p.begin(ctx)
	if err != nil {
		return m, false, err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	f, err := p.rest(ctx, w)
	if err != nil {
		return m, false, err
	}
	// The database's snapshot and the dead letters are of this moment; from here on orders may come in.
	if err := errors.Join(w.s.letGo(ctx), w.s.resume(ctx)); err != nil {
		return m, false, err
	}
	return p.finish(ctx, w.s, d, to, f, name, reason)
}

// saveUntouched saves a platform in which nothing was ordered; it is done if this is one.
func (p Platform) saveUntouched(ctx context.Context, to Folder, d *draft, name func(Manifest) string, reason string) (m Manifest, fresh, done bool, err error) {
	s, err := p.Database.connect(ctx)
	if err != nil {
		return m, false, false, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if untouched, err := s.snapshotUntouched(ctx); err != nil || !untouched {
		return m, false, false, err
	}
	m, fresh, err = p.finish(ctx, s, d, to, found{}, name, reason)
	return m, fresh, true, err
}

// finish exports, in the session's transaction, and keeps the draft or finds that there is no need to.
func (p Platform) finish(ctx context.Context, s *session, d *draft, to Folder, f found, name func(Manifest) string, reason string) (m Manifest, fresh bool, err error) {
	x, err := p.export(ctx, s, d, f)
	if err != nil {
		return m, false, err
	}
	return p.conclude(ctx, x, d, to, name, reason)
}

// conclude keeps what was exported, or finds that there is no need to.
func (p Platform) conclude(ctx context.Context, x *exported, d *draft, to Folder, name func(Manifest) string, reason string) (m Manifest, fresh bool, err error) {
	if err := x.fetch(ctx); err != nil {
		return m, false, err
	}
	m = x.Manifest
	m.Automatic = reason
	if reason != "" {
		all, err := to.List()
		if err != nil {
			return m, false, err
		}
		for _, k := range all {
			if k.Broken == "" && same(k.Manifest, m) {
				return k.Manifest, false, nil
			}
		}
	}
	m.Name = name(m)
	for n := 2; reason != ""; n++ { // two within a second
		there, err := to.Has(m.Name)
		if err != nil {
			return m, false, err
		}
		if !there {
			break
		}
		m.Name = fmt.Sprintf("%s-%d", name(m), n)
	}
	return m, true, d.keep(m)
}

// same tells whether two snapshots hold the same rows and letters.
func same(a, b Manifest) bool {
	return a.Schema == b.Schema && a.Letters == b.Letters && slices.EqualFunc(a.Tables, b.Tables, func(a, b Table) bool {
		return a.Name == b.Name && a.Part == b.Part && slices.Equal(a.Columns, b.Columns)
	})
}

// exported is data that was read at the cut. It is in the draft after fetch, which needs no transaction any more.
type exported struct {
	Manifest
	fetch func(context.Context) error
}

// export reads all data, within the transaction that the session is in, and ends it.
func (p Platform) export(ctx context.Context, s *session, d *draft, f found) (*exported, error) {
	p.Say(Note{Doing: "saving what is there"})
	x := &exported{Manifest: Manifest{Taken: time.Now().UTC().Truncate(time.Millisecond), Program: p.Program, Origin: p.Origin, DeadLetters: f.number}}
	if err := s.about(ctx, &x.Manifest); err != nil {
		return x, err
	}
	many, err := s.many(ctx)
	if err != nil {
		return x, err
	}
	if many {
		err = p.exportBeside(ctx, s, d, f, x)
	} else {
		err = p.exportHere(ctx, s, d, f, x)
	}
	if err != nil {
		return x, err
	}
	return x, s.release(ctx)
}

func (p Platform) exportHere(ctx context.Context, s *session, d *draft, f found, x *exported) error {
	for i := range x.Tables {
		t := &x.Tables[i]
		part, err := d.part(func(to io.Writer) (err error) {
			t.Rows, err = s.export(ctx, *t, to)
			return err
		})
		if err != nil {
			return err
		}
		t.Part = part
	}
	x.fetch = func(context.Context) error { return nil }
	return d.letters(f, &x.Manifest)
}

func (p Platform) exportBeside(ctx context.Context, s *session, d *draft, f found, x *exported) (err error) {
	for i := range x.Tables {
		t := &x.Tables[i]
		if t.Rows, err = s.exportBeside(ctx, *t, i == 0); err != nil {
			return err
		}
	}
	x.fetch = func(ctx context.Context) error {
		err := p.Database.fetch(ctx, len(x.Tables), func(i int, rows io.Reader) (err error) {
			x.Tables[i].Part, err = d.part(func(to io.Writer) error {
				_, err := io.Copy(to, rows)
				return err
			})
			return err
		})
		if err != nil {
			return err
		}
		return d.letters(f, &x.Manifest)
	}
	return nil
}

// letters writes the dead letters, which come last.
func (d *draft) letters(f found, m *Manifest) (err error) {
	m.Letters, err = d.part(func(to io.Writer) error {
		_, err := to.Write(f.letters)
		return err
	})
	if err != nil {
		return fmt.Errorf("save the dead letters: %w", err)
	}
	return nil
}

// Restore replaces what the platform holds by a snapshot. With keep it saves first what it replaces, as SaveBefore does, and
// returns that. Nothing is changed by a snapshot that was altered, or that does not fit the database. Orders wait meanwhile.
func (p Platform) Restore(ctx context.Context, from Folder, name string, keep bool) (m, before Manifest, err error) {
	if m, err = from.Find(name); err != nil {
		return m, before, err
	}
	w, err := p.begin(ctx)
	if err != nil {
		return m, before, err
	}
	defer func() { err = errors.Join(err, w.end()) }()
	data, err := from.open(m)
	if err != nil {
		return m, before, err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	letters := make([]byte, m.Letters.Bytes)
	if _, err := data.ReadAt(letters, m.Bytes()-m.Letters.Bytes); err != nil && m.Letters.Bytes > 0 {
		return m, before, fmt.Errorf("read the dead letters of snapshot %s: %w", name, err)
	}
	var now Manifest
	if err := w.s.about(ctx, &now); err != nil {
		return m, before, err
	}
	if err := fits(m, now); err != nil {
		return m, before, err
	}
	rows := io.Reader(data)
	if m.Bytes() > fewPacked { // before orders have to wait
		p.Say(Note{Doing: "bringing " + m.Name})
		if err := p.Database.bring(ctx, io.LimitReader(data, m.Bytes()-m.Letters.Bytes)); err != nil {
			return m, before, err
		}
		rows = nil
	}
	f, err := p.rest(ctx, w)
	if err != nil {
		return m, before, err
	}
	if err := w.s.letGo(ctx); err != nil {
		return m, before, err
	}
	kept := func() error { return nil }
	if keep {
		if kept, err = p.keepBefore(ctx, w.s, from, f, &before); err != nil {
			return m, before, err
		}
	} else if err := w.s.release(ctx); err != nil {
		return m, before, err
	}
	p.Say(Note{Doing: "loading " + m.Name})
	err = w.s.replace(ctx, m, rows)
	if err := errors.Join(err, kept()); err != nil {
		return m, before, err
	}
	p.Say(Note{Doing: "putting back the dead letters"})
	// Last, for it knows no transaction: what can fail has been done by now.
	if err := w.e.write(ctx, letters, m.DeadLetters); err != nil {
		return m, before, fmt.Errorf("the tables are as they were; the dead letters may not be: %w", err)
	}
	return m, before, w.s.commit(ctx)
}

// keepBefore saves what a restore replaces: it reads it, in the transaction that the session is in, and writes it while the
// session goes on. kept returns when that is done, and must be called.
func (p Platform) keepBefore(ctx context.Context, s *session, to Folder, f found, m *Manifest) (kept func() error, err error) {
	d, err := to.begin()
	if err != nil {
		return nil, err
	}
	x, err := p.export(ctx, s, d, f)
	if err != nil {
		return nil, errors.Join(err, d.drop())
	}
	done := make(chan error, 1)
	go func() {
		done <- func() (err error) {
			defer func() { err = errors.Join(err, d.drop()) }()
			var fresh bool
			if *m, fresh, err = p.conclude(ctx, x, d, to, before("restore"), "restore"); err != nil || !fresh {
				return err
			}
			return to.prune("restore")
		}()
	}()
	return func() error { return <-done }, nil
}

// before names what is saved before something is destroyed.
func before(reason string) func(Manifest) string {
	return func(m Manifest) string { return "before-" + reason + m.Taken.Format("-20060102-150405") }
}

// fits is a fault where the database is not one that the snapshot can be loaded into as it is.
func fits(m, now Manifest) error {
	switch differs := shape(m.Tables, now.Tables); {
	case m.Schema > now.Schema:
		return fault.New(fault.CodeFailed, "check out the newer version, then platformctl up",
			"snapshot %s is of schema version %d, and the database is at %d", m.Name, m.Schema, now.Schema)
	case differs != "":
		return fault.New(fault.CodeFailed, "restore it by the version that took it, then platformctl up with this one migrates it",
			"snapshot %s is of schema version %d, whose tables are not those of version %d: %s", m.Name, m.Schema, now.Schema, differs)
	}
	return nil
}

// rest pauses the intake and returns when nothing is on its way any more: no event in the outbox, no message in a queue or in a
// consumer's hands but the dead letters. The session is in a transaction then, whose snapshot is of that moment and which holds
// the outbox.
func (p Platform) rest(ctx context.Context, w work) (found, error) {
	if err := w.s.checkPause(ctx); err != nil {
		return found{}, err
	}
	if err := w.e.ready(); err != nil {
		return found{}, err
	}
	p.Say(Note{Doing: "orders wait until the platform is at rest"})
	if err := w.s.pause(ctx); err != nil {
		return found{}, err
	}
	over := time.NewTimer(restTime)
	defer over.Stop()
	again := time.NewTicker(restLook)
	defer again.Stop()
	said, last, moved := time.Now(), int64(-1), time.Now()
	for {
		events, orders, err := w.s.moving(ctx)
		if err != nil {
			return found{}, err
		}
		if orders != last {
			last, moved = orders, time.Now()
		}
		why := fmt.Sprintf("%d events in the outbox and %d orders without an end", events, orders)
		if events == 0 && (orders == 0 || time.Since(moved) >= steady) {
			empty, err := w.s.hold(ctx)
			if err != nil {
				return found{}, err
			}
			if empty {
				f, err := w.e.look(ctx)
				if err != nil || f.waiting == 0 {
					return f, err
				}
				why = fmt.Sprintf("%d messages in queues, the first in %s", f.waiting, f.where)
				if err := w.s.release(ctx); err != nil {
					return found{}, err
				}
			}
		}
		if time.Since(said) > time.Second {
			said = time.Now()
			p.Say(Note{Waiting: why})
		}
		select {
		case <-ctx.Done():
			return found{}, context.Cause(ctx)
		case <-over.C:
			return found{}, fault.TimedOut("platformctl status\nplatformctl logs order payment",
				"the platform has not come to rest in %s, with no orders let in: there are %s", restTime, why)
		case <-again.C:
		}
	}
}
