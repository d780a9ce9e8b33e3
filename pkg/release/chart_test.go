package release

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	"platformctl/pkg/fault"
)

// checkout is where charts, values, configmaps and secrets lie.
const checkout = "../.."

// namespaces says where each of the platform's releases goes.
var namespaces = map[string]string{"rabbitmq": "messaging", "postgresql": "database", "order-api": "apps", "payment-service": "apps"}

// dev is a release as the platform installs it.
func dev(name string) Spec {
	return Spec{
		Name: name, Namespace: namespaces[name],
		Chart:      filepath.Join(checkout, "charts", name),
		ValueFiles: []string{filepath.Join(checkout, "values/dev", name+".yaml")},
		Override:   map[string]any{"image": map[string]any{"tag": "test"}},
	}
}

// with is a release of one of our charts with values of its own.
func with(t *testing.T, name, values string) Spec {
	t.Helper()
	path := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return Spec{Name: name, Namespace: namespaces[name], Chart: filepath.Join(checkout, "charts", name), ValueFiles: []string{path}}
}

// render is the release's objects by kind/name.
func render(t *testing.T, spec Spec) map[string]object {
	t.Helper()
	manifest, err := Render(spec)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := parse(manifest)
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]object{}
	for _, o := range objects {
		byID[o.id()] = o
	}
	return byID
}

