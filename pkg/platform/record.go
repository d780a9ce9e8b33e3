package platform

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"platformctl/pkg/command"
	"platformctl/pkg/fault"
	"platformctl/pkg/plan"
)

// Run is a run that was recorded.
type Run struct {
	Command string       `json:"command"`
	Ended   string       `json:"ended"` // "done", "failed" or "stopped"; "" where the record breaks off
	Failed  string       `json:"failed,omitempty"`
	Timings plan.Timings `json:"timings"`
}

// recordPath is where the last run's events are kept: beside the cluster's folder, so that they outlive the cluster.
func (p *Platform) recordPath() string {
	return filepath.Join(p.set.State, "clusters", p.set.Cluster+".run.jsonl")
}

// record writes what happens in a run, as it happens: a run that is killed leaves what it had.
type record struct {
	file *os.File
	err  error // the first; a record that cannot be written is no reason to stop a run
}

// recorded has the events of a run shown, and recorded in the place of those of the last one.
func (p *Platform) recorded(command string, on func(plan.Event)) (*record, func(plan.Event), error) {
	if err := os.MkdirAll(filepath.Dir(p.recordPath()), 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the state folder: %w", err)
	}
	file, err := os.OpenFile(p.recordPath(), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("record the run: %w", err)
	}
	r := &record{file: file}
	r.put(plan.Line{Time: time.Now(), Event: plan.LineRun, Command: command})
	return r, func(e plan.Event) {
		l := e.Line()
		l.Cure = fault.CureOf(e.Err)
		r.put(l)
		on(e)
	}, nil
}

func (r *record) put(l plan.Line) {
	l.Version = plan.StreamVersion
	if err := l.Write(r.file); err != nil && r.err == nil {
		r.err = fmt.Errorf("record the run: %w", err)
	}
}

func (r *record) close() error { return errors.Join(r.err, r.file.Close()) }

// recordedRun runs steps, shows and records what happens.
func (p *Platform) recordedRun(ctx context.Context, command string, on func(plan.Event), goals ...*plan.Step) error {
	r, on, err := p.recorded(command, on)
	if err != nil {
		return err
	}
	err = plan.Run(ctx, on, goals...)
	return errors.Join(err, r.close())
}

// LastRun reads how the last run on this cluster went; a fault where none is recorded.
func (p *Platform) LastRun(context.Context) (Run, error) {
	raw, err := os.ReadFile(p.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		return Run{}, fault.Unfit("platformctl up"+p.flag(), "no run is recorded for cluster %s", p.set.Cluster)
	}
	if err != nil {
		return Run{}, fmt.Errorf("read the record of the last run: %w", err)
	}
	return readRun(raw)
}

func readRun(raw []byte) (Run, error) {
	var r Run
	name, events, err := plan.ReadRun(bytes.NewReader(raw))
	if err != nil {
		return r, fmt.Errorf("read the record of the last run: %w", err)
	}
	r.Command, r.Timings = name, plan.Time(events)
	open := map[string]bool{}
	stopped := false
	for _, e := range events {
		switch e.Kind {
		case plan.Planned:
			open[e.Step] = true
		case plan.Failed:
			r.Failed = e.Step
			delete(open, e.Step)
		case plan.Stopped, plan.Skipped:
			stopped = true
			delete(open, e.Step)
		case plan.Already, plan.Done:
			delete(open, e.Step)
		}
	}
	switch {
	case len(events) == 0 || len(open) > 0:
	case r.Failed != "":
		r.Ended = "failed"
	case stopped:
		r.Ended = "stopped"
	default:
		r.Ended = "done"
	}
	return r, nil
}

// withEvidence keeps what tells why the error came about, and names it. Errors of how it was called, or of what the machine
// lacks, say all there is to say.
func (p *Platform) withEvidence(ctx context.Context, failed error) error {
	code := fault.CodeOf(failed)
	var step *plan.StepError
	if ctx.Err() != nil || code == fault.CodeUsage || !errors.As(failed, &step) || strings.HasPrefix(step.Step, "host/") {
		return failed
	}
	// The evidence is worth some seconds, and no more.
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	dir := filepath.Join(p.set.State, "evidence", p.set.Cluster+"-"+time.Now().Format("20060102-150405"))
	if err := errors.Join(p.keepEvidence(ctx, dir), p.trimEvidence()); err != nil {
		return errors.Join(failed, fmt.Errorf("keep the evidence: %w", err))
	}
	cure := fault.CureOf(failed)
	if cure != "" {
		cure += "\n"
	}
	return fault.New(code, cure+"events, logs, values and timings of this moment are in "+dir, "%w", failed)
}

