package image

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestReachable(t *testing.T) {
	t.Parallel()
	for code, reachable := range map[int]bool{
		http.StatusOK: true, http.StatusUnauthorized: true,
		http.StatusForbidden: false, http.StatusNotFound: false, http.StatusBadGateway: false,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				t.Errorf("asked for %s", r.URL)
			}
			w.WriteHeader(code)
		}))
		if err := Reachable(t.Context(), strings.TrimPrefix(server.URL, "http://")); (err == nil) != reachable {
			t.Errorf("a server that answers %d: %v", code, err)
		}
		server.Close()
		if err := Reachable(t.Context(), strings.TrimPrefix(server.URL, "http://")); err == nil {
			t.Error("a closed server is reachable")
		}
	}
	if err := Reachable(t.Context(), "no registry"); err == nil {
		t.Error("a name with a blank is reachable")
	}
}

func TestReachableDoesNotWaitForLong(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }))
	defer server.Close()
	defer close(done)
	began := time.Now()
	err := Reachable(t.Context(), strings.TrimPrefix(server.URL, "http://"))
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "no answer in 3s") || took > 10*time.Second {
		t.Errorf("after %s: %v", took, err)
	}
}