// field is what stands at a place in an object, written as JSON.
func field(t *testing.T, o object, path ...string) string {
	t.Helper()
	value, _, err := unstructured.NestedFieldNoCopy(o.Object, path...)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func podOf(t *testing.T, o object) *corev1.PodSpec {
	t.Helper()
	pod, err := o.pod()
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func TestReleasesHaveTheNamesThatUsersType(t *testing.T) {
	for name, ids := range map[string][]string{
		"rabbitmq":        {"statefulset/rabbitmq", "service/rabbitmq"},
		"postgresql":      {"statefulset/postgresql", "service/postgresql"},
		"order-api":       {"deployment/order-api-order-api-chart"},
		"payment-service": {"deployment/payment-service-payment-service-chart"},
	} {
		objects := render(t, dev(name))
		for _, id := range ids {
			if _, ok := objects[id]; !ok {
				t.Errorf("release %s has no %s", name, id)
			}
		}
	}
}

func TestPodsMeetRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for name := range namespaces {
		pods := 0
		for id, o := range render(t, dev(name)) {
			pod := podOf(t, o)
			if pod == nil {
				continue
			}
			pods++
			for _, result := range evaluator.EvaluatePod(restricted, &metav1.ObjectMeta{}, pod) {
				if !result.Allowed {
					t.Errorf("%s: %s: %s", id, result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
			if token := pod.AutomountServiceAccountToken; token == nil || *token {
				t.Errorf("%s mounts a service account token", id)
			}
			for _, container := range slices.Concat(pod.InitContainers, pod.Containers) {
				if root := container.SecurityContext.ReadOnlyRootFilesystem; root == nil || !*root {
					t.Errorf("%s: %s can write to its root file system", id, container.Name)
				}
				asks, may := container.Resources.Requests, container.Resources.Limits
				if asks.Cpu().IsZero() || asks.Memory().IsZero() || may.Memory().IsZero() || !may.Cpu().IsZero() {
					t.Errorf("%s: %s has requests %v and limits %v; wanted are requests, a memory limit, no CPU limit", id, container.Name, asks, may)
				}
			}
			for _, container := range pod.Containers {
				if container.StartupProbe == nil || container.ReadinessProbe == nil || container.LivenessProbe == nil {
					t.Errorf("%s: %s lacks a probe", id, container.Name)
				}
			}
		}
		if pods != 1 {
			t.Errorf("release %s has %d pod templates", name, pods)
		}
	}
}

func TestOrderAPIRollsWithoutLosingRequests(t *testing.T) {
	deployment := render(t, dev("order-api"))["deployment/order-api-order-api-chart"]
	if got := field(t, deployment, "spec", "strategy", "rollingUpdate", "maxUnavailable"); got != "0" {
		t.Errorf("maxUnavailable is %s", got)
	}
	pod := podOf(t, deployment)
	if got := pod.Containers[0].Lifecycle.PreStop.Sleep.Seconds; got != 5 {
		t.Errorf("preStop sleeps %d s", got)
	}
	if got := pod.InitContainers[0].Args; !slices.Equal(got, []string{"migrate"}) {
		t.Errorf("the init container runs %v", got)
	}
}

func TestOrderAPIIsReachedAtTheNodePort(t *testing.T) {
	service := render(t, dev("order-api"))["service/order-api-order-api-chart"]
	var spec corev1.Service
	text, err := json.Marshal(service.Object)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	if port := spec.Spec.Ports[0]; spec.Spec.Type != "NodePort" || port.NodePort != 30080 || port.Port != 8080 {
		t.Errorf("the service is %s with %+v", spec.Spec.Type, port)
	}
}

// What a pod reads from a ConfigMap or Secret has to be in the manifests that the platform applies, or it never starts.
func TestPodsFindTheirConfiguration(t *testing.T) {
	keys := map[string]map[string]string{} // namespace/kind/name → its data
	for _, pattern := range []string{"configmaps/*.yaml", "secrets/examples/*.yaml"} {
		files, err := filepath.Glob(filepath.Join(checkout, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			var o struct {
				Kind             string
				Metadata         metav1.ObjectMeta
				Data, StringData map[string]string
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := yaml.UnmarshalStrict(text, &o, yaml.DisallowUnknownFields); err != nil && !strings.Contains(err.Error(), "unknown field") {
				t.Fatalf("%s: %v", path, err)
			}
			data := o.Data
			if o.Kind == "Secret" {
				data = o.StringData
			}
			keys[o.Metadata.Namespace+"/"+o.Kind+"/"+o.Metadata.Name] = data
		}
	}
	for name, namespace := range namespaces {
		for id, o := range render(t, dev(name)) {
			pod := podOf(t, o)
			if pod == nil {
				continue
			}
			for _, container := range slices.Concat(pod.InitContainers, pod.Containers) {
				for _, from := range container.EnvFrom {
					if _, ok := keys[namespace+"/ConfigMap/"+from.ConfigMapRef.Name]; !ok {
						t.Errorf("%s: there is no ConfigMap %s in %s", id, from.ConfigMapRef.Name, namespace)
					}
				}
				for _, env := range container.Env {
					if env.ValueFrom == nil || env.ValueFrom.SecretKeyRef == nil {
						continue
					}
					ref := env.ValueFrom.SecretKeyRef
					if _, ok := keys[namespace+"/Secret/"+ref.Name][ref.Key]; !ok {
						t.Errorf("%s: there is no Secret %s with key %s in %s", id, ref.Name, ref.Key, namespace)
					}
				}
			}
		}
	}
	// Both sides of a connection, and both spellings of a name, have to get the same value.
	for _, pair := range [][2]string{
		{"apps/Secret/rabbitmq-credentials-apps", "messaging/Secret/rabbitmq-credentials-messaging"},
		{"apps/Secret/postgresql-credentials-apps", "database/Secret/postgresql-credentials-database"},
		{"apps/ConfigMap/rabbitmq-config-apps", "messaging/ConfigMap/rabbitmq-config-messaging"},
		{"apps/ConfigMap/postgresql-config-apps", "database/ConfigMap/postgresql-config-database"},
	} {
		one, two := keys[pair[0]], keys[pair[1]]
		if len(one) == 0 || !mapsEqual(one, two) {
			t.Errorf("%s has %v, %s has %v", pair[0], one, pair[1], two)
		}
	}
	for _, same := range [][2]string{{"username", "RABBITMQ_USERNAME"}, {"password", "RABBITMQ_PASSWORD"}, {"erlang-cookie", "RABBITMQ_ERLANG_COOKIE"}} {
		secret := keys["apps/Secret/rabbitmq-credentials-apps"]
		if secret[same[0]] == "" || secret[same[0]] != secret[same[1]] {
			t.Errorf("%s and %s differ in rabbitmq-credentials-apps", same[0], same[1])
		}
	}
	for service, user := range map[string]string{"order-api": "order_api", "payment-service": "payment_service"} {
		own, servers := keys["apps/Secret/"+service+"-broker"], keys["messaging/Secret/rabbitmq-services-messaging"]
		if own["RABBITMQ_USERNAME"] != user || own["RABBITMQ_PASSWORD"] == "" || own["RABBITMQ_PASSWORD"] != servers[user] {
			t.Errorf("%s has %v, and the broker %v", service, own, servers)
		}
	}
	if secret := keys["apps/Secret/postgresql-credentials-apps"]; secret["password"] == "" || secret["password"] != secret["DB_PASSWORD"] {
		t.Error("password and DB_PASSWORD differ in postgresql-credentials-apps")
	}
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for key, value := range a {
		if b[key] != value {
			return false
		}
	}
	return true
}

// The volume of a StatefulSet outlives every version of its chart, so nothing of a version may stand in what cannot change.
func TestNoVersionStandsInWhatCannotChange(t *testing.T) {
	for _, name := range []string{"rabbitmq", "postgresql"} {
		set := render(t, dev(name))["statefulset/"+name]
		for _, path := range [][]string{{"spec", "selector"}, {"spec", "volumeClaimTemplates"}} {
			if got := field(t, set, path...); strings.Contains(got, "1.0.0") || strings.Contains(got, "chart") {
				t.Errorf("%s: %v is %s", name, path, got)
			}
		}
	}
}

func TestChartsUnderstandBitnamisKeys(t *testing.T) {
	const rabbitAuth = "auth: {existingPasswordSecret: s, existingErlangSecret: s}\n"
	const postgresAuth = "auth: {existingSecret: s}\n"
	for _, test := range []struct {
		name, release, values, object string
		path                          []string
		want                          string // a part of the field's JSON
	}{
		{"rabbitmq's user", "rabbitmq", "auth: {username: u, password: p, erlangCookie: c}", "statefulset/rabbitmq", []string{"spec", "template"}, `{"name":"RABBITMQ_USERNAME","value":"u"}`},
		{"rabbitmq's password", "rabbitmq", "auth: {password: p, erlangCookie: c}", "secret/rabbitmq", []string{"stringData"}, `{"rabbitmq-erlang-cookie":"c","rabbitmq-password":"p"}`},
		{"rabbitmq's password elsewhere", "rabbitmq", "auth: {existingPasswordSecret: s, existingSecretPasswordKey: k, erlangCookie: c}", "statefulset/rabbitmq", []string{"spec", "template"}, `"secretKeyRef":{"key":"k","name":"s"}`},
		{"rabbitmq's cookie elsewhere", "rabbitmq", "auth: {password: p, existingErlangSecret: s, existingSecretErlangCookieKey: k}", "statefulset/rabbitmq", []string{"spec", "template"}, `"secretKeyRef":{"key":"k","name":"s"}`},
		{"both in one Secret", "rabbitmq", "auth: {existingSecret: s}", "statefulset/rabbitmq", []string{"spec", "template"}, `"secretKeyRef":{"key":"rabbitmq-erlang-cookie","name":"s"}`},
		{"rabbitmq's replicas", "rabbitmq", rabbitAuth + "replicaCount: 0", "statefulset/rabbitmq", []string{"spec", "replicas"}, "0"},
		{"rabbitmq's volume", "rabbitmq", rabbitAuth + "persistence: {size: 9Gi, storageClass: fast, accessModes: [ReadWriteOncePod]}", "statefulset/rabbitmq", []string{"spec", "volumeClaimTemplates"},
			`"spec":{"accessModes":["ReadWriteOncePod"],"resources":{"requests":{"storage":"9Gi"}},"storageClassName":"fast"}`},
		{"no storage class", "rabbitmq", rabbitAuth + `persistence: {storageClass: "-"}`, "statefulset/rabbitmq", []string{"spec", "volumeClaimTemplates"}, `"storageClassName":""`},
		{"no volume", "rabbitmq", rabbitAuth + "persistence: {enabled: false}", "statefulset/rabbitmq", []string{"spec", "template"}, `{"emptyDir":{},"name":"data"}`},
		{"a volume that is there", "rabbitmq", rabbitAuth + "persistence: {existingClaim: mine}", "statefulset/rabbitmq", []string{"spec", "template"}, `"persistentVolumeClaim":{"claimName":"mine"}`},
		{"rabbitmq's resources", "rabbitmq", rabbitAuth + "resources: {limits: {memory: 300Mi, cpu: 2}}", "statefulset/rabbitmq", []string{"spec", "template"}, `"resources":{"limits":{"cpu":2,"memory":"300Mi"}}`},
		{"rabbitmq's service", "rabbitmq", rabbitAuth + "service: {type: NodePort, ports: {amqp: 1234}, nodePorts: {amqp: 30001}}", "service/rabbitmq", []string{"spec"}, `{"name":"amqp","nodePort":30001,"port":1234,"targetPort":"amqp"}`},
		{"rabbitmq's metrics", "rabbitmq", rabbitAuth + "metrics: {enabled: true}", "service/rabbitmq", []string{"spec", "ports"}, `"port":15692`},
		{"rabbitmq's tolerations", "rabbitmq", rabbitAuth + "tolerations: [{key: k, operator: Exists}]", "statefulset/rabbitmq", []string{"spec", "template"}, `"tolerations":[{"key":"k","operator":"Exists"}]`},
		{"rabbitmq's image", "rabbitmq", rabbitAuth + "image: {registry: r.example, repository: copies/rabbitmq, tag: 4.1.2}", "statefulset/rabbitmq", []string{"spec", "template"}, `"image":"r.example/copies/rabbitmq:4.1.2"`},

		{"postgresql's owner", "postgresql", "auth: {username: u, database: d, existingSecret: s}", "statefulset/postgresql", []string{"spec", "template"}, `{"name":"POSTGRES_OWNER","value":"u"},{"name":"POSTGRES_DB","value":"d"}`},
		{"postgresql's passwords", "postgresql", "auth: {password: p, postgresPassword: s}", "secret/postgresql", []string{"stringData"}, `{"password":"p","postgres-password":"s"}`},
		{"postgresql's passwords elsewhere", "postgresql", "auth: {existingSecret: s, secretKeys: {adminPasswordKey: a, userPasswordKey: b}}", "statefulset/postgresql", []string{"spec", "template"}, `"secretKeyRef":{"key":"a","name":"s"}`},
		{"postgresql's scripts", "postgresql", postgresAuth + "primary: {initdb: {scripts: {a.sql: SELECT 1;}}}", "configmap/postgresql-initdb", []string{"data"}, `{"a.sql":"SELECT 1;"}`},
		{"postgresql's volume", "postgresql", postgresAuth + "primary: {persistence: {size: 9Gi, storageClass: fast}}", "statefulset/postgresql", []string{"spec", "volumeClaimTemplates"}, `"requests":{"storage":"9Gi"}},"storageClassName":"fast"`},
		{"postgresql's resources", "postgresql", postgresAuth + "primary: {resources: {limits: {memory: 300Mi}}}", "statefulset/postgresql", []string{"spec", "template"}, `"resources":{"limits":{"memory":"300Mi"}}`},
		{"postgresql's service", "postgresql", postgresAuth + "primary: {service: {type: NodePort, nodePorts: {postgresql: 30002}}}", "service/postgresql", []string{"spec"}, `"nodePort":30002`},
		{"postgresql's tolerations", "postgresql", postgresAuth + "primary: {tolerations: [{operator: Exists}]}", "statefulset/postgresql", []string{"spec", "template"}, `"tolerations":[{"operator":"Exists"}]`},
		{"postgresql's metrics", "postgresql", postgresAuth + "metrics: {enabled: false}", "service/postgresql", []string{"kind"}, "Service"},
		{"an image by digest", "postgresql", postgresAuth + "image: {digest: sha256:abc}", "statefulset/postgresql", []string{"spec", "template"}, `"image":"docker.io/library/postgres@sha256:abc"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			object, ok := render(t, with(t, test.release, test.values))[test.object]
			if !ok {
				t.Fatalf("there is no %s", test.object)
			}
			if got := field(t, object, test.path...); !strings.Contains(got, test.want) {
				t.Errorf("%s does not hold %s:\n%s", test.path, test.want, got)
			}
		})
	}
}

func TestChartsRefuseWithASentence(t *testing.T) {
	const postgresAuth = "auth: {existingSecret: s}\n"
	for _, test := range []struct{ name, release, values, want string }{
		{"Bitnami's image", "postgresql", postgresAuth + "image: {repository: bitnami/postgresql}", "image docker.io/bitnami/postgresql cannot run this chart's start script"},
		{"Bitnami's old images", "rabbitmq", "auth: {existingSecret: s}\nimage: {registry: r.example, repository: bitnamilegacy/rabbitmq}", "image r.example/bitnamilegacy/rabbitmq cannot run"},
		{"two brokers", "rabbitmq", "auth: {existingSecret: s}\nreplicaCount: 3", "replicaCount is 3: this chart runs one RabbitMQ server"},
		{"no password", "rabbitmq", "auth: {erlangCookie: c}", "auth.password is empty"},
		{"no cookie", "rabbitmq", "auth: {password: p}", "auth.erlangCookie is empty"},
		{"no superuser's password", "postgresql", "auth: {password: p}", "auth.postgresPassword is empty"},
		{"an exporter", "postgresql", postgresAuth + "metrics: {enabled: true}", "this chart brings no exporter"},
		{"a compressed script", "postgresql", postgresAuth + "primary: {initdb: {scripts: {a.sql.gz: x}}}", "a.sql.gz is neither NAME.sql nor NAME.sh"},
		{"no image", "order-api", "", "image.tag is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Render(with(t, test.release, test.values))
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "execution error") {
				t.Fatalf("got %v, want a sentence with %q", err, test.want)
			}
			if code := fault.CodeOf(err); code != fault.CodeUsage {
				t.Errorf("the exit code is %d", code)
			}
		})
	}
}

func TestChangedConfigurationRollsThePods(t *testing.T) {
	template := func(spec Spec) string {
		return field(t, render(t, spec)["statefulset/"+spec.Name], "spec", "template")
	}
	for name, values := range map[string][2]string{
		"rabbitmq":   {"auth: {password: p, erlangCookie: c}", "auth: {password: q, erlangCookie: c}"},
		"postgresql": {"auth: {password: p, postgresPassword: c}", "auth: {password: q, postgresPassword: c}"},
	} {
		if one, two := template(with(t, name, values[0])), template(with(t, name, values[1])); one == two {
			t.Errorf("%s: another password leaves the pods as they are", name)
		}
		if one, two := template(with(t, name, values[0])), template(with(t, name, values[0])); one != two {
			t.Errorf("%s: the same values roll the pods", name)
		}
		edited := dev(name)
		edited.Chart = filepath.Join(t.TempDir(), name)
		if err := os.CopyFS(edited.Chart, os.DirFS(filepath.Join(checkout, "charts", name))); err != nil {
			t.Fatal(err)
		}
		script := filepath.Join(edited.Chart, "files/start.sh")
		if err := os.WriteFile(script, []byte("#!/bin/sh\nexit 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if template(dev(name)) == template(edited) {
			t.Errorf("%s: another start script leaves the pods as they are", name)
		}
	}
}

func TestImages(t *testing.T) {
	for name, want := range map[string]string{
		"rabbitmq":   "docker.io/library/rabbitmq:test",
		"postgresql": "docker.io/library/postgres:test",
		"order-api":  "platformctl.local/order-api:test",
	} {
		got, err := Images(dev(name))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, []string{want}) {
			t.Errorf("the images of %s are %v, want %s", name, got, want)
		}
	}
}

func TestHashFollowsChartAndValues(t *testing.T) {
	of := func(spec Spec) string {
		hash, err := Hash(spec)
		if err != nil {
			t.Fatal(err)
		}
		return hash
	}
	base := dev("postgresql")
	if again := of(dev("postgresql")); again != of(base) {
		t.Error("the same release hashes differently")
	}
	if len(of(base)) > 63 {
		t.Errorf("a label cannot hold %s", of(base))
	}
	image := dev("postgresql")
	image.Override = map[string]any{"image": map[string]any{"tag": "other"}}
	extra := dev("postgresql")
	extra.ValueFiles = append(extra.ValueFiles, with(t, "postgresql", "primary: {podAnnotations: {a: b}}").ValueFiles...)
	copied := dev("postgresql")
	copied.Chart = filepath.Join(t.TempDir(), "elsewhere")
	if err := os.CopyFS(copied.Chart, os.DirFS(base.Chart)); err != nil {
		t.Fatal(err)
	}
	if of(copied) != of(base) {
		t.Error("the hash depends on where the chart lies")
	}
	edited := filepath.Join(copied.Chart, "templates/service.yaml")
	if err := os.WriteFile(edited, []byte("# nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, spec := range map[string]Spec{"an override": image, "a values file": extra, "a template": copied} {
		if of(spec) == of(base) {
			t.Errorf("%s does not change the hash", what)
		}
	}
}
