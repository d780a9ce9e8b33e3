package inspect

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// told are the metrics of an order-api that has accepted and ended n orders, half of which took up to 10 ms and half up to 20.
func told(started, n int) string {
	return fmt.Sprintf(`# TYPE process_start_time_seconds gauge
process_start_time_seconds %[1]d
# TYPE intake_orders_total counter
intake_orders_total{outcome="accepted"} %[2]d
intake_orders_total{outcome="shed"} %[3]d
# TYPE order_end_seconds histogram
order_end_seconds_bucket{le="0.01"} %[3]d
order_end_seconds_bucket{le="0.02"} %[2]d
order_end_seconds_bucket{le="+Inf"} %[2]d
order_end_seconds_sum 1
order_end_seconds_count %[2]d
# TYPE outbox_events gauge
outbox_events 3
# TYPE outbox_oldest_seconds gauge
outbox_oldest_seconds 0.25
# TYPE queue_messages gauge
queue_messages{queue="payment.order-created.q"} 4
queue_messages{queue="order.payment-results.q"} 5
queue_messages{queue="events.dlq.q"} 6
# TYPE show_seats gauge
show_seats{show="2",state="free"} 7
show_seats{show="1",state="free"} 8
show_seats{show="1",state="held"} 9
show_seats{show="1",state="sold"} 10
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total %[2]d
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 2e+07
# TYPE postgres_pool_connections_in_use gauge
postgres_pool_connections_in_use 2
# TYPE postgres_pool_connections_max gauge
postgres_pool_connections_max 16
`, started, n, n/2)
}

const paid = `# TYPE consumer_batch_messages histogram
consumer_batch_messages_bucket{queue="payment.order-created.q",le="+Inf"} 1
consumer_batch_messages_sum{queue="payment.order-created.q"} %[1]d
consumer_batch_messages_count{queue="payment.order-created.q"} 1
`

func TestFigures(t *testing.T) {
	start := time.Date(2025, 11, 26, 10, 0, 0, 0, time.UTC)
	var w Window
	look := func(second int, pods ...string) Figures {
		t.Helper()
		at := start.Add(time.Duration(second) * time.Second)
		var all []Scrape
		for i, text := range pods {
			s, err := ReadScrape(fmt.Sprint("pod", i), at, []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		return w.Add(at, all)
	}
	first := look(0, told(1, 1000), fmt.Sprintf(paid, 1000))
	if first.Over != 0 || first.In.PerSecond != 0 || first.Out.P99MS != nil {
		t.Errorf("the first look has nothing to compare: %+v", first)
	}
	got := look(2, told(1, 1200), fmt.Sprintf(paid, 1150))
	want := Figures{
		At: start.Add(2 * time.Second), Over: 2,
		In: Rate{PerSecond: 100}, Refused: Rate{PerSecond: 50}, Paid: Rate{PerSecond: 75}, Out: Rate{PerSecond: 100, P99MS: new(19.8)},
		Outbox: &OutboxFigures{3, 0.25},
		Queues: []QueueFigure{{"payment.order-created.q", 4}, {"order.payment-results.q", 5}, {"events.dlq.q", 6}},
		Shows:  []Seats{{Show: 1, Free: 8, Held: 9, Sold: 10}, {Show: 2, Free: 7}},
		Pods:   []PodFigures{{Pod: "pod0", Cores: 100, Memory: 20_000_000, Pool: 2, Of: 16}, {Pod: "pod1"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// A process that began anew counts from nothing: what it did before is not held against it, nor is it negative.
	if again := look(4, told(2, 10)); again.In.PerSecond != 0 || again.Out.P99MS != nil || len(again.Pods) != 1 {
		t.Errorf("%+v", again)
	}
	if again := look(6, told(2, 30)); again.In.PerSecond != 10 {
		t.Errorf("%+v", again.In)
	}
	// The window is the last seconds, however long one looks.
	for second := 7; second < 60; second++ {
		got = look(second, told(2, 30+10*(second-6)))
	}
	if got.In.PerSecond != 10 || got.Over != 5 {
		t.Errorf("%+v over %v", got.In, got.Over)
	}
	if _, err := ReadScrape("pod", start, []byte("no metrics {")); err == nil {
		t.Error("what is no metrics was read")
	}
}
