package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"platformctl/pkg/fault"
	"platformctl/pkg/kube"
)

func TestWantedDoors(t *testing.T) {
	for args, want := range map[string]string{
		"":                                   "",
		"postgres":                           "postgres postgresql/postgresql 5432",
		"postgresql 15432":                   "postgres postgresql/postgresql 15432",
		"rabbit:5673 management":             "rabbitmq rabbitmq/amqp 5673, management rabbitmq/manager 15672",
		"order-api 9090 payment-service:0":   "order order-api-order-api-chart/http 9090, payment payment-service-payment-service-chart/http 0",
		"postgres:0 rabbitmq:0 management 1": "postgres postgresql/postgresql 0, rabbitmq rabbitmq/amqp 0, management rabbitmq/manager 1",
	} {
		got, err := wantedDoors(strings.Fields(args))
		if err != nil {
			t.Errorf("%s: %v", args, err)
		}
		var words []string
		for _, d := range got {
			words = append(words, fmt.Sprintf("%s %s/%s %d", d.name, d.service.Workload, d.port.Name, d.local))
		}
		if text := strings.Join(words, ", "); text != want {
			t.Errorf("%s: %q, want %q", args, text, want)
		}
	}
}

func TestAPortThatIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	r := call(t, &fakePlatform{}, "forward", "payment:0", "postgres:"+strconv.Itoa(port))
	want := fmt.Sprintf("Error: postgres cannot be forwarded: port %d on 127.0.0.1 is taken by nginx (pid 7)\n"+
		"Try:   bin/platformctl forward postgres:%d\n       bin/platformctl forward postgres:0   # any free port\n", port, port+1)
	if r.code != fault.CodeUnfit || r.err != want || r.out != "" {
		t.Errorf("exit code %d, %s%s", r.code, r.out, r.err)
	}
}

func TestAForwardTellsWhatItLeadsTo(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var errs strings.Builder
	e := newEnv(streams{In: strings.NewReader(""), Out: &errs, Err: &errs, Getenv: func(string) string { return "" }})
	say := e.sayLead("order", kube.Forward{Listener: l})
	for _, lead := range []kube.Lead{
		{Why: "no pod of it is ready"}, {Pod: "a"}, {Pod: "b"}, {Pod: "b", Why: "connection refused"}, {Why: "no pod of it is ready"}, {Pod: "c"},
	} {
		say(lead)
	}
	at := "order       " + l.Addr().String()
	want := at + " is down: no pod of it is ready\n" + at + " leads to a\n" + at + " leads to b\n" +
		at + ": a connection to b failed: connection refused\n" + at + " is down: no pod of it is ready\n" + at + " is back, to c\n"
	if errs.String() != want {
		t.Errorf("it says\n%swant\n%s", errs.String(), want)
	}
}
