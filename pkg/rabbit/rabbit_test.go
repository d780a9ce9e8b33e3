package rabbit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"platformctl/pkg/rabbit"
	"platformctl/pkg/rabbit/rabbittest"

	"github.com/prometheus/client_golang/prometheus"
	amqp "github.com/rabbitmq/amqp091-go"
)

const patience = 30 * time.Second

func dialer(t *testing.T, address string) *rabbit.Dialer {
	return &rabbit.Dialer{URL: address, Name: t.Name(), Log: slog.New(slog.DiscardHandler)}
}

// run runs something until the test stops it.
func run(t *testing.T, work func(context.Context)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		work(ctx)
	}()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("it does not stop")
		}
	}
	t.Cleanup(stop)
	return stop
}

func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

// setup makes a queue "work" with n messages "0", "1", ... and dead letters in "dead".
func setup(t *testing.T, address string, n int) *amqp.Channel {
	t.Helper()
	channel := rabbittest.Channel(t, address)
	if err := declare(channel); err != nil {
		t.Fatal(err)
	}
	publish(t, channel, 0, n)
	return channel
}

func declare(channel *amqp.Channel) error {
	if err := channel.ExchangeDeclare("dlx", "direct", true, false, false, false, nil); err != nil {
		return err
	}
	for _, q := range []string{"work", "dead"} {
		if _, err := channel.QueueDeclare(q, true, false, false, false, nil); err != nil {
			return err
		}
	}
	return channel.QueueBind("dead", "dead", "dlx", false, nil)
}

func publish(t *testing.T, channel *amqp.Channel, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		id := fmt.Sprint(i)
		if err := channel.PublishWithContext(t.Context(), "", "work", true, false, amqp.Publishing{MessageId: id, DeliveryMode: amqp.Persistent, Body: []byte(id)}); err != nil {
			t.Fatal(err)
		}
	}
}

func consumer(t *testing.T, d *rabbit.Dialer, handle func(context.Context, []amqp.Delivery) ([]rabbit.Reject, error)) *rabbit.Consumer {
	return &rabbit.Consumer{
		Dialer: d, Queue: "work", Declare: declare, Prefetch: 100, Batch: 50, Handle: handle, DeadExchange: "dlx", DeadKey: "dead",
		HeaderNames: rabbit.Headers{Reason: "x-reason", Origin: "x-origin-queue", Key: "x-origin-key", Tries: "x-tries", Died: "x-died-at"},
		Metrics:     rabbit.NewConsumerMetrics(prometheus.NewRegistry()),
	}
}

