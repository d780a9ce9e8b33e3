package release

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/storage/driver"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"platformctl/pkg/fault"
)

// Possible is a usage error where the release, found as List has it, could not become spec: a StatefulSet's volumes would change.
// Apply refuses that too; Possible tells it before anything else is changed. Helm's record is read only where the label does not
// say that they are the same.
func (c *Client) Possible(spec Spec, found Status) error {
	manifest, err := Render(spec)
	if err != nil {
		return err
	}
	claims, err := claimsHash(manifest)
	if err != nil || found.Claims == claims {
		return err
	}
	last, err := c.stored(spec.Namespace).Last(spec.Name)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up release %s: %w", spec.Name, err)
	}
	return refuseClaimChange(spec, last.Manifest, manifest)
}

// claimsHash stands for all volumeClaimTemplates of a manifest, in 40 characters.
func claimsHash(manifest string) (string, error) {
	templates, err := claimTemplates(manifest)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(templates)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:20]), nil
}

// refuseClaimChange is a usage error if a StatefulSet of both manifests asks for other volumes than before. Kubernetes
// would refuse the change too, but only in the middle of the upgrade, and without saying which field it was.
func refuseClaimChange(spec Spec, deployed, wanted string) error {
	changes, err := claimChanges(deployed, wanted)
	if err != nil {
		return err
	}
	if len(changes) == 0 {
		return nil
	}
	return fault.Usage(
		fmt.Sprintf("Kubernetes cannot change a StatefulSet's volumes. Take the change back in %s,\n"+
			"or give up the data: platformctl cleanup, then platformctl up", strings.Join(spec.ValueFiles, ", ")),
		"release %s cannot be upgraded, its volumes would change:\n%s", spec.Name, strings.Join(changes, "\n"))
}

// claimChanges lists where the volumeClaimTemplates differ, a line each.
func claimChanges(deployed, wanted string) ([]string, error) {
	before, err := claimTemplates(deployed)
	if err != nil {
		return nil, err
	}
	after, err := claimTemplates(wanted)
	if err != nil {
		return nil, err
	}
	var changes []string
	for _, set := range slices.Sorted(maps.Keys(after)) {
		if old, ok := before[set]; ok {
			changes = append(changes, differences(set+" volumeClaimTemplates", old, after[set])...)
		}
	}
	return changes, nil
}

// claimTemplates maps each StatefulSet of a manifest to its volumeClaimTemplates by name.
func claimTemplates(manifest string) (map[string]map[string]any, error) {
	objects, err := parse(manifest)
	if err != nil {
		return nil, err
	}
	found := map[string]map[string]any{}
	for _, o := range objects {
		if o.GetKind() != "StatefulSet" {
			continue
		}
		templates, _, err := unstructured.NestedSlice(o.Object, "spec", "volumeClaimTemplates")
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", o.id(), err)
		}
		byName := map[string]any{}
		for _, template := range templates {
			claim, ok := template.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("read %s: a volumeClaimTemplate is %T", o.id(), template)
			}
			byName[(&unstructured.Unstructured{Object: claim}).GetName()] = claim
		}
		found[o.id()] = byName
	}
	return found, nil
}

// differences lists the leaves in which two trees differ.
func differences(path string, before, after any) []string {
	old, oldTree := before.(map[string]any)
	new, newTree := after.(map[string]any)
	if oldTree && newTree {
		var lines []string
		keys := slices.Sorted(maps.Keys(old))
		for key := range new {
			if _, ok := old[key]; !ok {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		for _, key := range keys {
			lines = append(lines, differences(path+"."+key, old[key], new[key])...)
		}
		return lines
	}
	is, wanted := show(before), show(after)
	if is == wanted {
		return nil
	}
	return []string{fmt.Sprintf("%s is %s, %s is wanted", path, is, wanted)}
}

// show is a value of a manifest on one line.
func show(value any) string {
	if value == nil {
		return "absent"
	}
	if text, ok := value.(string); ok {
		return text
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}
