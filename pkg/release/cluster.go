package release

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"sync"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chartutil"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
)

// requestTimeout bounds each request to the API server, since Apply cannot be cancelled once it has begun.
const requestTimeout = 15 * time.Second

// cluster is what the releases of one cluster share: discovery is asked once for all of them. It is kept in memory only;
// Helm's usual cache on disk is keyed by host and port, and lies after a cluster was made anew.
type cluster struct {
	config    *rest.Config
	discovery discovery.CachedDiscoveryInterface
	mapper    meta.RESTMapper

	mu    sync.Mutex
	known *chartutil.Capabilities
}

func newCluster(config *rest.Config) (*cluster, error) {
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the cluster: %w", err)
	}
	cached := memory.NewMemCacheClient(client)
	return &cluster{config: config, discovery: cached, mapper: restmapper.NewDeferredDiscoveryRESTMapper(cached)}, nil
}

// capabilities asks the cluster once what it can do; Helm would ask again for each release.
func (c *cluster) capabilities() (*chartutil.Capabilities, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known != nil {
		return c.known, nil
	}
	version, err := c.discovery.ServerVersion()
	if err != nil {
		return nil, fmt.Errorf("ask the API server for its version: %w", err)
	}
	versions, err := action.GetVersionSet(c.discovery)
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		return nil, fmt.Errorf("ask the API server what it serves: %w", err)
	}
	c.known = &chartutil.Capabilities{
		KubeVersion: chartutil.KubeVersion{Version: version.GitVersion, Major: version.Major, Minor: version.Minor},
		APIVersions: versions,
		HelmVersion: chartutil.DefaultCapabilities.HelmVersion,
	}
	return c.known, nil
}

// getter is how Helm reaches the cluster for one namespace.
type getter struct {
	*cluster
	namespace string
}

func (g getter) ToRESTConfig() (*rest.Config, error) { return rest.CopyConfig(g.config), nil }

func (g getter) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) {
	return g.discovery, nil
}

func (g getter) ToRESTMapper() (meta.RESTMapper, error) { return g.mapper, nil }

// ToRawKubeConfigLoader serves Helm with the namespace alone; everything else it takes from the methods above.
func (g getter) ToRawKubeConfigLoader() clientcmd.ClientConfig {
	return clientcmd.NewDefaultClientConfig(clientcmdapi.Config{}, &clientcmd.ConfigOverrides{
		Context: clientcmdapi.Context{Namespace: g.namespace},
	})
}

// strict asks the API server to refuse a field that it does not know, in whatever is written. Helm's own way to find a
// misspelt field in a chart, fetching the server's whole OpenAPI description for each release, took most of an install.
type strict struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (s strict) RoundTrip(request *http.Request) (*http.Response, error) {
	switch request.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		request = request.Clone(request.Context())
		query := request.URL.Query()
		query.Set("fieldValidation", "Strict")
		request.URL.RawQuery = query.Encode()
	}
	return s.next.RoundTrip(request)
}

// Quiet sends what Helm and client-go print past their callers to w, for the whole process: their messages would tear a
// live display apart. w must stand writes from several goroutines. A program calls it once, at its start.
func Quiet(w io.Writer) {
	log.SetOutput(w)
	klog.LogToStderr(false)
	klog.SetOutput(w)
}
