package rabbit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"platformctl/pkg/failpoint"

	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Headers under which a dead letter tells its story. Key is read too: a message that was sent back to its queue, by the queue's
// name, has in it the routing key that it was published on, and is handled under that.
type Headers struct{ Reason, Origin, Key, Tries, Died string }

// Reject is a delivery that can never be handled, and why, as a sentence.
type Reject struct {
	Delivery amqp.Delivery
	Reason   string
}

// Consumer takes messages from one queue in batches.
type Consumer struct {
	Dialer *Dialer
	Queue  string
	// Declare makes the queue and all that the consumer needs; it is called once a session.
	Declare func(*amqp.Channel) error
	// Prefetch is how many messages the broker may send ahead; Batch, how many Handle gets at most.
	Prefetch, Batch int
	// Handle makes the batch take effect and returns those that never can; who tries several times may name one again. Only after it has returned is anything
	// acknowledged. Its context ends with the connection, or graceHandle after the consumer was stopped. It waits for
	// servers that are away by itself: an error throws the whole session away, and all its messages come again.
	Handle func(ctx context.Context, batch []amqp.Delivery) ([]Reject, error)
	// Beside, if there is one, runs beside each session; its context is the session's life. The next session waits for its return.
	Beside func(ctx context.Context)
	// DeadExchange and DeadKey say where rejected messages are published, with HeaderNames as their headers.
	DeadExchange, DeadKey string
	HeaderNames           Headers
	Metrics               *ConsumerMetrics
}

// graceHandle is what a batch in hand gets when the consumer is stopped.
const graceHandle = 5 * time.Second

// ConsumerMetrics count what consumers take and how it ends; their label is the queue.
type ConsumerMetrics struct {
	batch, duration         *prometheus.HistogramVec
	redelivered, deadLetter *prometheus.CounterVec
}

// NewConsumerMetrics registers the metrics.
func NewConsumerMetrics(registry prometheus.Registerer) *ConsumerMetrics {
	m := &ConsumerMetrics{
		batch: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "consumer_batch_messages", Help: "Messages in one batch.", Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}, []string{"queue"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "consumer_batch_seconds", Help: "From a batch's first message to its acknowledgement.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"queue"}),
		redelivered: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "consumer_redelivered_total", Help: "Messages that had been delivered before.",
		}, []string{"queue"}),
		deadLetter: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "consumer_dead_lettered_total", Help: "Messages that went to the dead letters.",
		}, []string{"queue"}),
	}
	registry.MustRegister(m.batch, m.duration, m.redelivered, m.deadLetter)
	return m
}

// Run consumes until ctx ends and the batch in hand is acknowledged.
func (c *Consumer) Run(ctx context.Context) error {
	c.Dialer.Run(ctx, c.session)
	return nil
}

func (c *Consumer) session(ctx context.Context, s Session) error {
	channel, err := s.Conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	if err := c.Declare(channel); err != nil {
		return fmt.Errorf("declare what %s needs: %w", c.Queue, err)
	}
	dead, err := NewPublisher(s.Conn, c.Batch, nil)
	if err != nil {
		return err
	}
	if err := channel.Qos(c.Prefetch, 0, false); err != nil {
		return fmt.Errorf("set the prefetch of %s: %w", c.Queue, err)
	}
	deliveries, err := channel.Consume(c.Queue, "", false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume %s: %w", c.Queue, err)
	}
	s.Up()
	if c.Beside != nil {
		life, end := context.WithCancel(ctx)
		var beside sync.WaitGroup
		beside.Go(func() { c.Beside(life) })
		defer beside.Wait()
		defer end()
	}
	// The library hands over one message at a time. Without this buffer a look at what else is there would find nothing.
	buffer := make(chan amqp.Delivery, c.Prefetch)
	go func() {
		defer close(buffer)
		for d := range deliveries {
			c.restoreKey(&d)
			buffer <- d // never blocks: the prefetch bounds what is unacknowledged
		}
	}()
	// What is in hand when the consumer is stopped gets a little longer, so that it need not come again.
	handling, abandon := context.WithCancelCause(ctx)
	defer abandon(nil)
	go func() {
		select {
		case <-s.Stop:
		case <-ctx.Done():
			return
		}
		timer := time.NewTimer(graceHandle)
		defer timer.Stop()
		select {
		case <-timer.C:
			abandon(errors.New("the consumer was stopped and its time is over"))
		case <-handling.Done():
		}
	}()
	for batch := make([]amqp.Delivery, 0, c.Batch); ; batch = batch[:0] {
		select {
		case <-s.Stop: // before anything new
			return nil
		default:
		}
		select {
		case <-s.Stop:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case d, open := <-buffer:
			if !open {
				return fmt.Errorf("the broker ended the consumer of %s", c.Queue)
			}
			batch = fill(append(batch, d), buffer, c.Batch)
		}
		if err := c.handle(handling, batch, dead); err != nil {
			return err
		}
	}
}

