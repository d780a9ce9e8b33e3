package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/kube"
	"platformctl/pkg/plan"
	"platformctl/pkg/platform"
	"platformctl/pkg/snapshot"
)

// fakePlatform notes what it is asked for, and answers as it is told to.
type fakePlatform struct {
	settings platform.Settings
	calls    []string

	api       string
	err       error // of every call
	losses    []string
	foresight []platform.Foresight
	ailments  []platform.Ailment
	status    platform.Status
	images    []platform.CachedImage
	last      platform.Run
	deployed  []platform.Deployed
	path      string
	code      int
	data      fakeData
	broker    *fakeBroker
	whileUp   func(context.Context) error
	mendNotes []string
	held      error // of Hold
}

func (f *fakePlatform) called(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fakePlatform) Up(ctx context.Context, on func(plan.Event)) (string, error) {
	f.called("up")
	on(plan.Event{Time: time.Now(), Step: "host/engine", Kind: plan.Planned})
	on(plan.Event{Time: time.Now(), Step: "host/engine", Kind: plan.Checking})
	on(plan.Event{Time: time.Now(), Step: "host/engine", Kind: plan.Doing, Cause: "docker is not there"})
	for _, n := range f.mendNotes {
		on(plan.Event{Time: time.Now(), Step: "host/engine", Kind: plan.Noted, Note: plan.Note{Text: n}})
	}
	on(plan.Event{Time: time.Now(), Step: "host/engine", Kind: plan.Done, Took: time.Second, Cause: "docker is not there"})
	if f.whileUp != nil {
		return "", f.whileUp(ctx)
	}
	return f.api, f.err
}
func (f *fakePlatform) Foresee(context.Context) ([]platform.Foresight, error) {
	f.called("foresee")
	return f.foresight, f.err
}
func (f *fakePlatform) Stop(context.Context, func(plan.Event)) error { f.called("stop"); return f.err }
func (f *fakePlatform) Start(context.Context, func(plan.Event)) (string, error) {
	f.called("start")
	return f.api, f.err
}
func (f *fakePlatform) Deploy(_ context.Context, services []platform.Service, _ func(plan.Event)) ([]platform.Deployed, error) {
	var names []string
	for _, s := range services {
		names = append(names, s.Release)
	}
	f.called("deploy %s", strings.Join(names, " "))
	return f.deployed, f.err
}
func (f *fakePlatform) Sources([]platform.Service) (platform.SourceState, error) {
	return platform.SourceState{}, f.err
}
func (f *fakePlatform) Losses(context.Context) ([]string, error) { return f.losses, f.err }
func (f *fakePlatform) Down(_ context.Context, engine bool, _ func(plan.Event)) error {
	f.called("down engine=%v", engine)
	return f.err
}
func (f *fakePlatform) CleanupList(context.Context) ([]string, error) { return f.losses, f.err }
func (f *fakePlatform) Cleanup(context.Context, func(plan.Event)) error {
	f.called("cleanup")
	return f.err
}
func (f *fakePlatform) Doctor(context.Context) ([]platform.Ailment, error) {
	f.called("doctor")
	return f.ailments, f.err
}
func (f *fakePlatform) Mend(context.Context, func(plan.Event)) error { f.called("mend"); return f.err }
func (f *fakePlatform) Status(context.Context) (platform.Status, error) {
	f.called("status")
	return f.status, f.err
}
func (f *fakePlatform) AwaitReady(context.Context, func(plan.Event)) error {
	f.called("await")
	return f.err
}
func (f *fakePlatform) API(context.Context) (string, error) { f.called("api"); return f.api, f.err }
func (f *fakePlatform) Kube(context.Context) (*kube.Client, error) {
	f.called("kube")
	return nil, f.err
}
func (f *fakePlatform) Node() string { return "test-control-plane" }
func (f *fakePlatform) Shell(_ context.Context, script string) ([]byte, error) {
	f.called("shell %s", script)
	return nil, f.err
}
func (f *fakePlatform) Engine(_ context.Context, argv ...string) error {
	f.called("docker %s", strings.Join(argv, " "))
	return f.err
}
func (f *fakePlatform) Faults() string {
	return platform.FaultsFile(f.settings.State, f.settings.Cluster)
}
func (f *fakePlatform) Kubeconfig(context.Context) (string, error)    { return f.path, f.err }
func (f *fakePlatform) LastRun(context.Context) (platform.Run, error) { return f.last, f.err }
func (f *fakePlatform) PortHolder(context.Context, int) (string, error) {
	return "nginx (pid 7)", nil
}
func (f *fakePlatform) Database(context.Context) (*platform.Database, error) { return nil, f.err }
func (f *fakePlatform) Broker(context.Context) (platform.Broker, error) {
	return platform.Broker{}, f.err
}
func (f *fakePlatform) Hold(context.Context, func(plan.Event)) (func() error, error) {
	f.called("hold")
	return func() error { f.called("release"); return nil }, f.held
}
func (f *fakePlatform) Alone(ctx context.Context, _ func(plan.Event), _, _ string, do func(context.Context, func(plan.Note)) error) error {
	return do(ctx, func(plan.Note) {})
}
func (f *fakePlatform) Images(context.Context) ([]platform.CachedImage, error) {
	return f.images, f.err
}
func (f *fakePlatform) PruneImages(_ context.Context, parts, dry bool) ([]platform.CachedImage, error) {
	f.called("prune parts=%v dry=%v", parts, dry)
	return f.images, f.err
}
func (f *fakePlatform) SaveImages(_ context.Context, file string, _ func(plan.Event)) error {
	f.called("save %s", file)
	return f.err
}
func (f *fakePlatform) LoadImages(_ context.Context, file string, _ func(plan.Event)) ([]platform.CachedImage, error) {
	f.called("load %s", file)
	return f.images, f.err
}
func (f *fakePlatform) Servers(_ context.Context, argv []string, _ io.Reader, _, _ io.Writer) (int, error) {
	f.called("servers %q", argv)
	return f.code, f.err
}

