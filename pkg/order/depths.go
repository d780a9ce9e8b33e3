package order

import (
	"context"
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

// count asks each second how many messages wait, until the session ends; then nobody knows.
func (d *Depths) count(ctx context.Context, channel *amqp.Channel, pace *Pace) {
	defer pace.Queued(0)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		queues := map[string]int{}
		for _, name := range []string{ToBePaid, ToBeSettled, DeadLetters} {
			queue, err := channel.QueueDeclarePassive(name, true, false, false, false, nil)
			if err != nil {
				return // the session is over, or a queue was deleted: who publishes to it learns that
			}
			queues[name] = queue.Messages
		}
		pace.Queued(queues[ToBePaid] + queues[ToBeSettled])
		d.set(queues)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
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