// A late acknowledgement must fail: were it to reach the next session, it would settle messages that nobody has handled.
func TestLateMultipleAckAfterACutFails(t *testing.T) {
	address := rabbittest.VHost(t)
	setup(t, address, 10)
	proxy := rabbittest.NewProxy(t, address)
	d := dialer(t, proxy.URL(address))
	late := make(chan error, 1)
	second := make(chan []string, 1)
	var sessions int
	stop := run(t, func(ctx context.Context) {
		var old amqp.Delivery
		d.Run(ctx, func(ctx context.Context, s rabbit.Session) error {
			sessions++
			channel, err := s.Conn.Channel()
			if err != nil {
				return err
			}
			deliveries, err := channel.Consume("work", "", false, false, false, false, nil)
			if err != nil {
				return err
			}
			var ids []string
			for len(ids) < 10 {
				select {
				case x := <-deliveries:
					ids = append(ids, x.MessageId)
					if sessions == 1 {
						old = x
					}
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			if sessions == 1 {
				proxy.Cut()
				<-ctx.Done()
				return context.Cause(ctx)
			}
			late <- old.Ack(true) // its tag is that of a message of this session too
			second <- ids
			<-s.Stop
			return nil
		})
	})
	if err := receive(t, late, "the late acknowledgement"); err == nil {
		t.Error("the acknowledgement of a dead session was taken")
	}
	if ids := receive(t, second, "the second session"); len(ids) != 10 {
		t.Errorf("the second session got %v", ids)
	}
	stop()
	if got := rabbittest.Take(t, rabbittest.Channel(t, address), "work", 10); len(got) != 10 {
		t.Errorf("%d of 10 messages are left", len(got))
	}
}

func TestACutBetweenEffectAndAckBringsTheBatchAgain(t *testing.T) {
	address := rabbittest.VHost(t)
	setup(t, address, 200)
	proxy := rabbittest.NewProxy(t, address)
	var mu sync.Mutex
	seen := map[string]int{}
	redelivered := 0
	cuts := 3
	all := make(chan struct{})
	c := consumer(t, dialer(t, proxy.URL(address)), func(ctx context.Context, batch []amqp.Delivery) ([]rabbit.Reject, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, d := range batch {
			if seen[d.MessageId]++; d.Redelivered {
				redelivered++
			}
		}
		if cuts > 0 {
			cuts--
			proxy.Cut()
			<-ctx.Done() // the cut has been seen; the acknowledgement that follows is late
		} else if len(seen) == 200 {
			select {
			case <-all:
			default:
				close(all)
			}
		}
		return nil, nil
	})
	stop := run(t, func(ctx context.Context) { _ = c.Run(ctx) })
	receive(t, all, "every message")
	stop()
	mu.Lock()
	defer mu.Unlock()
	if redelivered == 0 {
		t.Error("nothing was redelivered: the cut did not hit a batch in hand")
	}
	q, err := rabbittest.Channel(t, address).QueueDeclarePassive("work", true, false, false, false, nil)
	if err != nil || q.Messages != 0 {
		t.Errorf("%d messages left, %v", q.Messages, err)
	}
}

func TestPoisonGoesToTheDeadLettersWithItsReason(t *testing.T) {
	address := rabbittest.VHost(t)
	channel := setup(t, address, 10)
	handled := make(chan string, 100)
	c := consumer(t, dialer(t, address), func(ctx context.Context, batch []amqp.Delivery) (rejects []rabbit.Reject, err error) {
		for _, d := range batch {
			if d.MessageId == "3" || d.MessageId == "9" {
				rejects = append(rejects, rabbit.Reject{Delivery: d, Reason: "it is " + d.MessageId})
			}
			handled <- d.MessageId
		}
		return rejects, nil
	})
	stop := run(t, func(ctx context.Context) { _ = c.Run(ctx) })
	for range 10 {
		receive(t, handled, "a message")
	}
	dead := rabbittest.Take(t, channel, "dead", 2)
	stop()
	for i, id := range []string{"3", "9"} {
		d := dead[i]
		if d.MessageId != id || string(d.Body) != id || d.Headers["x-reason"] != "it is "+id || d.Headers["x-origin-queue"] != "work" || d.Headers["x-tries"] != int64(1) {
			t.Errorf("dead letter %d: %s %s %v", i, d.MessageId, d.Body, d.Headers)
		}
	}
	if q, err := channel.QueueDeclarePassive("work", true, false, false, false, nil); err != nil || q.Messages != 0 {
		t.Errorf("%d messages left, %v", q.Messages, err)
	}
}

// Where the dead letters are full, the copy is refused and the original rejected; the rest of the batch is acknowledged, also
// when the rejected one was its last.
func TestPoisonThatNobodyTakesIsRejected(t *testing.T) {
	address := rabbittest.VHost(t)
	channel := rabbittest.Channel(t, address)
	full := func(channel *amqp.Channel) error {
		if err := channel.ExchangeDeclare("dlx", "direct", true, false, false, false, nil); err != nil {
			return err
		}
		if _, err := channel.QueueDeclare("work", true, false, false, false, nil); err != nil {
			return err
		}
		args := amqp.Table{"x-queue-type": "classic", "x-max-length": 0, "x-overflow": "reject-publish"}
		if _, err := channel.QueueDeclare("dead", true, false, false, false, args); err != nil {
			return err
		}
		return channel.QueueBind("dead", "dead", "dlx", false, nil)
	}
	if err := full(channel); err != nil {
		t.Fatal(err)
	}
	publish(t, channel, 0, 5)
	handled := make(chan string, 100)
	c := consumer(t, dialer(t, address), func(ctx context.Context, batch []amqp.Delivery) (rejects []rabbit.Reject, err error) {
		for _, d := range batch {
			if d.MessageId == "4" {
				rejects = append(rejects, rabbit.Reject{Delivery: d, Reason: "poison"})
			}
			handled <- d.MessageId
		}
		return rejects, nil
	})
	c.Declare = full
	stop := run(t, func(ctx context.Context) { _ = c.Run(ctx) })
	for i := range 5 {
		if id := receive(t, handled, "a message"); id != fmt.Sprint(i) {
			t.Errorf("message %s came as number %d", id, i)
		}
	}
	publish(t, channel, 5, 6)
	if id := receive(t, handled, "the message after the poison"); id != "5" {
		t.Errorf("after the poison came %s", id)
	}
	stop()
	if q, err := channel.QueueDeclarePassive("work", true, false, false, false, nil); err != nil || q.Messages != 0 {
		t.Errorf("%d messages left, %v", q.Messages, err)
	}
}

func TestStopFinishesTheBatchInHandAndLeavesTheRest(t *testing.T) {
	address := rabbittest.VHost(t)
	channel := setup(t, address, 80)
	begun, finish := make(chan int, 10), make(chan struct{})
	c := consumer(t, dialer(t, address), func(ctx context.Context, batch []amqp.Delivery) ([]rabbit.Reject, error) {
		begun <- len(batch)
		select {
		case <-finish:
		case <-ctx.Done():
			t.Error("the batch in hand got no time")
		}
		return nil, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	n := receive(t, begun, "a batch")
	cancel()
	close(finish)
	if err := receive(t, done, "the consumer's end"); err != nil {
		t.Error(err)
	}
	if more := len(begun); more != 0 {
		t.Errorf("%d batches were begun after the stop", more)
	}
	if left := rabbittest.Take(t, channel, "work", 80-n); len(left) != 80-n {
		t.Errorf("%d messages came again, %d were left", len(left), 80-n)
	}
}

func TestPublisherKnowsWhatTheBrokerHas(t *testing.T) {
	address := rabbittest.VHost(t)
	channel := setup(t, address, 0)
	if _, err := channel.QueueDeclare("full", true, false, false, false, amqp.Table{"x-queue-type": "classic", "x-max-length": 1, "x-overflow": "reject-publish"}); err != nil {
		t.Fatal(err)
	}
	proxy := rabbittest.NewProxy(t, address)
	errs := map[string]error{}
	done := make(chan struct{})
	run(t, func(ctx context.Context) {
		dialer(t, proxy.URL(address)).Run(ctx, func(ctx context.Context, s rabbit.Session) error {
			defer func() { <-s.Stop }()
			defer close(done)
			p, err := rabbit.NewPublisher(s.Conn, 3, nil)
			if err != nil {
				return err
			}
			for _, m := range []struct{ id, key string }{{"a", "work"}, {"b", "nowhere"}, {"c", "full"}, {"d", "full"}, {"e", "full"}, {"f", "work"}} {
				confirmation, err := p.Publish(ctx, rabbit.Message{Key: m.key, MessageID: m.id, Body: []byte(m.id)})
				if err == nil {
					err = confirmation.Wait(ctx)
				}
				errs[m.id] = err
			}
			proxy.Away()
			confirmation, err := p.Publish(ctx, rabbit.Message{Key: "work", MessageID: "g"})
			if err == nil {
				err = confirmation.Wait(ctx)
			}
			errs["g"] = err
			return nil
		})
	})
	receive(t, done, "the session's end")
	for id, want := range map[string]error{"a": nil, "b": rabbit.ErrUnroutable, "c": nil, "e": rabbit.ErrRefused, "f": nil} {
		if !errors.Is(errs[id], want) {
			t.Errorf("%s: %v, want %v", id, errs[id], want)
		}
	}
	if errs["g"] == nil {
		t.Error("a message that was cut off counts as delivered")
	}
}

func TestDialerTellsWhetherASessionIsUp(t *testing.T) {
	address := rabbittest.VHost(t)
	proxy := rabbittest.NewProxy(t, address)
	proxy.Away()
	d := dialer(t, proxy.URL(address))
	if d.Err() == nil {
		t.Error("up before the start")
	}
	up, down := make(chan struct{}, 10), make(chan struct{}, 10)
	run(t, func(ctx context.Context) {
		d.Run(ctx, func(ctx context.Context, s rabbit.Session) error {
			s.Up()
			up <- struct{}{}
			select {
			case <-s.Stop:
			case <-ctx.Done():
				down <- struct{}{}
			}
			return context.Cause(ctx)
		})
	})
	proxy.Back()
	for range 2 {
		receive(t, up, "a session")
		if err := d.Err(); err != nil {
			t.Errorf("a session is up, but %v", err)
		}
		proxy.Cut()
		receive(t, down, "the session's end")
	}
}
