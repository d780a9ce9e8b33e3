package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit/rabbittest"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestWrongCallsAndConfiguration(t *testing.T) {
	good := []string{"DB_USER=u", "DB_PASSWORD=p", "DB_NAME=d", "RABBITMQ_USERNAME=u", "RABBITMQ_PASSWORD=p"}
	for _, c := range []struct {
		args, environ []string
		code          int
		want          string
	}{
		{[]string{"migrate"}, nil, 2, "usage: payment-service\n"},
		{nil, append(good, "PAYMENT_FAILURE_RATE=2", "ENABLE_PAYMENT_EVENTS_CONSUMER=true"), 78,
			"PAYMENT_FAILURE_RATE must be from 0 to 1"},
		{nil, append(good, "PAYMENT_FAILURE_RATE=NaN"), 78, "PAYMENT_FAILURE_RATE must be from 0 to 1, not NaN\n"},
		{nil, append(good, "PAYMENT_DELAY_MS=soon", "ENABLE_PAYMENT_EVENTS_QUEUE=maybe"), 78, "PAYMENT_DELAY_MS is not a valid"},
	} {
		var stderr strings.Builder
		code := run(t.Context(), c.args, c.environ, io.Discard, &stderr)
		if code != c.code || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%v: %d %s", c.environ, code, stderr.String())
		}
	}
}

// Without its tables it takes no payments, and does not say that it could.
func TestReadyOnceMigrated(t *testing.T) {
	db, vhost := postgrestest.Old(t), rabbittest.Platform(t)
	du, mu := parse(t, db.URL), parse(t, vhost)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan int, 1)
	reader, logs := io.Pipe()
	go func() {
		done <- run(ctx, nil, []string{
			"PORT=0", "PGHOST=" + du.Hostname(), "PGPORT=" + du.Port(), "PGDATABASE=" + du.Path[1:], "PGUSER=" + du.User.Username(), "PGPASSWORD=" + password(du),
			"RABBITMQ_HOST=" + mu.Hostname(), "RABBITMQ_PORT=" + mu.Port(), "RABBITMQ_VHOST=" + mu.Path[1:], "RABBITMQ_USERNAME=" + mu.User.Username(), "RABBITMQ_PASSWORD=" + password(mu),
		}, logs, io.Discard)
		logs.Close()
	}()
	var address string
	lines := bufio.NewScanner(reader)
	for address == "" && lines.Scan() {
		var line struct{ Msg, Address string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if line.Msg == "serving" {
			address = "http://127.0.0.1" + line.Address[strings.LastIndex(line.Address, ":"):]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	for deadline := time.Now().Add(30 * time.Second); ; {
		answer, err := http.Get(address + "/ready?wait=1s")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusServiceUnavailable || time.Now().After(deadline) {
			t.Fatalf("%s %s %v", answer.Status, body, err)
		}
		if strings.Contains(string(body), `"the database is at version 0 and must be migrated to 10"`) { // and the broker is there
			break
		}
	}
	stop()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// With the old service's queue enabled, it is made as that one makes it, and kept empty.
func TestThePaymentEventsQueue(t *testing.T) {
	db, vhost := postgrestest.New(t), rabbittest.Platform(t)
	channel := rabbittest.Channel(t, vhost)
	args := amqp.Table{"x-dead-letter-exchange": "dlx.direct", "x-dead-letter-routing-key": "events.dlq", "x-message-ttl": int32(60000)}
	if _, err := channel.QueueDeclare("payment.events.q", true, false, false, false, args); err != nil { // an old service was here before
		t.Fatal(err)
	}
	if _, err := db.Pool.Exec(t.Context(), `INSERT INTO orders (id, user_id, show_id, quantity, status) VALUES (1, '1', 1, 1, 'PENDING')`); err != nil {
		t.Fatal(err)
	}
	du, mu := parse(t, db.As("payment_service")), parse(t, vhost)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int, 1)
	var stderr strings.Builder
	go func() {
		done <- run(ctx, nil, []string{
			"PORT=0", "PGHOST=" + du.Hostname(), "PGPORT=" + du.Port(), "PGDATABASE=" + du.Path[1:], "PGUSER=payment_service", "PGPASSWORD=" + postgrestest.RolePassword,
			"RABBITMQ_HOST=" + mu.Hostname(), "RABBITMQ_PORT=" + mu.Port(), "RABBITMQ_VHOST=" + mu.Path[1:], "RABBITMQ_USERNAME=" + mu.User.Username(), "RABBITMQ_PASSWORD=" + password(mu),
			"ENABLE_PAYMENT_EVENTS_QUEUE=true", "ENABLE_PAYMENT_EVENTS_CONSUMER=true", "PAYMENT_EVENTS_TTL_MS=60000",
		}, io.Discard, &stderr)
	}()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(30 * time.Second)
	sent := false
	for ; ; <-ticker.C {
		q, err := channel.QueueDeclarePassive("payment.events.q", true, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if q.Consumers == 1 && !sent {
			body := `{"messageId":"m-1","orderId":1,"userId":1,"showId":1,"quantity":1}`
			if err := channel.PublishWithContext(t.Context(), "events.topic", "order.created", true, false, amqp.Publishing{Body: []byte(body)}); err != nil {
				t.Fatal(err)
			}
			sent = true
			rabbittest.Take(t, channel, "order.payment-results.q", 1)
		}
		if sent && q.Messages == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d consumers, %d messages", q.Consumers, q.Messages)
		}
	}
	stop()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d: %s", code, stderr.String())
	}
}

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func password(u *url.URL) string { p, _ := u.User.Password(); return p }
