package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"platformctl/pkg/daemon"
	"platformctl/pkg/outbox"
	"platformctl/pkg/payment"
	"platformctl/pkg/postgres"
	"platformctl/pkg/rabbit"
)

const (
	name     = "payment-service"
	poolSize = 8
)

// relayDrain is how long the events in memory get to be confirmed. What is left stays in the table, for another relay.
const relayDrain = 5 * time.Second

type config struct {
	Port        uint16  `env:"PORT" envDefault:"8081"`
	FailureRate float64 `env:"PAYMENT_FAILURE_RATE" envDefault:"0.1"`
	DelayMS     uint32  `env:"PAYMENT_DELAY_MS" envDefault:"0"`
	// The replaced service's own queue: made, and kept empty, only where these say so.
	EventsQueue    bool   `env:"ENABLE_PAYMENT_EVENTS_QUEUE" envDefault:"false"`
	EventsConsumer bool   `env:"ENABLE_PAYMENT_EVENTS_CONSUMER" envDefault:"false"`
	EventsTTLMS    uint32 `env:"PAYMENT_EVENTS_TTL_MS" envDefault:"0"`
}

func (c config) check() error {
	var faults []error
	if !(c.FailureRate >= 0 && c.FailureRate <= 1) {
		faults = append(faults, fmt.Errorf("PAYMENT_FAILURE_RATE must be from 0 to 1, not %v", c.FailureRate))
	}
	if c.EventsConsumer && !c.EventsQueue {
		faults = append(faults, errors.New("ENABLE_PAYMENT_EVENTS_CONSUMER needs ENABLE_PAYMENT_EVENTS_QUEUE=true"))
	}
	return errors.Join(faults...)
}

func serve(ctx context.Context, environ []string, logs io.Writer) error {
	var base daemon.Base
	var database daemon.Database
	var broker daemon.Broker
	var own config
	if err := daemon.Load(environ, &base, &database, &broker, &own); err != nil {
		return err
	}
	if err := own.check(); err != nil {
		return &daemon.Misconfigured{Err: err}
	}
	log := daemon.NewLogger(logs, base.LogLevel, name, base.PodName)
	registry := daemon.NewRegistry()
	pool, err := postgres.Open(database.URL(), name, poolSize)
	if err != nil {
		return err
	}
	defer pool.Close()
	registry.MustRegister(postgres.Metrics(pool)...)

	relay := outbox.New(base.PodName+"/"+rand.Text(), pool, log, payment.Keys()...)
	registry.MustRegister(relay)
	store := &payment.Store{DB: pool, Pod: base.PodName, Relay: relay.Name}
	cashier := &payment.Cashier{
		Store: store, Offer: relay.Offer, Log: log, Now: time.Now,
		Gateway: payment.Gateway{FailureRate: own.FailureRate, Delay: time.Duration(own.DelayMS) * time.Millisecond},
	}

	exchanges := payment.Broker{
		Events: broker.Events, DeadLetters: broker.DeadLetters, Prefetch: int(broker.Prefetch),
		EventsQueue: own.EventsQueue, EventsQueueTTL: time.Duration(own.EventsTTLMS) * time.Millisecond,
	}
	dialer := func(use string) *rabbit.Dialer {
		return &rabbit.Dialer{URL: broker.URL(), Name: name + " " + use + " " + base.PodName, Log: log}
	}
	publisher, subscriber := dialer("relay"), dialer("consumer")
	metrics := rabbit.NewConsumerMetrics(registry)
	// The consumer stops first: what it makes is still published.
	parts := []daemon.Part{
		{Name: "consumer", Run: exchanges.Consumer(subscriber, cashier, metrics).Run},
		{Name: "relay", Drain: daemon.Within(relayDrain, relay.Drain), Run: func(ctx context.Context) error {
			exchanges.Relay(ctx, publisher, relay)
			return nil
		}},
	}
	if own.EventsConsumer {
		parts = append(parts, daemon.Part{Name: "drain", Run: exchanges.Drain(dialer("drain"), metrics).Run})
	}

	mux := http.NewServeMux()
	(&payment.API{Store: store, Log: log}).Routes(mux)
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", own.Port))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	connected := func(context.Context) error { return errors.Join(publisher.Err(), subscriber.Err()) }
	migrated := postgres.Migrated(pool, payment.Schema)
	return daemon.Run(ctx, daemon.Service{
		Name: name, Log: log, Listener: listener, Routes: mux, Registry: registry,
		Checks: map[string]func(context.Context) error{"database": pool.Ping, "broker": connected},
		Ready:  func(ctx context.Context) error { return errors.Join(connected(ctx), pool.Ping(ctx), migrated(ctx)) },
		Parts:  parts,
	})
}
