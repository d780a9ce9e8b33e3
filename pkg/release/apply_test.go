package release

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chartutil"
	kubefake "helm.sh/helm/v3/pkg/kube/fake"
	helm "helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage"
	"helm.sh/helm/v3/pkg/storage/driver"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"platformctl/pkg/fault"
)

// bench is a Client whose releases live in memory, and whose API server takes everything, or nothing. It shows what Apply
// decides; that Helm does it to a real cluster is tried there.
type bench struct {
	*Client
	store *storage.Storage
	kube  *kubefake.FailingKubeClient
	gone  []string // names of objects that somebody deleted; all others are there, as the newest revision has them

	edited func(*unstructured.Unstructured) // what somebody did to an object
}

func newBench() *bench {
	memory := driver.NewMemory()
	b := &bench{store: storage.Init(memory), kube: &kubefake.FailingKubeClient{PrintingKubeClient: kubefake.PrintingKubeClient{Out: io.Discard}}}
	b.Client = &Client{configure: func(namespace string) (*action.Configuration, error) {
		memory.SetNamespace(namespace)
		return &action.Configuration{
			Releases: b.store, KubeClient: b.kube, Capabilities: chartutil.DefaultCapabilities.Copy(), Log: func(string, ...any) {},
		}, nil
	}}
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(appsv1.SchemeGroupVersion.WithKind("StatefulSet"), meta.RESTScopeNamespace)
	mapper.Add(appsv1.SchemeGroupVersion.WithKind("Deployment"), meta.RESTScopeNamespace)
	for _, kind := range []string{"Service", "ConfigMap", "Secret"} {
		mapper.Add(corev1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	objects := dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())
	objects.PrependReactor("get", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		name, resource := action.(clienttesting.GetAction).GetName(), action.GetResource().Resource
		none := apierrors.NewNotFound(action.GetResource().GroupResource(), name)
		last, err := b.store.Last("postgresql")
		if err != nil || slices.Contains(b.gone, name) {
			return true, nil, none
		}
		all, err := parse(last.Manifest)
		for _, o := range all {
			if o.GetName() == name && strings.ToLower(o.GetKind())+"s" == resource {
				if b.edited != nil {
					b.edited(&o.Unstructured)
				}
				return true, &o.Unstructured, err
			}
		}
		return true, nil, none
	})
	b.mapper, b.live = mapper, objects
	b.stored = func(namespace string) *storage.Storage {
		memory.SetNamespace(namespace)
		return b.store
	}
	return b
}