// fakeData notes, among the calls of its platform, what it is asked for.
type fakeData struct {
	of  *fakePlatform
	err error
}

func (d fakeData) Save(_ context.Context, _ snapshot.Folder, name string) (snapshot.Manifest, error) {
	d.of.called("save %s", name)
	return snapshot.Manifest{Name: name, Orders: 1, Pending: 1}, d.err
}
func (d fakeData) SaveBefore(_ context.Context, _ snapshot.Folder, reason string) (snapshot.Manifest, bool, error) {
	d.of.called("keep before %s", reason)
	return snapshot.Manifest{Name: "before-" + reason + "-1", Orders: 2}, true, d.err
}
func (d fakeData) TakeSeed(context.Context, snapshot.Folder) (bool, error) { return true, d.err }
func (d fakeData) Restore(_ context.Context, _ snapshot.Folder, name string, keep bool) (m, before snapshot.Manifest, err error) {
	d.of.called("restore %s keep=%v", name, keep)
	return snapshot.Manifest{Name: name}, snapshot.Manifest{Name: "before-restore-1", Orders: 3}, d.err
}

// result is what a run left behind.
type result struct {
	code     int
	out, err string
}

// call runs the program with a faked platform, outside any checkout unless dir is one.
func call(t *testing.T, f *fakePlatform, args ...string) result {
	t.Helper()
	return callWith(t, f, nil, nil, args...)
}

func callWith(t *testing.T, f *fakePlatform, env map[string]string, signals <-chan os.Signal, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	folders := t.TempDir()
	std := streams{
		In: strings.NewReader(""), Out: &out, Err: &errs, Program: "bin/platformctl", Signals: signals,
		Exit: func(code int) { t.Errorf("ended at once with %d", code) },
		Getenv: func(name string) string {
			if v, ok := env[name]; ok {
				return v
			}
			return map[string]string{"PLATFORMCTL_CACHE": folders, "PLATFORMCTL_STATE": folders}[name]
		},
	}
	e := newEnv(std)
	e.open = func(s platform.Settings) (thePlatform, error) { f.settings = s; return f, nil }
	e.data = func(context.Context, thePlatform, func(plan.Note)) (theData, error) {
		f.data.of = f
		return f.data, nil
	}
	e.broker = func(context.Context, thePlatform) (theBroker, error) { return f.broker, f.err }
	code := e.run(t.Context(), args)
	return result{code, out.String(), errs.String()}
}

// project is a folder that passes for a checkout.
func project(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, room := range []string{"charts", "values"} {
		if err := os.Mkdir(filepath.Join(dir, room), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module platformctl\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
