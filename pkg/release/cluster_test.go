package release

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestWhatIsWrittenIsCheckedStrictly(t *testing.T) {
	got := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got[r.Method] = r.URL.RawQuery
	}))
	defer server.Close()
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		request, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/?limit=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := strict{http.DefaultTransport}.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		want := "limit=1"
		if method == "POST" || method == "PUT" || method == "PATCH" {
			want = "fieldValidation=Strict&limit=1"
		}
		if got[method] != want {
			t.Errorf("%s asks with %q, want %q", method, got[method], want)
		}
		if request.URL.RawQuery != "limit=1" {
			t.Errorf("%s: the caller's request was changed to %q", method, request.URL.RawQuery)
		}
	}
}
