package inspect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"platformctl/pkg/contract"
	"platformctl/pkg/rabbit"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// inHand is how many letters are looked at, at most: as many as the broker lets one have in hand.
	inHand = 1<<16 - 1
	// silence is how long a letter may take to come; what another holds does not come.
	silence = 3 * time.Second
	// consumerTag names the consumer, so that it can be ended before what it has.
	consumerTag = "platformctl"
	settled     = 5 * time.Millisecond // between two looks at whether they are back
)

// Letters reads the dead letters, the oldest first, and leaves them where they are. more is how many there are beyond what is read.
func (b Broker) Letters(ctx context.Context) (letters []Letter, more int, err error) {
	err = b.hand(ctx, func(_ context.Context, h *hand) error {
		letters, more = h.letters, h.more
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read the dead letters: %w", err)
	}
	return letters, more, nil
}

// hand is the dead letters while one has them in hand: nobody else sees them meanwhile.
type hand struct {
	conn    *amqp.Connection
	channel *amqp.Channel
	letters []Letter
	more    int // beyond what one may have in hand
	acked   map[uint64]bool

	consumes bool
}

// hand takes the dead letters in hand, does something with them, and puts back to their places what was not acknowledged.
func (b Broker) hand(ctx context.Context, do func(context.Context, *hand) error) error {
	return b.session(ctx, func(ctx context.Context, conn *amqp.Connection) error {
		ch, err := channel(conn)
		if err != nil {
			return err
		}
		h := &hand{conn: conn, channel: ch, acked: map[uint64]bool{}}
		if err := h.take(ctx); err != nil {
			return err
		}
		err = do(ctx, h)
		if ctx.Err() != nil || conn.IsClosed() {
			return err // the broker puts them back
		}
		return errors.Join(err, h.putBack(ctx))
	})
}

func (h *hand) take(ctx context.Context) error {
	// To get one tells exactly how many there are; a count alone is 0 also where the queue did not answer in time.
	first, ok, err := h.channel.Get(contract.QueueDeadLetters, false)
	var refused *amqp.Error
	switch {
	case errors.As(err, &refused) && refused.Code == amqp.NotFound, err == nil && !ok:
		return nil // there are none, or no service has declared the queue yet
	case err != nil:
		return fmt.Errorf("get a message of %s: %w", contract.QueueDeadLetters, err)
	}
	h.letters = append(h.letters, read(first))
	there := 1 + int(first.MessageCount)
	if there == 1 {
		return nil
	}
	h.consumes = true
	if err := h.channel.Qos(inHand, 0, false); err != nil {
		return fmt.Errorf("set the prefetch: %w", err)
	}
	deliveries, err := h.channel.Consume(contract.QueueDeadLetters, consumerTag, false, false, false, false, nil)
	if err != nil {
		return fmt.Errorf("consume %s: %w", contract.QueueDeadLetters, err)
	}
	timer := time.NewTimer(silence)
	defer timer.Stop()
	for len(h.letters) < min(there, inHand) {
		select {
		case d, open := <-deliveries:
			if !open {
				return fmt.Errorf("the broker ended the consumer of %s", contract.QueueDeadLetters)
			}
			h.letters = append(h.letters, read(d))
			timer.Reset(silence)
			continue
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		}
		break
	}
	// A letter that was renewed is behind younger ones.
	slices.SortStableFunc(h.letters, func(a, b Letter) int { return a.Died.Compare(b.Died) })
	h.more = there - len(h.letters)
	return nil
}

func (h *hand) ack(l Letter) error {
	if err := l.delivery.Ack(false); err != nil {
		return fmt.Errorf("acknowledge %s: %w", l.ID, err)
	}
	h.acked[l.delivery.DeliveryTag] = true
	return nil
}

// putBack returns when who looks next finds the letters in their places again. The broker would do it by itself, and a moment later.
func (h *hand) putBack(ctx context.Context) error {
	if h.consumes {
		if err := h.channel.Cancel(consumerTag, false); err != nil { // else they came again at once
			return fmt.Errorf("put dead letters back: %w", err)
		}
	}
	if err := h.renew(ctx); err != nil {
		return fmt.Errorf("put dead letters back: %w", err)
	}
	kept := len(h.letters) - len(h.acked)
	if kept == 0 {
		return nil
	}
	if err := h.channel.Nack(0, true, true); err != nil { // all that were not acknowledged
		return fmt.Errorf("put dead letters back: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	again := time.NewTicker(settled)
	defer again.Stop()
	for {
		queue, err := h.channel.QueueDeclarePassive(contract.QueueDeadLetters, true, false, false, false, nil)
		if err != nil {
			return fmt.Errorf("count %s: %w", contract.QueueDeadLetters, err)
		}
		if queue.Messages >= kept {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil // they are, or somebody else has them
		}
	}
}

// A quorum queue counts how often a message was put back, and where nobody has set another limit drops it at the twentieth time.
const (
	usualLimit = 20
	brink      = 15
)

// renew puts a copy in the place of each letter that is near the limit: a look must not be what loses it. They go to the end of the
// queue, in their order.
func (h *hand) renew(ctx context.Context) error {
	var near []Letter
	for _, l := range h.letters {
		if n := number(l.delivery.Headers, deliveryCount); !h.acked[l.delivery.DeliveryTag] && n >= brink && n < usualLimit {
			near = append(near, l)
		}
	}
	if len(near) == 0 {
		return nil
	}
	publisher, err := rabbit.NewPublisher(h.conn, 1, nil)
	if err != nil {
		return err
	}
	for _, l := range near {
		headers := maps.Clone(l.delivery.Headers)
		delete(headers, deliveryCount)
		confirmation, err := publisher.Publish(ctx, rabbit.Message{
			Key: contract.QueueDeadLetters, MessageID: l.MessageID, CorrelationID: l.delivery.CorrelationId, Timestamp: l.delivery.Timestamp,
			Headers: headers, Body: l.Body,
		})
		if err == nil {
			err = confirmation.Wait(ctx)
		}
		if err == nil {
			err = h.ack(l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deliveryCount is the header in which a quorum queue counts earlier deliveries.
const deliveryCount = "x-delivery-count"

// Fate is what became of a letter that was to be sent back, or what would.
type Fate struct {
	Letter `json:"letter"`
	Sent   bool   `json:"sent"`          // it is in its queue, and no dead letter any more
	Why    string `json:"why,omitempty"` // it stays
}

// Retry sends the chosen letters back to the queues that they came from, each with a count of how often that was done. Those of one
// order go in the order in which they died, and where one stays the later ones of its order stay too. A letter is acknowledged
// only when the broker has confirmed its copy: whatever breaks in between, it may be there twice, which the services know how to
// take, and is never lost. With dry, nothing is done: what would be is told.
func (b Broker) Retry(ctx context.Context, choice Choice, dry bool) (fates []Fate, unknown []string, err error) {
	err = b.hand(ctx, func(ctx context.Context, h *hand) error {
		unknown = choice.Unknown(h.letters)
		fates = decide(h.letters, choice)
		if dry {
			return nil
		}
		return h.send(ctx, fates)
	})
	if err != nil {
		return fates, unknown, fmt.Errorf("send dead letters back: %w", err)
	}
	return fates, unknown, nil
}

// decide says of the chosen letters which can be sent back: Sent is still a wish.
func decide(letters []Letter, choice Choice) (fates []Fate) {
	stays := map[int64]string{} // the first letter of an order that stays
	for _, l := range letters {
		if !choice.Has(l) {
			continue
		}
		f := Fate{Letter: l}
		switch earlier := stays[l.Order]; {
		case l.Queue == "":
			f.Why = "nobody wrote down which queue it came from"
		case l.Retries >= MostRetries:
			f.Why = fmt.Sprintf("it died again after each of %d retries", l.Retries)
		case earlier != "":
			f.Why = fmt.Sprintf("%s, an earlier one of order %d, stays", earlier, l.Order)
		default:
			f.Sent = true
		}
		if !f.Sent && l.Order != 0 && stays[l.Order] == "" {
			stays[l.Order] = l.ID
		}
		fates = append(fates, f)
	}
	return fates
}

// send sends what decide lets go, in rounds that have at most one letter of an order: the next one goes when the broker has the one
// before. Those of no known order are on their own.
func (h *hand) send(ctx context.Context, fates []Fate) error {
	publisher, err := rabbit.NewPublisher(h.conn, inHand, nil)
	if err != nil {
		return err
	}
	stays := map[int64]string{}
	var waiting []*Fate
	for i := range fates {
		if fates[i].Sent {
			fates[i].Sent = false // until it is
			waiting = append(waiting, &fates[i])
		}
	}
	for len(waiting) > 0 {
		var round, later []*Fate
		begun, named := map[int64]bool{}, map[string]bool{} // a copy that comes back is known by its message id alone
		for _, f := range waiting {
			switch {
			case stays[f.Order] != "":
				f.Why = fmt.Sprintf("%s, an earlier one of order %d, stays", stays[f.Order], f.Order)
			case f.Order != 0 && begun[f.Order], named[f.MessageID]:
				begun[f.Order] = true // none of its order overtakes it
				later = append(later, f)
			default:
				begun[f.Order], named[f.MessageID] = true, true
				round = append(round, f)
			}
		}
		if err := h.sendRound(ctx, publisher, round); err != nil {
			return err
		}
		for _, f := range round {
			if !f.Sent && f.Order != 0 {
				stays[f.Order] = f.ID
			}
		}
		waiting = later
	}
	return nil
}

// sendRound publishes copies, all at once, and acknowledges the originals of those that the broker has.
func (h *hand) sendRound(ctx context.Context, publisher *rabbit.Publisher, round []*Fate) error {
	confirmations := make([]*rabbit.Confirmation, 0, len(round))
	for _, f := range round {
		confirmation, err := publisher.Publish(ctx, f.copy())
		if err != nil {
			return err
		}
		confirmations = append(confirmations, confirmation)
	}
	for i, f := range round {
		switch err := confirmations[i].Wait(ctx); {
		case errors.Is(err, rabbit.ErrUnroutable):
			f.Why = fmt.Sprintf("there is no queue %s", f.Queue)
		case errors.Is(err, rabbit.ErrRefused):
			f.Why = fmt.Sprintf("the broker refused it for %s", f.Queue)
		case err != nil:
			return err
		default:
			if err := h.ack(f.Letter); err != nil {
				return err
			}
			f.Sent = true
		}
	}
	return nil
}

// copy is what is sent back: the message as its queue had it, with the key that it was published on, and one retry more.
func (l Letter) copy() rabbit.Message {
	headers := amqp.Table{}
	maps.Copy(headers, l.delivery.Headers)
	for name := range headers {
		death := strings.HasPrefix(name, "x-first-death-") || strings.HasPrefix(name, "x-last-death-") || name == "x-death" || name == deliveryCount
		if death || name == contract.HeaderReason || name == contract.HeaderOrigin || name == contract.HeaderTries || name == contract.HeaderDied {
			delete(headers, name)
		}
	}
	headers[contract.HeaderRetries] = l.Retries + 1
	if l.Key != "" {
		headers[contract.HeaderKey] = l.Key
	}
	return rabbit.Message{
		Key: l.Queue, MessageID: l.MessageID, CorrelationID: l.delivery.CorrelationId, Timestamp: l.delivery.Timestamp, Headers: headers, Body: l.Body,
	}
}

// Drop removes the chosen letters for good, and returns them. With dry it only returns them.
func (b Broker) Drop(ctx context.Context, choice Choice, dry bool) (dropped []Letter, unknown []string, err error) {
	err = b.hand(ctx, func(ctx context.Context, h *hand) error {
		unknown = choice.Unknown(h.letters)
		for _, l := range h.letters {
			if !choice.Has(l) {
				continue
			}
			if !dry {
				if err := h.ack(l); err != nil {
					return err
				}
			}
			dropped = append(dropped, l)
		}
		return nil
	})
	if err != nil {
		return dropped, unknown, fmt.Errorf("drop dead letters: %w", err)
	}
	return dropped, unknown, nil
}
