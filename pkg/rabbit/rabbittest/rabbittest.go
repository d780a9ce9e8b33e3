// Package rabbittest gives each test a virtual host of its own on the test servers, and a proxy that cuts connections.
package rabbittest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/contract"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The test servers: the amqp:// URL of an administrator, and the http:// URL of the management API with the same user.
const (
	Variable    = "PLATFORMCTL_TEST_RABBITMQ"
	VariableAPI = "PLATFORMCTL_TEST_RABBITMQ_API"
)

// NeedsServers is how a test fails that finds no servers.
const NeedsServers = "needs the test servers: run `make test`, or `bin/platformctl servers -- go test ./pkg/...`"

// VHost makes a virtual host whose queues are quorum queues unless they say otherwise, as on the platform, and returns its
// amqp:// URL. It is deleted after the test.
func VHost(t testing.TB) string {
	t.Helper()
	server, api := os.Getenv(Variable), os.Getenv(VariableAPI)
	if server == "" || api == "" {
		t.Fatal(NeedsServers)
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("%s: %v", Variable, err)
	}
	name := "test-" + strings.ToLower(rand.Text()[:12])
	// The test's own context is over before the clean-up.
	ctx := context.WithoutCancel(t.Context())
	call(ctx, t, api, http.MethodPut, "/api/vhosts/"+name, map[string]string{"default_queue_type": "quorum"})
	t.Cleanup(func() { call(ctx, t, api, http.MethodDelete, "/api/vhosts/"+name, nil) })
	call(ctx, t, api, http.MethodPut, "/api/permissions/"+name+"/"+url.PathEscape(u.User.Username()),
		map[string]string{"configure": ".*", "write": ".*", "read": ".*"})
	u.Path = "/" + name
	return u.String()
}

// Platform makes a virtual host with all of the contract's topology in it, as the platform's start script leaves its own, and
// returns its amqp:// URL.
func Platform(t testing.TB) string {
	t.Helper()
	address := VHost(t)
	topology := contract.Topology{Events: contract.ExchangeEvents, DeadLetters: contract.ExchangeDeadLetters}
	if err := topology.Declare(Channel(t, address)); err != nil {
		t.Fatalf("declare the topology: %v", err)
	}
	return address
}

// As is the amqp:// URL of a service's user at the virtual host that the platform's start script has filled, and that all tests
// share. Its rights are those that the script gives.
func As(t testing.TB, user string) string {
	t.Helper()
	u, err := url.Parse(os.Getenv(Variable))
	if err != nil || u.User == nil {
		t.Fatal(NeedsServers)
	}
	password, _ := u.User.Password()
	u.User = url.UserPassword(user, password)
	return u.String()
}

// Denied fails the test unless the broker refuses what do asks for, each on a channel of its own, to the user of an address.
func Denied(t testing.TB, address string, do map[string]func(*amqp.Channel) error) {
	t.Helper()
	for what, ask := range do {
		channel := Channel(t, address)
		closed := channel.NotifyClose(make(chan *amqp.Error, 1))
		err := ask(channel)
		if err == nil { // a publish is refused only after it
			err = channel.Qos(1, 0, false)
		}
		if err == nil {
			t.Errorf("%s is not refused", what)
		} else if reason := <-closed; reason == nil || reason.Code != amqp.AccessRefused {
			t.Errorf("%s is not refused: %v", what, err)
		}
	}
}

func call(ctx context.Context, t testing.TB, api, method, path string, body any) {
	t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(api, "/")+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("%s: %v", NeedsServers, err)
	}
	defer answer.Body.Close()
	if said, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s %s %v", method, path, answer.Status, said, err)
	}
}

// Channel opens a channel of its own, closed after the test.
func Channel(t testing.TB, address string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(address)
	if err != nil {
		t.Fatalf("connect to the broker: %v", err)
	}
	t.Cleanup(func() { _ = conn.CloseDeadline(time.Now().Add(time.Second)) }) // the virtual host goes anyway
	channel, err := conn.Channel()
	if err != nil {
		t.Fatalf("open a channel: %v", err)
	}
	return channel
}

// Take waits for n messages of a queue and acknowledges them; it fails the test when they do not come.
func Take(t testing.TB, channel *amqp.Channel, queue string, n int) []amqp.Delivery {
	t.Helper()
	tag := fmt.Sprintf("take-%s", rand.Text())
	deliveries, err := channel.ConsumeWithContext(t.Context(), queue, tag, true, false, false, false, nil)
	if err != nil {
		t.Fatalf("consume %s: %v", queue, err)
	}
	var taken []amqp.Delivery
	timeout := time.After(20 * time.Second)
	for len(taken) < n {
		select {
		case d, open := <-deliveries:
			if !open {
				t.Fatalf("%s: the consumer ended after %d of %d messages", queue, len(taken), n)
			}
			taken = append(taken, d)
		case <-timeout:
			t.Fatalf("%s: %d of %d messages came", queue, len(taken), n)
		}
	}
	if err := channel.Cancel(tag, false); err != nil {
		t.Fatalf("cancel the consumer of %s: %v", queue, err)
	}
	for d := range deliveries {
		taken = append(taken, d)
	}
	return taken
}
