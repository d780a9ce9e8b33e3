// Package resolve finds hosts by their names also where the DNS is just being started.
package resolve

import (
	"context"
	"errors"
	"net"
	"time"
)

// firstPatience is how long the first question may be without an answer. After a restart of the cluster a pod is there before its
// DNS is; what it asks then is lost, and resolv.conf knows no pause below a second.
const firstPatience = 250 * time.Millisecond

// Host is the addresses of a host, as net.Resolver's LookupHost has them. A question without an answer is asked again, each time with
// a quarter more patience, until ctx ends.
func Host(ctx context.Context, host string) ([]string, error) {
	return ask(ctx, host, net.DefaultResolver.LookupHost)
}

func ask(ctx context.Context, host string, lookup func(context.Context, string) ([]string, error)) (addresses []string, err error) {
	for patience := firstPatience; ; patience += patience / 4 {
		once, cancel := context.WithTimeout(ctx, patience)
		addresses, err = lookup(once, host)
		late := once.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return addresses, err
		}
	}
}

// Dial is net.Dialer's DialContext, but that the host is found by Host. Of several addresses the first that answers counts.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addresses, err := Host(ctx, host)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, a := range addresses {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(a, port))
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}
