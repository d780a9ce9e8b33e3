package inspect

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"platformctl/pkg/contract"

	amqp "github.com/rabbitmq/amqp091-go"
)

// MostRetries is how often a dead letter is sent back. What has died so often dies again: sending it back would be a loop.
const MostRetries = 3

// Letter is a dead letter. What nobody wrote down is empty.
type Letter struct {
	ID        string    `json:"id"` // made of its contents, so that it is the same at each look
	MessageID string    `json:"messageId"`
	Died      time.Time `json:"diedAt"` // in whole seconds
	Key       string    `json:"key"`    // the routing key it was published on
	Queue     string    `json:"queue"`  // that it was taken from
	Order     int64     `json:"order"`  // 0 where its body tells none
	Tries     int64     `json:"tries"`  // deliveries before it was given up
	Retries   int64     `json:"retries"`
	Reason    string    `json:"reason"`
	Trace     string    `json:"traceparent,omitempty"`
	Body      Body      `json:"body"`

	delivery amqp.Delivery
}

// Body is a message's body: in JSON itself where it is JSON, else a string.
type Body []byte

// MarshalJSON implements json.Marshaler.
func (b Body) MarshalJSON() ([]byte, error) {
	if json.Valid(b) {
		return b, nil
	}
	return json.Marshal(string(b))
}

// Text is the body for people, with its indentation where it is JSON. What is no text is told by its size.
func (b Body) Text() string {
	if json.Valid(b) {
		if pretty, err := json.MarshalIndent(json.RawMessage(b), "", "  "); err == nil {
			return string(pretty)
		}
	}
	if !utf8.Valid(b) {
		return fmt.Sprintf("%d bytes that are no text", len(b))
	}
	return string(b)
}

// read makes a letter of a message. Our services write headers of their own; the broker itself, which dead-letters what is rejected
// or came back too often, writes x-death.
func read(d amqp.Delivery) Letter {
	l := Letter{
		MessageID: d.MessageId, Body: d.Body, Order: orderOf(d.CorrelationId, d.Body), delivery: d,
		Key: text(d.Headers, contract.HeaderKey), Queue: text(d.Headers, contract.HeaderOrigin), Reason: text(d.Headers, contract.HeaderReason),
		Tries: number(d.Headers, contract.HeaderTries), Retries: number(d.Headers, contract.HeaderRetries), Trace: text(d.Headers, contract.HeaderTrace),
	}
	l.Died, _ = d.Headers[contract.HeaderDied].(time.Time) // zero where it was not written
	if death := lastDeath(d.Headers); death != nil && l.Reason == "" {
		l.Queue = text(death, "queue")
		if keys, ok := death["routing-keys"].([]any); ok && len(keys) > 0 && l.Key == "" {
			l.Key, _ = keys[0].(string)
		}
		l.Died, _ = death["time"].(time.Time)
		l.Tries = max(l.Tries, number(death, "count"))
		l.Reason = brokersReason(text(death, "reason"))
	}
	if l.Key == "" {
		var event struct{ Type string }
		if json.Unmarshal(d.Body, &event) == nil {
			l.Key = event.Type
		}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %d %d %q", l.MessageID, l.Queue, l.Reason, l.Died.Unix(), l.Retries, d.Body))
	l.ID = hex.EncodeToString(sum[:4])
	return l
}

// lastDeath is the newest entry of the broker's own record, nil where there is none.
func lastDeath(headers amqp.Table) amqp.Table {
	deaths, _ := headers["x-death"].([]any)
	if len(deaths) == 0 {
		return nil
	}
	death, _ := deaths[0].(amqp.Table)
	return death
}

// brokersReason is the broker's word as a sentence.
func brokersReason(word string) string {
	switch word {
	case "rejected":
		return "its consumer rejected it and said no more"
	case "expired":
		return "it lay in its queue for longer than it may"
	case "maxlen":
		return "its queue was full"
	case "delivery_limit":
		return "it came back more often than its queue allows: its consumer ended each time"
	}
	return word
}

func text(t amqp.Table, name string) string { s, _ := t[name].(string); return s }

// number reads an integer, of whatever width its sender gave it.
func number(t amqp.Table, name string) int64 {
	switch n := t[name].(type) {
	case int64:
		return n
	case int32:
		return int64(n)
	case int16:
		return int64(n)
	}
	return 0
}

// orderOf is the order that a message is about: its body says it, or else its correlation id.
func orderOf(correlation string, body []byte) int64 {
	var event struct {
		OrderID json.RawMessage `json:"orderId"`
	}
	if json.Unmarshal(body, &event) == nil {
		if id, err := strconv.ParseInt(strings.Trim(string(event.OrderID), `"`), 10, 64); err == nil {
			return id
		}
	}
	id, err := strconv.ParseInt(correlation, 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// Choice says which letters are meant: all, or those that are named, or of whose key and order both are as wanted.
type Choice struct {
	All   bool
	IDs   []string // letters' own, or their messages'
	Key   string   // as topics match: * is one word, # any number; "" is any
	Order int64    // 0 is any
}

// Empty tells whether nothing was chosen.
func (c Choice) Empty() bool { return !c.All && len(c.IDs) == 0 && c.Key == "" && c.Order == 0 }

// Has tells whether a letter is meant.
func (c Choice) Has(l Letter) bool {
	switch {
	case len(c.IDs) > 0:
		return slices.Contains(c.IDs, l.ID) || l.MessageID != "" && slices.Contains(c.IDs, l.MessageID)
	case c.Key != "" && !Match(c.Key, l.Key), c.Order != 0 && c.Order != l.Order:
		return false
	}
	return !c.Empty()
}

// Unknown are the ids among the chosen that no letter has.
func (c Choice) Unknown(letters []Letter) (unknown []string) {
	for _, id := range c.IDs {
		if !slices.ContainsFunc(letters, func(l Letter) bool { return Choice{IDs: []string{id}}.Has(l) }) {
			unknown = append(unknown, id)
		}
	}
	return unknown
}

// Match tells whether a routing key is one of a topic's, as the broker decides it.
func Match(pattern, key string) bool {
	return match(strings.Split(pattern, "."), strings.Split(key, "."))
}

func match(pattern, key []string) bool {
	switch {
	case len(pattern) == 0:
		return len(key) == 0
	case pattern[0] == "#":
		return match(pattern[1:], key) || len(key) > 0 && match(pattern, key[1:])
	case len(key) == 0:
		return false
	}
	return (pattern[0] == "*" || pattern[0] == key[0]) && match(pattern[1:], key[1:])
}
