package main

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit/rabbittest"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What an order leaves in the metrics: requests, batches, its end, seats, queues with the dead letters, outbox and pool.
func TestMetricsOfAnOrdersLife(t *testing.T) {
	db, vhost := postgrestest.New(t), rabbittest.Platform(t)
	p := start(t, environ(t, db.As("order_api"), vhost))
	until(t, "the broker's sessions", func() bool { _, body := get(t, p.url+"/health"); return strings.Contains(body, `"broker":"ok"`) })
	answer, err := http.Post(p.url+"/orders", "application/json", strings.NewReader(`{"userId":1,"showId":3,"quantity":2}`))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	channel := rabbittest.Channel(t, vhost)
	for key, body := range map[string]string{
		"payment.succeeded": `{"messageId":"m","createdAt":"2025-01-01T00:00:00Z","type":"payment.succeeded","orderId":1,"userId":1,"amount":100,"status":"SUCCEEDED","showId":3,"quantity":2}`,
		"payment.failed":    `no JSON`,
	} {
		if err := channel.PublishWithContext(t.Context(), "events.topic", key, true, false, amqp.Publishing{MessageId: "m", Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range []string{
		`http_request_seconds_count{method="POST",route="POST /orders",status="202"} 1`,
		`intake_orders_total{outcome="accepted"} 1`,
		`intake_wait_seconds_count 1`,
		`order_end_seconds_count 1`,
		`show_seats{show="3",state="free"} 118`, `show_seats{show="3",state="held"} 0`, `show_seats{show="3",state="sold"} 2`,
		`consumer_batch_seconds_count{queue="order.payment-results.q"} [12]`,
		`consumer_dead_lettered_total{queue="order.payment-results.q"} 1`,
		`queue_messages{queue="events.dlq.q"} 1`, `queue_messages{queue="payment.order-created.q"} 1`, `queue_messages{queue="order.payment-results.q"} 0`,
		`outbox_events 0`, `outbox_oldest_seconds 0`, `outbox_held_events 0`,
		`postgres_pool_connections_max 16`, `postgres_pool_waits_total \d+`, `postgres_pool_wait_seconds_total \d.*`,
	} {
		until(t, line, func() bool {
			_, body := get(t, p.url+"/metrics")
			pattern := strings.NewReplacer("{", `\{`, "}", `\}`, ".q", `\.q`).Replace(line)
			return regexp.MustCompile("(?m)^" + pattern + "$").MatchString(body)
		})
	}
}