// restoreKey gives a message that was sent back to its queue the routing key that it had.
func (c *Consumer) restoreKey(d *amqp.Delivery) {
	if key, ok := d.Headers[c.HeaderNames.Key].(string); ok && d.Exchange == "" && d.RoutingKey == c.Queue {
		d.RoutingKey = key
	}
}

// fill takes what else is there, without waiting.
func fill(batch []amqp.Delivery, buffer <-chan amqp.Delivery, limit int) []amqp.Delivery {
	for len(batch) < limit {
		select {
		case d, open := <-buffer:
			if !open {
				return batch
			}
			batch = append(batch, d)
		default:
			return batch
		}
	}
	return batch
}

// handle has a batch take effect, buries what cannot, and acknowledges all with one multiple-ack.
func (c *Consumer) handle(ctx context.Context, batch []amqp.Delivery, dead *Publisher) (err error) {
	began := time.Now()
	defer func() {
		if err == nil {
			c.Metrics.duration.WithLabelValues(c.Queue).Observe(time.Since(began).Seconds())
		}
	}()
	c.Metrics.batch.WithLabelValues(c.Queue).Observe(float64(len(batch)))
	for _, d := range batch {
		if d.Redelivered {
			c.Metrics.redelivered.WithLabelValues(c.Queue).Inc()
		}
	}
	rejects, err := c.Handle(ctx, batch)
	if err != nil {
		return fmt.Errorf("handle %d messages of %s: %w", len(batch), c.Queue, err)
	}
	failpoint.Hit(failpoint.Effect)
	gone := map[uint64]bool{} // by tag: the broker knows it no more
	for _, r := range rejects {
		if _, buried := gone[r.Delivery.DeliveryTag]; buried {
			continue
		}
		if gone[r.Delivery.DeliveryTag], err = c.bury(ctx, r, dead); err != nil {
			return fmt.Errorf("dead-letter %q of %s: %w", r.Delivery.MessageId, c.Queue, err)
		}
	}
	last := len(batch) - 1
	for last >= 0 && gone[batch[last].DeliveryTag] {
		last--
	}
	if last < 0 {
		return nil
	}
	if err := batch[last].Ack(true); err != nil {
		return fmt.Errorf("acknowledge %d messages of %s: %w", len(batch), c.Queue, err)
	}
	return nil
}

// bury publishes a copy with its reason to the dead letters. The original is acknowledged with its batch, after the broker
// has the copy; where it does not want the copy, the original is rejected, which is told, and the broker dead-letters it
// without a reason.
func (c *Consumer) bury(ctx context.Context, r Reject, dead *Publisher) (rejected bool, err error) {
	d := r.Delivery
	tries := Tries(d)
	headers := amqp.Table{}
	maps.Copy(headers, d.Headers)
	delete(headers, deliveryCount)
	headers[c.HeaderNames.Reason], headers[c.HeaderNames.Origin], headers[c.HeaderNames.Tries] = r.Reason, c.Queue, tries
	headers[c.HeaderNames.Key], headers[c.HeaderNames.Died] = d.RoutingKey, time.Now()
	c.Dialer.Log.ErrorContext(ctx, "dead letter", "queue", c.Queue, "message", d.MessageId, "key", d.RoutingKey, "correlation", d.CorrelationId, "trace", d.Headers["traceparent"], "tries", tries, "reason", r.Reason)
	confirmation, err := dead.Publish(ctx, Message{
		Exchange: c.DeadExchange, Key: c.DeadKey, MessageID: d.MessageId, CorrelationID: d.CorrelationId,
		Timestamp: d.Timestamp, Headers: headers, Body: d.Body,
	})
	if err == nil {
		err = confirmation.Wait(ctx)
	}
	if errors.Is(err, ErrRefused) && ctx.Err() == nil {
		rejected, err = true, d.Reject(false)
	}
	if err == nil {
		c.Metrics.deadLetter.WithLabelValues(c.Queue).Inc()
	}
	return rejected, err
}

// Tries is how often a message was delivered, this time included, as far as its queue counts: one of the classic kind only tells that
// it was before.
func Tries(d amqp.Delivery) int64 {
	tries := int64(1)
	if n, ok := d.Headers[deliveryCount].(int64); ok {
		tries += n
	}
	if d.Redelivered {
		tries = max(tries, 2)
	}
	return tries
}

// deliveryCount is the header in which a quorum queue counts earlier deliveries.
const deliveryCount = "x-delivery-count"
