package resume

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// state is what is there, by name. Two platforms that are made of the same checkout have the same.
type state map[string]string

// differences are the lines of two states that are not the same.
func differences(want, have state) []string {
	var all []string
	keys := maps.Clone(want)
	maps.Copy(keys, have)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		w, inWant := want[key]
		h, inHave := have[key]
		switch {
		case !inHave:
			all = append(all, key+" is not there")
		case !inWant:
			all = append(all, key+" should not be there: "+h)
		case w != h:
			all = append(all, key+" differs (- undisturbed, + now):\n"+cmp.Diff(strings.Split(w, "\n"), strings.Split(h, "\n")))
		}
	}
	return all
}

// fleeting is what an API server or a controller puts into an object, another thing in each life of it.
var fleeting = [][]string{
	{"status"},
	{"metadata", "uid"}, {"metadata", "resourceVersion"}, {"metadata", "generation"}, {"metadata", "creationTimestamp"}, {"metadata", "managedFields"},
	{"metadata", "annotations", "deployment.kubernetes.io/revision"},
	{"metadata", "annotations", "pv.kubernetes.io/bind-completed"}, {"metadata", "annotations", "pv.kubernetes.io/bound-by-controller"},
	{"metadata", "annotations", "volume.kubernetes.io/selected-node"}, {"metadata", "annotations", "volume.kubernetes.io/storage-provisioner"},
	{"metadata", "annotations", "volume.beta.kubernetes.io/storage-provisioner"},
	{"spec", "clusterIP"}, {"spec", "clusterIPs"}, {"spec", "volumeName"},
}

// shapes reads a list of objects, as kubectl prints it, and returns each as far as it is wanted. Helm's own Secrets are told as releases:
// the newest revision's status and hash, and any that is pending.
func shapes(list []byte) (state, error) {
	var objects struct{ Items []map[string]any }
	if err := json.Unmarshal(list, &objects); err != nil {
		return nil, fmt.Errorf("read the cluster's objects: %w", err)
	}
	s := state{}
	newest := map[string]int{}
	for _, o := range objects.Items {
		meta, _ := o["metadata"].(map[string]any)
		key := fmt.Sprintf("%v %v/%v", o["kind"], meta["namespace"], meta["name"])
		if o["kind"] == "ConfigMap" && meta["name"] == "kube-root-ca.crt" {
			continue
		}
		if o["type"] == "helm.sh/release.v1" {
			labels, _ := meta["labels"].(map[string]any)
			revision, err := strconv.Atoi(fmt.Sprint(labels["version"]))
			if err != nil {
				return nil, fmt.Errorf("read the revision of %s: %w", key, err)
			}
			release := fmt.Sprintf("release %v/%v", meta["namespace"], labels["name"])
			if status := fmt.Sprint(labels["status"]); strings.HasPrefix(status, "pending") || status == "uninstalling" {
				s[fmt.Sprintf("%s revision %d", release, revision)] = "left " + status
			}
			if revision > newest[release] {
				newest[release] = revision
				s[release] = fmt.Sprintf("%v, made of %v", labels["status"], labels["platformctl/hash"])
			}
			continue
		}
		if meta["deletionTimestamp"] != nil {
			s[key] = "it is being deleted"
			continue
		}
		for _, path := range fleeting {
			drop(o, path)
		}
		text, err := json.MarshalIndent(o, "", " ")
		if err != nil {
			return nil, err
		}
		s[key] = string(text)
	}
	return s, nil
}

func drop(o map[string]any, path []string) {
	for _, name := range path[:len(path)-1] {
		inner, ok := o[name].(map[string]any)
		if !ok {
			return
		}
		o = inner
	}
	delete(o, path[len(path)-1])
}

func TestStatesAreComparedByWhatMatters(t *testing.T) {
	const list = `{"items":[
		{"kind":"Service","metadata":{"namespace":"apps","name":"api","uid":"UID","labels":{"a":"LABEL"}},"spec":{"clusterIP":"ADDRESS"},"status":{"x":"UID"}},
		{"kind":"ConfigMap","metadata":{"namespace":"apps","name":"kube-root-ca.crt"},"data":{"ca":"UID"}},
		{"kind":"Secret","type":"helm.sh/release.v1","metadata":{"namespace":"apps","name":"v1","labels":{"name":"order-api","version":"1","status":"OLD","platformctl/hash":"h0"}}},
		{"kind":"Secret","type":"helm.sh/release.v1","metadata":{"namespace":"apps","name":"v10","labels":{"name":"order-api","version":"10","status":"deployed","platformctl/hash":"HASH"}}}]}`
	read := func(values ...string) state {
		t.Helper()
		s, err := shapes([]byte(strings.NewReplacer(values...).Replace(list)))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	was := read("UID", "1", "ADDRESS", "10.0.0.1", "LABEL", "l", "OLD", "superseded", "HASH", "h1")
	if d := differences(was, read("UID", "2", "ADDRESS", "10.0.0.2", "LABEL", "l", "OLD", "failed", "HASH", "h1")); len(d) != 0 {
		t.Errorf("what passes is counted: %v", d)
	}
	d := strings.Join(differences(was, read("UID", "2", "ADDRESS", "10.0.0.2", "LABEL", "m", "OLD", "pending-upgrade", "HASH", "h2")), "\n")
	for _, want := range []string{"Service apps/api differs", "release apps/order-api differs", "order-api revision 1 should not be there: left pending-upgrade"} {
		if !strings.Contains(d, want) {
			t.Errorf("it is not told that %s:\n%s", want, d)
		}
	}
	if d := differences(was, state{}); len(d) != len(was) {
		t.Errorf("of nothing it is told: %v", d)
	}
}
