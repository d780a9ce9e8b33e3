package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/inspect"
)

func TestEvents(t *testing.T) {
	at := time.Date(2025, 11, 26, 10, 0, 0, 123e6, time.UTC)
	events := []inspect.Event{
		{Time: at, Key: "order.created", MessageID: "order.created:17", Order: 17, Body: inspect.Body(`{"messageId":"order.created:17","orderId":17,"userId":"a","showId":1,"quantity":2}`)},
		{Time: at, Key: "payment.succeeded", Order: 18, Body: inspect.Body(`{"orderId":18,"amount":50}`)},
		{Time: at, Key: "something.else", Body: inspect.Body("\x1b[2Jx")},
	}
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.json"), filepath.Join(dir, "bad.json")
	for file, text := range map[string]string{good: `{"messageId":"order.created:17","type":"order.created","orderId":17,"userId":"a","showId":1,"quantity":2}`, bad: `{"orderId":17}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		args  string
		code  int
		says  string
		never string
	}{
		{"events --time 10ms", 0, "10:00:00.123  order.created      order 17      2 seats of show 1 for a\n10:00:00.123  payment.succeeded  order 18      amount 50\n10:00:00.123  something.else     order -       x\n", "\x1b"},
		{"events --time 10ms --order 18", 0, "amount 50", "order 17"},
		{"events --time 10ms --key payment.* -o json", 0, `{"time":"2025-11-26T10:00:00.123Z","key":"payment.succeeded","messageId":"","order":18,"body":{"orderId":18,"amount":50}}`, "order.created"},
		{"events --time 0s", 2, "--time must be more than nothing", ""},
		{"events --order x", 2, "--order takes a whole number", ""},
		{"events publsh", 2, `events has no command "publsh"`, ""},
		{"events publish order.created", 2, "takes a routing key and a file, and got 1 argument", ""},
		{"events publish order.created " + dir + "/none", 2, "no such file", ""},
		{"events publish order.created " + bad, 2, "nothing was published: messageId is missing", ""},
		{"events publish payment.failed " + good, 2, "nothing was published: type", ""},
		{"events publish nothing " + good, 2, `no event has the key "nothing"`, ""},
		{"events publish order.created " + good, 0, "published order.created:17 on order.created", ""},
	} {
		f := &fakePlatform{broker: &fakeBroker{events: events}}
		r := call(t, f, strings.Fields(tt.args)...)
		if r.code != tt.code || !strings.Contains(r.out+r.err, tt.says) || tt.never != "" && strings.Contains(r.out, tt.never) {
			t.Errorf("%s: exit code %d\n%s%s", tt.args, r.code, r.out, r.err)
		}
	}
}
