package main

import (
	"context"
	"io"
	"time"

	"platformctl/pkg/daemon"
	"platformctl/pkg/order"
)

// migrateTimeout is how long a database may take to come up; after that the kubelet starts the init container again.
const migrateTimeout = 3 * time.Minute

type passwords struct {
	OrderAPI       string `env:"ORDER_API_DB_PASSWORD,notEmpty"`
	PaymentService string `env:"PAYMENT_SERVICE_DB_PASSWORD,notEmpty"`
}

func migrate(ctx context.Context, environ []string, logs io.Writer) error {
	var base daemon.Base
	var database daemon.Database
	var roles passwords
	if err := daemon.Load(environ, &base, &database, &roles); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	log := daemon.NewLogger(logs, base.LogLevel, "order-api-migrate", base.PodName)
	return order.Migrate(ctx, database.URL(), order.Passwords(roles), log)
}
