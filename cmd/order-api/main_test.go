package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit/rabbittest"
)

const patience = 30 * time.Second

// environ is that of a pod, for servers at URLs; each side may be nil.
func environ(t *testing.T, database, broker string, more ...string) []string {
	t.Helper()
	db, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	mq, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	password := func(u *url.URL) string { p, _ := u.User.Password(); return p }
	return append([]string{
		"PORT=0", "DB_HOST=" + db.Hostname(), "DB_PORT=" + db.Port(), "DB_NAME=" + strings.TrimPrefix(db.Path, "/"), "DB_USER=" + db.User.Username(), "DB_PASSWORD=" + password(db),
		"RABBITMQ_HOST=" + mq.Hostname(), "RABBITMQ_PORT=" + mq.Port(), "RABBITMQ_VHOST=" + strings.TrimPrefix(mq.Path, "/"), "RABBITMQ_USERNAME=" + mq.User.Username(), "RABBITMQ_PASSWORD=" + password(mq),
	}, more...)
}

// process is the program, as a function.
type process struct {
	url  string
	stop context.CancelFunc
	done chan int
}

func start(t *testing.T, environ []string) process {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	reader, logs := io.Pipe()
	p := process{stop: stop, done: make(chan int, 1)}
	finished := make(chan struct{})
	go func() {
		p.done <- run(ctx, nil, environ, logs, io.Discard)
		logs.Close()
		close(finished)
	}()
	address := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(reader); lines.Scan(); {
			var line struct{ Msg, Address string }
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				t.Errorf("not a JSON line: %s", lines.Bytes())
			} else if line.Msg == "serving" {
				address <- line.Address
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-finished
	})
	select {
	case a := <-address:
		p.url = "http://127.0.0.1" + a[strings.LastIndex(a, ":"):]
	case <-time.After(patience):
		t.Fatal("it does not serve")
	}
	return p
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Error(err)
	}
	return answer.StatusCode, strings.TrimSpace(string(body))
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

func TestWrongCallsAndConfiguration(t *testing.T) {
	for _, c := range []struct {
		args, environ []string
		code          int
		want          string
	}{
		{[]string{"serve"}, nil, 2, "usage: order-api [migrate]\n"},
		{[]string{"migrate", "x"}, nil, 2, "usage: order-api [migrate]\n"},
		{nil, []string{"DB_USER=u", "DB_PASSWORD=p", "DB_NAME=d", "RABBITMQ_USERNAME=u", "PORT=http"}, 78,
			"order-api: configuration: RABBITMQ_PASSWORD is not set; PORT is not a valid uint16: strconv.ParseUint: parsing \"http\": invalid syntax\n"},
		{[]string{"migrate"}, []string{"DB_USER=u", "DB_PASSWORD=p", "DB_NAME=d", "ORDER_API_DB_PASSWORD=p"}, 78,
			"order-api: configuration: PAYMENT_SERVICE_DB_PASSWORD is not set\n"},
	} {
		var stderr strings.Builder
		if code := run(t.Context(), c.args, c.environ, io.Discard, &stderr); code != c.code || stderr.String() != c.want {
			t.Errorf("%v %v: %d %s", c.args, c.environ, code, stderr.String())
		}
	}
}

// A database that does not come up ends in one line, also where its name has several addresses.
func TestMigrateGivesUpInOneLine(t *testing.T) {
	db := postgrestest.Old(t)
	proxy := rabbittest.NewProxy(t, db.URL)
	proxy.Away()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var stderr strings.Builder
	code := run(ctx, []string{"migrate"}, environ(t, proxy.URL(db.URL), "amqp://u:p@h:1/v", "DB_HOST=localhost", "ORDER_API_DB_PASSWORD=p", "PAYMENT_SERVICE_DB_PASSWORD=p"), io.Discard, &stderr)
	if code != 1 || !strings.HasPrefix(stderr.String(), "order-api: connect to the database: ") || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("%d %s", code, stderr.String())
	}
}