// keepEvidence writes, without any secret: run.jsonl and timings.json, versions.txt, values/, and of a cluster that answers a
// folder for each namespace. What cannot be had is told in the place where it would be.
func (p *Platform) keepEvidence(ctx context.Context, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "values"), 0o700); err != nil {
		return err
	}
	raw, err := os.ReadFile(p.recordPath())
	if err != nil {
		return err
	}
	r, err := readRun(raw)
	if err != nil {
		return err
	}
	timings, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	files := map[string][]byte{"run.jsonl": raw, "timings.json": append(timings, '\n'), "versions.txt": []byte(p.versions(ctx))}
	for _, s := range Services() {
		files[filepath.Join("values", s.Release+".yaml")] = p.shownValues(s)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	if p.kube == nil {
		return nil
	}
	_, err = p.kube.Evidence(ctx, dir, Namespaces())
	return err
}

// keptEvidence is how many folders of evidence are kept of a cluster.
const keptEvidence = 10

// trimEvidence takes away the oldest folders of evidence. Their names end in the time, so that they sort by it.
func (p *Platform) trimEvidence() error {
	folders, err := filepath.Glob(filepath.Join(p.set.State, "evidence", p.set.Cluster+"-????????-??????"))
	for ; err == nil && len(folders) > keptEvidence; folders = folders[1:] {
		err = os.RemoveAll(folders[0])
	}
	return err
}

// versions is a line for each thing whose version may matter.
func (p *Platform) versions(ctx context.Context) string {
	var b strings.Builder
	line := func(name, version string) { fmt.Fprintf(&b, "%-12s%s\n", name, version) }
	line("platformctl", p.set.Version)
	line("go", runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			switch m.Path {
			case "sigs.k8s.io/kind", "helm.sh/helm/v3", "k8s.io/client-go":
				line(m.Path[strings.LastIndex(strings.TrimSuffix(m.Path, "/v3"), "/")+1:], m.Version)
			}
		}
	}
	for _, ask := range []struct {
		name string
		line command.Command
	}{
		{"engine", command.New("docker", "version", "--format", "{{.Server.Version}} {{.Server.Os}}/{{.Server.Arch}}")},
		{"node image", command.New("docker", "inspect", "--format", "{{.Config.Image}}", p.cluster.Node())},
		{"machine", command.New("uname", "-srm")},
	} {
		out, err := p.run.Run(ctx, ask.line)
		if err != nil {
			out = []byte("not known: " + err.Error())
		}
		line(ask.name, strings.Join(strings.Fields(string(out)), " "))
	}
	return b.String()
}

// secretive matches the names of values that are nobody's business.
var secretive = regexp.MustCompile(`(?i)pass|secret|token|cookie|credential|key`)

// shownValues is the values file of a service's release, without what may be secret.
func (p *Platform) shownValues(s Service) []byte {
	spec, err := p.spec(s, "")
	if err != nil {
		return []byte("# " + err.Error() + "\n")
	}
	var all bytes.Buffer
	for _, path := range spec.ValueFiles {
		raw, err := os.ReadFile(path)
		var values any
		if err == nil {
			err = yaml.Unmarshal(raw, &values)
		}
		if err == nil {
			raw, err = yaml.Marshal(hidden(values))
		}
		if err != nil {
			raw = []byte("# " + err.Error() + "\n")
		}
		all.Write(raw)
	}
	return all.Bytes()
}

// hidden is a value without what stands under a secretive name. Those of Bitnami's keys that only name a Secret,
// or a key in one, stay.
func hidden(v any) any {
	switch v := v.(type) {
	case map[string]any:
		shown := make(map[string]any, len(v))
		for name, inner := range v {
			_, deeper := inner.(map[string]any)
			if shown[name] = hidden(inner); !deeper && secretive.MatchString(name) && !strings.HasPrefix(name, "existing") {
				shown[name] = "(hidden)"
			}
		}
		return shown
	case []any:
		shown := make([]any, len(v))
		for i, inner := range v {
			shown[i] = hidden(inner)
		}
		return shown
	}
	return v
}
