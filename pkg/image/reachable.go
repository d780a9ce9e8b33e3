package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

// probeTime is how long a registry has to answer a probe.
const probeTime = 3 * time.Second

// Reachable asks the registry at host ("registry.example.com", "127.0.0.1:5000") once whether it is one, for three
// seconds at most. nil is yes, also if it wants to know who we are; an error says why not.
func Reachable(ctx context.Context, host string) (err error) {
	registry, err := name.NewRegistry(host)
	if err != nil {
		return fmt.Errorf("%q is no registry's name: %w", host, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, probeTime, fmt.Errorf("no answer in %s", probeTime))
	defer cancel()
	address := registry.Scheme() + "://" + registry.RegistryStr() + "/v2/"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", host, err)
	}
	// A connection of its own, closed at the end: one probe leaves nothing behind.
	roundTripper := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	answer, err := (&http.Client{Transport: roundTripper}).Do(request)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("ask %s: %w", host, err)
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("ask %s: it answers %s, as no registry does", host, answer.Status)
	}
	return nil
}

// isUnreachable says whether err comes from the way to a server, not from what it answered.
func isUnreachable(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &dns) || errors.As(err, &op) && op.Op == "dial"
}
