package main

import (
	"context"
	"net"
	"net/url"

	"platformctl/pkg/inspect"
	"platformctl/pkg/platform"
)

// theBroker is what the commands want of the platform's broker; an inspect.Broker is it.
type theBroker interface {
	Tap(ctx context.Context, key string, begun func(), lost func(error), see func(inspect.Event) error) error
	Publish(ctx context.Context, key string, body []byte) (messageID string, err error)
	Queues(ctx context.Context) ([]inspect.QueueState, error)
	Letters(ctx context.Context) (letters []inspect.Letter, more int, err error)
	Retry(ctx context.Context, choice inspect.Choice, dry bool) (fates []inspect.Fate, unknown []string, err error)
	Drop(ctx context.Context, choice inspect.Choice, dry bool) (dropped []inspect.Letter, unknown []string, err error)
}

// brokerOf is the running platform's broker, reached through the API server.
func (e *env) brokerOf(ctx context.Context, p thePlatform) (theBroker, error) {
	login, err := p.Broker(ctx)
	if err != nil {
		return nil, err
	}
	client, err := p.Kube(ctx)
	if err != nil {
		return nil, err
	}
	s, err := platform.FindService("rabbitmq")
	if err != nil {
		return nil, err
	}
	return inspect.Broker{
		URL: (&url.URL{Scheme: "amqp", User: url.UserPassword(login.User, login.Password), Host: s.Workload}).String() + "/" + url.PathEscape("/"),
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return client.Dial(ctx, s.Namespace, s.Workload+"-0", s.Ports[0].Number)
		},
	}, nil
}

// openBroker is the running platform's broker, for a command that needs nothing else.
func (e *env) openBroker(ctx context.Context) (theBroker, error) {
	p, err := e.platform()
	if err != nil {
		return nil, err
	}
	return e.broker(ctx, p)
}
