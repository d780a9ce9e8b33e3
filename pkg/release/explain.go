package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	helm "helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage/driver"
)

// Difference is how a release in the cluster differs from a Spec.
type Difference struct {
	Revision int      // the newest; 0 where it is not installed
	Lines    []string // what differs, a line each; none where nothing does
	Restarts []string // the workloads whose pods are replaced to end that: "deployment/order-api-…"
}

// Explain tells in what the release differs from spec: its newest revision in images, in values by their path and in files of the
// chart, and the cluster from that revision in objects that are gone and fields that somebody changed. It changes nothing, and
// reads Helm's record of the release.
func (c *Client) Explain(ctx context.Context, spec Spec) (Difference, error) {
	want, err := load(spec)
	if err != nil {
		return Difference{}, err
	}
	manifest, err := want.render()
	if err != nil {
		return Difference{}, err
	}
	last, err := c.stored(spec.Namespace).Last(spec.Name)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return Difference{Lines: []string{"it is not installed"}}, nil
	}
	if err != nil {
		return Difference{}, fmt.Errorf("look up release %s: %w", spec.Name, err)
	}
	d := Difference{Revision: last.Version}
	if last.Info.Status != helm.StatusDeployed {
		d.Lines = append(d.Lines, fmt.Sprintf("revision %d was left %s", last.Version, last.Info.Status))
	}
	edited, err := c.amiss(ctx, spec, last.Manifest)
	if err != nil {
		return Difference{}, err
	}
	if last.Labels[hashLabel] == want.hash {
		d.Lines, d.Restarts = append(d.Lines, lines(edited)...), restarted(edited)
		return d, nil
	}
	imageLines, err := imageChanges(last.Manifest, manifest)
	if err != nil {
		return Difference{}, err
	}
	d.Lines = slices.Concat(d.Lines, imageLines, valueChanges(last.Config, want.values, len(imageLines) > 0), chartChanges(last.Chart, want.chart), lines(edited))
	if d.Restarts, err = templateChanges(last.Manifest, manifest); err != nil {
		return Difference{}, err
	}
	for _, workload := range restarted(edited) {
		if !slices.Contains(d.Restarts, workload) {
			d.Restarts = append(d.Restarts, workload)
		}
	}
	return d, nil
}

// Installed lists the images of the release's newest revision, each once; none where it is not installed.
func (c *Client) Installed(ctx context.Context, name, namespace string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	last, err := c.stored(namespace).Last(name)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up release %s: %w", name, err)
	}
	byContainer, err := containerImages(last.Manifest)
	if err != nil {
		return nil, err
	}
	return slices.Compact(slices.Sorted(maps.Values(byContainer))), nil
}

// configKey is where a release's values carry the hash of the ConfigMaps and Secrets that its pods read.
const configKey = "podAnnotations.platformctl/config"

// valueChanges lists the values that differ, by their path. Passwords are not shown, nor the image where that was told already.
func valueChanges(is, want map[string]any, imageTold bool) []string {
	var all []string
	for _, line := range leaves("", is, want) {
		switch key := strings.ToLower(line.path[strings.LastIndexByte(line.path, '.')+1:]); {
		case strings.HasSuffix(line.path, configKey):
			all = append(all, "ConfigMaps or Secrets that its pods read have changed")
		case imageTold && strings.HasPrefix(line.path, "image."):
		case (strings.Contains(key, "password") || strings.Contains(key, "cookie")) && !strings.HasPrefix(key, "existing") && !strings.HasSuffix(key, "key"):
			all = append(all, "values: "+line.path+" is another one")
		default:
			all = append(all, fmt.Sprintf("values: %s is %s, %s is wanted", line.path, show(line.is), show(line.want)))
		}
	}
	return all
}

// leaves lists the leaves in which two trees differ, those that only one has included.
func leaves(path string, is, want any) []difference {
	old, oldTree := is.(map[string]any)
	now, nowTree := want.(map[string]any)
	if !oldTree && !nowTree {
		if show(is) == show(want) {
			return nil
		}
		return []difference{{path, is, want}}
	}
	if !oldTree && is != nil || !nowTree && want != nil {
		return []difference{{path, is, want}}
	}
	var all []difference
	keys := sortedKeys(old)
	for _, key := range sortedKeys(now) {
		if _, ok := old[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		all = append(all, leaves(join(path, key), old[key], now[key])...)
	}
	return all
}

// chartChanges lists the files of the chart that differ; Helm keeps them but for the comments in values.yaml.
func chartChanges(is, want *chart.Chart) []string {
	if is == nil {
		return []string{"chart: nothing is known of the one that was installed"}
	}
	var all []string
	if is.Metadata != nil && want.Metadata != nil && is.Metadata.Version != want.Metadata.Version {
		all = append(all, fmt.Sprintf("chart: version is %s, %s is wanted", is.Metadata.Version, want.Metadata.Version))
	}
	for _, line := range leaves("", is.Values, want.Values) {
		all = append(all, fmt.Sprintf("chart: values.yaml: %s is %s, %s is wanted", line.path, show(line.is), show(line.want)))
	}
	old := map[string][]byte{}
	for _, f := range slices.Concat(is.Templates, is.Files) {
		old[f.Name] = f.Data
	}
	now := map[string][]byte{}
	for _, f := range slices.Concat(want.Templates, want.Files) {
		now[f.Name] = f.Data
	}
	for _, name := range sortedKeys(now) {
		switch before, ok := old[name]; {
		case !ok:
			all = append(all, "chart: "+name+" is new")
		case !bytes.Equal(before, now[name]):
			all = append(all, "chart: "+name+" differs")
		}
	}
	for _, name := range sortedKeys(old) {
		if _, ok := now[name]; !ok {
			all = append(all, "chart: "+name+" has gone")
		}
	}
	return all
}

// imageChanges lists the containers that get another image.
func imageChanges(is, want string) ([]string, error) {
	old, err := containerImages(is)
	if err != nil {
		return nil, err
	}
	now, err := containerImages(want)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, at := range sortedKeys(now) {
		line := fmt.Sprintf("image: %s is wanted in place of %s", now[at], old[at])
		if old[at] != "" && old[at] != now[at] && !slices.Contains(all, line) {
			all = append(all, line)
		}
	}
	return all, nil
}

// containerImages maps each container of a manifest to its image.
func containerImages(manifest string) (map[string]string, error) {
	objects, err := parse(manifest)
	if err != nil {
		return nil, err
	}
	images := map[string]string{}
	for _, o := range objects {
		pod, err := o.pod()
		if err != nil {
			return nil, err
		}
		if pod == nil {
			continue
		}
		for _, container := range slices.Concat(pod.InitContainers, pod.Containers) {
			images[o.id()+"/"+container.Name] = container.Image
		}
	}
	return images, nil
}

// templateChanges names the workloads that both manifests have, with another pod template.
func templateChanges(is, want string) ([]string, error) {
	old, err := parse(is)
	if err != nil {
		return nil, err
	}
	templates := map[string]any{}
	for _, o := range old {
		templates[o.id()] = o.template()
	}
	now, err := parse(want)
	if err != nil {
		return nil, err
	}
	var workloads []string
	for _, o := range now {
		if before := templates[o.id()]; before != nil && len(leaves("", before, o.template())) > 0 {
			workloads = append(workloads, o.id())
		}
	}
	return workloads, nil
}
