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
	"platformctl/pkg/order"
	"platformctl/pkg/outbox"
	"platformctl/pkg/page"
	"platformctl/pkg/postgres"
	"platformctl/pkg/rabbit"
)

const (
	name     = "order-api"
	poolSize = 16 // two batchers, the relay, the settler, the sweeper, and readers
)

// relayDrain is how long the events in memory get to be confirmed. What is left stays in the table, for another relay.
const relayDrain = 5 * time.Second

type config struct {
	Port   uint16 `env:"PORT" envDefault:"8080"`
	HoldMS uint32 `env:"RESERVATION_TTL_MS" envDefault:"900000"`
}

func serve(ctx context.Context, environ []string, logs io.Writer) error {
	var base daemon.Base
	var database daemon.Database
	var broker daemon.Broker
	var own config
	if err := daemon.Load(environ, &base, &database, &broker, &own); err != nil {
		return err
	}
	log := daemon.NewLogger(logs, base.LogLevel, name, base.PodName)
	registry := daemon.NewRegistry()
	pool, err := postgres.Open(database.URL(), name, poolSize)
	if err != nil {
		return err
	}
	defer pool.Close()
	registry.MustRegister(postgres.Metrics(pool)...)

	relay := outbox.New(base.PodName+"/"+rand.Text(), pool, log, order.Keys()...)
	registry.MustRegister(relay)
	store := &order.Store{DB: pool, Pod: base.PodName, Relay: relay.Name, Hold: time.Duration(own.HoldMS) * time.Millisecond}
	pace := &order.Pace{Store: store, Log: log}
	depths := &order.Depths{}
	shows := postgres.Throttle(store.Shows)
	registry.MustRegister(pace, depths, order.Seats{Shows: shows})
	publisher := &rabbit.Dialer{URL: broker.URL(), Name: name + " relay " + base.PodName, Log: log}
	subscriber := &rabbit.Dialer{URL: broker.URL(), Name: name + " consumer " + base.PodName, Log: log}
	connected := func() error { return errors.Join(publisher.Err(), subscriber.Err()) }
	seen := source{store: store, relay: relay, depths: depths, broker: connected}
	live := page.New(base.PodName, &seen, log)

	intake := order.NewIntake(store, pace, offered(live, relay.Offer), registry, log)
	waiters := &order.Waiters{}
	sweeper := &order.Sweeper{Store: store, Waiters: waiters, Log: log, Pause: time.Second}
	sweeper.Expired, sweeper.Unheard = order.NewSweeperCounters(registry)

	settler := &order.Settler{Store: store, Waiters: waiters, Pace: pace, Log: log, Ends: order.NewEndHistogram(registry)}
	exchanges := order.Broker{Events: broker.Events, DeadLetters: broker.DeadLetters, Prefetch: int(broker.Prefetch)}
	consumer := exchanges.Consumer(subscriber, settler, rabbit.NewConsumerMetrics(registry))
	consumer.Handle = handled(live, consumer.Handle)
	seen.figures = func() (order.Figures, error) { return intake.Figures(settler.Ends, sweeper.Expired, sweeper.Unheard) }

	newest, err := order.Newest()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	api := order.NewAPI(order.API{Store: store, Shows: shows, Intake: intake, Waiters: waiters, Log: log, Gone: daemon.Gone})
	api.Routes(mux)
	live.Routes(mux)
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", own.Port))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return daemon.Run(ctx, daemon.Service{
		Name: name, Log: log, Listener: listener, Routes: mux, Direct: api.Direct(), Registry: registry,
		Checks: map[string]func(context.Context) error{
			"database": pool.Ping,
			"broker":   func(context.Context) error { return connected() },
		},
		Ready: postgres.Migrated(pool, newest), // and after that, whatever the database does
		OnStop: func() {
			waiters.Close()
			live.Close()
		},
		Parts: []daemon.Part{
			{Name: "intake", Run: intake.Run},
			{Name: "relay", Drain: daemon.Within(relayDrain, relay.Drain), Run: func(ctx context.Context) error {
				exchanges.Relay(ctx, publisher, relay, pace, depths)
				return nil
			}},
			{Name: "consumer", Run: consumer.Run},
			{Name: "sweeper", Run: sweeper.Run},
			{Name: "waiters", Run: func(ctx context.Context) error { return waiters.Watch(ctx, store, log) }},
			{Name: "pace", Run: pace.Run},
			{Name: "page", Run: live.Run},
		},
	})
}
