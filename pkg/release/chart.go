package release

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"

	"platformctl/pkg/fault"
)

// loaded is a Spec with its files read: the chart is nobody else's, since Helm changes it while it renders.
type loaded struct {
	spec   Spec
	chart  *chart.Chart
	values map[string]any
	hash   string
}

// load reads chart and values, and reports all that is wrong with them as one usage error.
func load(spec Spec) (*loaded, error) {
	chrt, err := loader.LoadDir(spec.Chart)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Usage("run this in the checkout, or name it with --project", "there is no chart in %s", spec.Chart)
	}
	if err != nil {
		return nil, fault.Usage("mend the chart", "read chart %s: %w", spec.Chart, err)
	}
	values := map[string]any{}
	var problems []string
	for _, path := range spec.ValueFiles {
		file, err := readValues(path)
		if err != nil {
			return nil, err
		}
		problems = append(problems, file.problems(chrt.Values)...)
		values = chartutil.CoalesceTables(file.values, values)
	}
	if len(problems) > 0 {
		return nil, fault.Usage(fmt.Sprintf("%s/values.yaml lists the keys that the chart knows", spec.Chart),
			"%s", strings.Join(problems, "\n"))
	}
	if len(spec.Override) > 0 {
		values = chartutil.CoalesceTables(clone(spec.Override), values)
	}
	hash, err := hash(chrt, values)
	if err != nil {
		return nil, err
	}
	return &loaded{spec: spec, chart: chrt, values: values, hash: hash}, nil
}

// clone copies the maps of a tree of values, which Helm writes to.
func clone(values map[string]any) map[string]any {
	out := make(map[string]any, len(values))
	for key, value := range values {
		if table, ok := value.(map[string]any); ok {
			value = clone(table)
		}
		out[key] = value
	}
	return out
}

// hash is 40 hex digits over the chart's files and the values given to it; a label takes up to 63 characters.
func hash(chrt *chart.Chart, values map[string]any) (string, error) {
	sum := sha256.New()
	files := slices.Clone(chrt.Raw)
	slices.SortFunc(files, func(a, b *chart.File) int { return strings.Compare(a.Name, b.Name) })
	for _, file := range files {
		fmt.Fprintf(sum, "%d %s %d ", len(file.Name), file.Name, len(file.Data))
		sum.Write(file.Data)
	}
	text, err := json.Marshal(values)
	if err != nil {
		return "", fmt.Errorf("hash the values for chart %s: %w", chrt.Name(), err)
	}
	sum.Write(text)
	return hex.EncodeToString(sum.Sum(nil))[:40], nil
}

// thrown is how Helm words it when a chart refuses its values by fail or required.
var thrown = regexp.MustCompile(`(?s)^execution error at \(([^()]*)\): (.*)$`)

// render is the manifests that the chart makes of the values, as Helm would apply them to a new cluster.
func (l *loaded) render() (string, error) {
	install := action.NewInstall(&action.Configuration{Log: func(string, ...any) {}})
	install.ClientOnly, install.DryRun = true, true
	install.ReleaseName, install.Namespace = l.spec.Name, l.spec.Namespace
	done, err := install.Run(l.chart, l.values)
	if err != nil {
		if match := thrown.FindStringSubmatch(err.Error()); match != nil {
			return "", fault.Usage("the chart's values.yaml says what it takes: "+l.spec.Chart+"/values.yaml", "release %s: %s", l.spec.Name, match[2])
		}
		return "", fault.Usage("mend the chart "+l.spec.Chart+" or the values for it", "render release %s: %w", l.spec.Name, err)
	}
	return done.Manifest, nil
}

// Hash is a release's content hash, 40 characters: the same for the same chart files and the same merged values.
func Hash(spec Spec) (string, error) {
	l, err := load(spec)
	if err != nil {
		return "", err
	}
	return l.hash, nil
}

// Render is the release's manifests as YAML documents, without asking a cluster. Whatever is wrong with chart or values
// is a usage error: YAML that does not parse (file and line), keys that the chart does not know, values that it refuses.
func Render(spec Spec) (string, error) {
	l, err := load(spec)
	if err != nil {
		return "", err
	}
	return l.render()
}

// Images lists the images that the release's pods run, each once, in the order of the manifest.
func Images(spec Spec) ([]string, error) {
	manifest, err := Render(spec)
	if err != nil {
		return nil, err
	}
	objects, err := parse(manifest)
	if err != nil {
		return nil, err
	}
	var images []string
	for _, object := range objects {
		pod, err := object.pod()
		if err != nil {
			return nil, err
		}
		if pod == nil {
			continue
		}
		for _, container := range slices.Concat(pod.InitContainers, pod.Containers) {
			if !slices.Contains(images, container.Image) {
				images = append(images, container.Image)
			}
		}
	}
	return images, nil
}