func (b *bench) apply(t *testing.T, spec Spec) Result {
	t.Helper()
	result, err := b.Apply(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// leave puts the newest revision into a state that a run before was cut off in.
func (b *bench) leave(t *testing.T, name string, status helm.Status) {
	t.Helper()
	last, err := b.store.Last(name)
	if err != nil {
		t.Fatal(err)
	}
	last.SetStatus(status, "left so by the test")
	if err := b.store.Update(last); err != nil {
		t.Fatal(err)
	}
}

func sized(t *testing.T, annotation string) Spec {
	return with(t, "postgresql", "auth: {existingSecret: s}\nprimary: {podAnnotations: {a: "+annotation+"}}")
}

func TestApplyInstallsOnceAndUpgradesWhenSomethingChanged(t *testing.T) {
	b := newBench()
	for i, want := range []Result{{Action: Installed, Revision: 1}, {Action: Unchanged, Revision: 1}} {
		if got := b.apply(t, sized(t, "one")); got != want {
			t.Errorf("apply %d: %+v, want %+v", i, got, want)
		}
	}
	if got := b.apply(t, sized(t, "two")); got != (Result{Action: Upgraded, Revision: 2}) {
		t.Errorf("a change: %+v", got)
	}
	// Back to what it was: the newest revision counts, not an old one that had this hash.
	if got := b.apply(t, sized(t, "one")); got != (Result{Action: Upgraded, Revision: 3}) {
		t.Errorf("a change back: %+v", got)
	}
}

func TestApplyTakesOnWhatARunLeft(t *testing.T) {
	for _, test := range []struct {
		status   helm.Status
		revision int
	}{
		{helm.StatusPendingInstall, 2},
		{helm.StatusPendingUpgrade, 2},
		{helm.StatusPendingRollback, 2},
		{helm.StatusFailed, 2},
		{helm.StatusUninstalling, 1},
		{helm.StatusUninstalled, 1},
	} {
		t.Run(string(test.status), func(t *testing.T) {
			b := newBench()
			b.apply(t, sized(t, "one"))
			b.leave(t, "postgresql", test.status)
			got := b.apply(t, sized(t, "one"))
			if got.Action != Repaired || got.Revision != test.revision || !strings.Contains(got.Found, string(test.status)) {
				t.Errorf("got %+v", got)
			}
			if again := b.apply(t, sized(t, "one")); again.Action != Unchanged {
				t.Errorf("the run after that: %+v", again)
			}
		})
	}
}

func TestApplyPutsBackWhatHasGone(t *testing.T) {
	b := newBench()
	b.apply(t, sized(t, "one"))
	b.gone = []string{"postgresql-initdb"}
	differs, restarts, err := b.Drift(t.Context(), sized(t, "one"))
	if err != nil || !slices.Equal(differs, []string{"configmap/postgresql-initdb is gone"}) || restarts != nil {
		t.Errorf("it differs in %q, restarts %q, %v", differs, restarts, err)
	}
	if got := b.apply(t, sized(t, "one")); got != (Result{Action: Repaired, Revision: 2, Found: "configmap/postgresql-initdb is gone"}) {
		t.Errorf("got %+v", got)
	}
}

func TestApplyKeepsTheEvidenceOfAFailure(t *testing.T) {
	b := newBench()
	b.apply(t, sized(t, "one"))
	b.kube.UpdateError = errors.New("no room on this server")
	_, err := b.Apply(t.Context(), sized(t, "two"), nil)
	if err == nil || !strings.Contains(err.Error(), "no room on this server") || fault.CodeOf(err) != fault.CodeFailed {
		t.Fatalf("got %v", err)
	}
	last, err := b.store.Last("postgresql")
	if err != nil || last.Version != 2 || last.Info.Status != helm.StatusFailed {
		t.Fatalf("after a failure there is %v, %v", last, err)
	}
	b.kube.UpdateError = nil
	if got := b.apply(t, sized(t, "two")); got.Action != Repaired || got.Revision != 3 {
		t.Errorf("after the cure: %+v", got)
	}
}

func TestApplyKeepsAFewRevisions(t *testing.T) {
	b := newBench()
	for _, annotation := range strings.Split("abcdefghi", "") {
		b.apply(t, sized(t, annotation))
	}
	history, err := b.store.History("postgresql")
	if err != nil || len(history) != 5 {
		t.Errorf("%d revisions are kept, %v", len(history), err)
	}
}

func TestApplyChangesNothingOnceItsContextHasEnded(t *testing.T) {
	b := newBench()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Apply(ctx, sized(t, "one"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := b.store.Last("postgresql"); !errors.Is(err, driver.ErrReleaseNotFound) {
		t.Errorf("the release is there: %v", err)
	}
}

func TestApplyRefusesAClaimChangeBeforeHelmIsCalled(t *testing.T) {
	b := newBench()
	b.apply(t, with(t, "postgresql", "auth: {existingSecret: s}"))
	_, err := b.Apply(t.Context(), with(t, "postgresql", "auth: {existingSecret: s}\nprimary: {persistence: {size: 77Gi}}"), nil)
	if fault.CodeOf(err) != fault.CodeUsage {
		t.Fatalf("got %v", err)
	}
	if last, err := b.store.Last("postgresql"); err != nil || last.Version != 1 || last.Info.Status != helm.StatusDeployed {
		t.Errorf("the release is now %v, %v", last, err)
	}
}

func TestUninstall(t *testing.T) {
	b := newBench()
	for range 2 { // the second finds nothing, which is no error
		if err := b.Uninstall(t.Context(), "postgresql", "database"); err != nil {
			t.Fatal(err)
		}
	}
	b.apply(t, sized(t, "one"))
	if err := b.Uninstall(t.Context(), "postgresql", "database"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.store.Last("postgresql"); !errors.Is(err, driver.ErrReleaseNotFound) {
		t.Errorf("the release is still there: %v", err)
	}
}

func TestRevisionsCarryTheHash(t *testing.T) {
	b := newBench()
	spec := sized(t, "one")
	b.apply(t, spec)
	want, err := Hash(spec)
	if err != nil {
		t.Fatal(err)
	}
	last, err := b.store.Last("postgresql")
	if err != nil || last.Labels[hashLabel] != want {
		t.Errorf("the label is %q, want %q (%v)", last.Labels[hashLabel], want, err)
	}
}
