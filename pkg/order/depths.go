package order

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"platformctl/pkg/contract"

	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"
)

// The queues whose lengths are known.
const (
	ToBePaid    = contract.QueueOrderCreated
	ToBeSettled = contract.QueuePaymentResults
	DeadLetters = contract.QueueDeadLetters
)

// Depths are how many messages lie in the queues and among the dead letters, as the broker told last. It is asked each second
// while it is there. Their zero value knows nothing.
type Depths struct {
	mu     sync.Mutex
	queues map[string]int
	at     time.Time
}

// Now returns the queues' lengths by name, and when the broker told them; without a broker they are those of before.
func (d *Depths) Now() (queues map[string]int, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.queues), d.at
}

func (d *Depths) set(queues map[string]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues, d.at = queues, time.Now()
}

// watch asks each second how many messages wait, until the session ends; then nobody knows.
func (d *Depths) watch(ctx context.Context, conn *amqp.Connection, pace *Pace, log *slog.Logger) {
	defer pace.Queued(0)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	said := ""
	for channel := (*amqp.Channel)(nil); ; {
		var err error
		if channel == nil || channel.IsClosed() { // as the broker does it where a queue is missing
			channel, err = conn.Channel()
		}
		var queues map[string]int
		if err == nil {
			queues, err = depths(channel)
		}
		switch {
		case err == nil:
			said = ""
			pace.Queued(queues[ToBePaid] + queues[ToBeSettled])
			d.set(queues)
		case ctx.Err() == nil && said != err.Error():
			pace.Queued(0) // nobody knows
			said = err.Error()
			log.WarnContext(ctx, "the queues cannot be measured, trying again", "error", said)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func depths(channel *amqp.Channel) (map[string]int, error) {
	queues := map[string]int{}
	for _, name := range []string{ToBePaid, ToBeSettled, DeadLetters} {
		queue, err := channel.QueueDeclarePassive(name, true, false, false, false, nil)
		if err != nil {
			return nil, fmt.Errorf("measure %s: %w", name, err)
		}
		queues[name] = queue.Messages
	}
	return queues, nil
}

// depthStale is how old what the broker told may be for the metrics: an old number would look like a new one.
const depthStale = 5 * time.Second

// Describe implements prometheus.Collector.
func (d *Depths) Describe(out chan<- *prometheus.Desc) { out <- depthDesc }

// Collect implements prometheus.Collector; what is not known is left out.
func (d *Depths) Collect(out chan<- prometheus.Metric) {
	queues, at := d.Now()
	if time.Since(at) > depthStale {
		return
	}
	for name, n := range queues {
		out <- prometheus.MustNewConstMetric(depthDesc, prometheus.GaugeValue, float64(n), name)
	}
}

var depthDesc = prometheus.NewDesc("queue_messages", "Messages that lie in a queue and are not in a consumer's hands; those of events.dlq.q are the dead letters.", []string{"queue"}, nil)
