package release

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	metadatafake "k8s.io/client-go/metadata/fake"
)

// kept is the Secret that Helm keeps for a revision, as far as List reads it.
func kept(namespace, release, revision, status, hash string) runtime.Object {
	return &metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "sh.helm.release.v1." + release + ".v" + revision,
			Labels: map[string]string{"owner": "helm", "name": release, "version": revision, "status": status, hashLabel: hash},
		},
	}
}

func TestListReadsTheNewestRevisionOfEach(t *testing.T) {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	client := &Client{objects: metadatafake.NewSimpleMetadataClient(scheme,
		kept("messaging", "rabbitmq", "9", "superseded", "old"),
		kept("messaging", "rabbitmq", "10", "deployed", "new"),
		kept("database", "postgresql", "1", "pending-install", "first"),
		kept("elsewhere", "postgresql", "7", "deployed", "other"),
	)}
	got, err := client.List(t.Context(), "messaging", "database", "apps")
	if err != nil {
		t.Fatal(err)
	}
	want := []Status{
		{Name: "postgresql", Namespace: "database", Revision: 1, Status: "pending-install", Hash: "first"},
		{Name: "rabbitmq", Namespace: "messaging", Revision: 10, Status: "deployed", Hash: "new"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got[0].Holds("first") || !got[1].Holds("new") || got[1].Holds("old") {
		t.Error("a release holds when its newest revision is deployed with that hash, and only then")
	}
}