// Ready when the database is migrated, and from then on whatever it does.
func TestReadyOnceMigrated(t *testing.T) {
	db := postgrestest.Old(t)
	proxy := rabbittest.NewProxy(t, db.URL)
	vhost := rabbittest.Platform(t)
	p := start(t, environ(t, proxy.URL(db.URL), vhost))
	if code, body := get(t, p.url+"/ready"); code != 503 || !strings.Contains(body, "must be migrated") {
		t.Errorf("before: %d %s", code, body)
	}
	secrets := []string{"ORDER_API_DB_PASSWORD=" + postgrestest.RolePassword, "PAYMENT_SERVICE_DB_PASSWORD=" + postgrestest.RolePassword}
	var stderr strings.Builder
	if code := run(t.Context(), []string{"migrate"}, environ(t, db.URL, vhost, secrets...), io.Discard, &stderr); code != 0 {
		t.Fatalf("migrate: %d %s", code, stderr.String())
	}
	until(t, "readiness", func() bool { code, _ := get(t, p.url+"/ready"); return code == 200 })
	until(t, "health", func() bool {
		_, body := get(t, p.url+"/health")
		return body == `{"broker":"ok","database":"ok","service":"order-api","status":"ok"}`
	})
	proxy.Away()
	if code, _ := get(t, p.url+"/ready"); code != 200 {
		t.Errorf("the database is away: %d", code)
	}
	if _, body := get(t, p.url+"/health"); !strings.Contains(body, `"status":"degraded"`) || !strings.Contains(body, `"broker":"ok"`) {
		t.Errorf("the database is away: %s", body)
	}
	if code, _ := get(t, p.url+"/live"); code != 200 {
		t.Errorf("the database is away: %d", code)
	}
}

// Under load a stop fails no request, loses no order, and leaves nothing in the outbox.
func TestDrainUnderLoad(t *testing.T) {
	db := postgrestest.New(t)
	if _, err := db.Pool.Exec(t.Context(), `UPDATE shows SET capacity = 1000000`); err != nil {
		t.Fatal(err)
	}
	vhost := rabbittest.Platform(t)
	p := start(t, environ(t, db.As("order_api"), vhost))
	until(t, "the broker's sessions", func() bool { _, body := get(t, p.url+"/health"); return strings.Contains(body, `"broker":"ok"`) })
	var mu sync.Mutex
	accepted := map[int]bool{}
	var clients sync.WaitGroup
	loaded := make(chan struct{})
	for range 16 {
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for {
				answer, err := client.Post(p.url+"/orders", "application/json", strings.NewReader(`{"userId":1,"showId":1,"quantity":1}`))
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				var body struct{ OrderID int }
				err = json.NewDecoder(answer.Body).Decode(&body)
				answer.Body.Close()
				if err != nil || answer.StatusCode != http.StatusAccepted {
					t.Errorf("%s %v", answer.Status, err)
					return
				}
				mu.Lock()
				if accepted[body.OrderID] {
					t.Errorf("order %d was accepted twice", body.OrderID)
				}
				accepted[body.OrderID] = true
				if len(accepted) == 500 {
					close(loaded)
				}
				mu.Unlock()
				if answer.Close { // told to go elsewhere, as an endpoint that has left its Service
					return
				}
			}
		})
	}
	<-loaded
	p.stop()
	clients.Wait()
	select {
	case code := <-p.done:
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(patience):
		t.Fatal("it does not stop")
	}
	var rows, events int
	if err := db.Pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM outbox)`).Scan(&rows, &events); err != nil {
		t.Fatal(err)
	}
	if rows != len(accepted) || events != 0 {
		t.Errorf("%d orders of %d accepted, %d events left", rows, len(accepted), events)
	}
	ids := map[string]bool{}
	for _, d := range rabbittest.Take(t, rabbittest.Channel(t, vhost), "payment.order-created.q", rows) {
		ids[d.MessageId] = true
	}
	for id := range accepted {
		if !ids[fmt.Sprintf("order.created:%d", id)] {
			t.Errorf("order %d was not published", id)
		}
	}
}
