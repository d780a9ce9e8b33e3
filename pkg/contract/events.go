package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// UserID is a user's id as it stood in the JSON it came in: a number or a string, kept byte for byte.
type UserID []byte

// UnmarshalJSON takes a number or a string; null is no id.
func (u *UserID) UnmarshalJSON(raw []byte) error {
	if string(raw) == "null" {
		*u = nil
		return nil
	}
	id := UserID(bytes.Clone(raw))
	if err := id.Check(); err != nil {
		return err
	}
	*u = id
	return nil
}

// Check says what is wrong with the id: it must be a number or a string of 1 to MaxUserID bytes without NUL.
func (u UserID) Check() error {
	if len(u) == 0 || u[0] != '"' && u[0] != '-' && (u[0] < '0' || u[0] > '9') {
		return errors.New("userId must be a number or a string")
	}
	if !utf8.Valid(u) {
		return errors.New("userId must be valid UTF-8")
	}
	switch text := u.Text(); {
	case strings.TrimSpace(text) == "":
		return errors.New("userId must not be empty")
	case len(text) > MaxUserID:
		return fmt.Errorf("userId must have at most %d bytes, it has %d", MaxUserID, len(text))
	case strings.ContainsRune(text, 0):
		return errors.New("userId must not contain NUL characters")
	}
	return nil
}

// Text is the id as the tables keep it: a string's contents, or a number as it was written.
func (u UserID) Text() string {
	if len(u) > 0 && u[0] == '"' {
		if last := len(u) - 1; last > 0 && u[last] == '"' && bytes.IndexByte(u, '\\') < 0 { // nothing is escaped
			return string(u[1:last])
		}
		var text string
		if err := json.Unmarshal(u, &text); err != nil {
			return "" // Check refuses what is empty
		}
		return text
	}
	return string(u)
}

// number is an id or a count, which other services may send as a number or as a string.
type number int32

func (n *number) UnmarshalJSON(raw []byte) error {
	text := string(raw)
	if len(raw) > 0 && raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
	}
	value, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return fmt.Errorf("%.40q is not an integer of 32 bits", text)
	}
	*n = number(value)
	return nil
}

// loose is a number that nothing depends on: what is not one is 0.
type loose int32

func (n *loose) UnmarshalJSON(raw []byte) error {
	var strict number
	if strict.UnmarshalJSON(raw) != nil {
		strict = 0
	}
	*n = loose(strict)
	return nil
}

// OrderCreated says that an order was accepted and its seats are held.
type OrderCreated struct {
	MessageID string
	CreatedAt time.Time
	OrderID   int32
	UserID    UserID
	ShowID    int32
	Quantity  int32
	Status    string    // PENDING
	ExpiresAt time.Time // when the hold lapses; zero where the sender does not say
}

// Encode is the event's JSON, with the user's id byte for byte.
func (e OrderCreated) Encode() []byte {
	b := make([]byte, 0, 256+len(e.UserID))
	b = begin(b, e.MessageID, e.CreatedAt, KeyOrderCreated, e.OrderID, e.UserID)
	b = append(b, `,"showId":`...)
	b = strconv.AppendInt(b, int64(e.ShowID), 10)
	b = append(b, `,"quantity":`...)
	b = strconv.AppendInt(b, int64(e.Quantity), 10)
	b = append(b, `,"status":`...)
	b = quoted(b, e.Status)
	if !e.ExpiresAt.IsZero() {
		b = append(b, `,"expiresAt":`...)
		b = stamp(b, e.ExpiresAt)
	}
	return append(b, '}')
}

// PaymentResult says how the payment of an order ended.
type PaymentResult struct {
	MessageID string
	CreatedAt time.Time
	Type      string // KeyPaymentSucceeded or KeyPaymentFailed: this decides
	OrderID   int32
	UserID    UserID
	ShowID    int32  // 0 where an old service sent it
	Quantity  int32  // 0 where an old service sent it
	Amount    int32  // 0 where an old service sent it
	Status    string // SUCCEEDED or FAILED; "" where an old service sent it
}

// Encode is the event's JSON, with the user's id byte for byte.
func (e PaymentResult) Encode() []byte {
	b := make([]byte, 0, 256+len(e.UserID))
	b = begin(b, e.MessageID, e.CreatedAt, e.Type, e.OrderID, e.UserID)
	b = append(b, `,"amount":`...)
	b = strconv.AppendInt(b, int64(e.Amount), 10)
	b = append(b, `,"status":`...)
	b = quoted(b, e.Status)
	b = append(b, `,"showId":`...)
	b = strconv.AppendInt(b, int64(e.ShowID), 10)
	b = append(b, `,"quantity":`...)
	b = strconv.AppendInt(b, int64(e.Quantity), 10)
	return append(b, '}')
}

// DecodeOrderCreated reads an order.created event. The error says what is wrong with it, for people.
func DecodeOrderCreated(body []byte) (OrderCreated, error) {
	var w struct {
		head
		ShowID    number `json:"showId"`
		Quantity  number `json:"quantity"`
		ExpiresAt moment `json:"expiresAt"`
	}
	if err := decode(body, &w, &w.head); err != nil {
		return OrderCreated{}, err
	}
	switch {
	case w.Type != "" && w.Type != KeyOrderCreated:
		return OrderCreated{}, fmt.Errorf("type %.40q is not %s", w.Type, KeyOrderCreated)
	case w.MessageID == "" || strings.ContainsRune(w.MessageID, 0) || len(w.MessageID) > math.MaxUint8:
		return OrderCreated{}, errors.New("messageId is missing, too long, or contains NUL characters")
	case w.UserID == nil:
		return OrderCreated{}, errors.New("userId is missing")
	case w.ShowID < 1:
		return OrderCreated{}, errors.New("showId is missing or below 1")
	case w.Quantity < 1 || w.Quantity > MaxQuantity:
		return OrderCreated{}, fmt.Errorf("quantity is missing or not between 1 and %d", MaxQuantity)
	}
	return OrderCreated{
		MessageID: w.MessageID, CreatedAt: w.CreatedAt.Time, OrderID: int32(w.OrderID), UserID: w.UserID,
		ShowID: int32(w.ShowID), Quantity: int32(w.Quantity), Status: w.Status, ExpiresAt: w.ExpiresAt.Time,
	}, nil
}

// DecodePaymentResult reads a payment.* event that came on the given routing key, which decides where the body names no
// type. The error says what is wrong with it, for people.
func DecodePaymentResult(body []byte, key string) (PaymentResult, error) {
	var w struct {
		head
		UserID   whoever `json:"userId"`
		ShowID   loose   `json:"showId"`
		Quantity loose   `json:"quantity"`
		Amount   loose   `json:"amount"`
	}
	if err := decode(body, &w, &w.head); err != nil {
		return PaymentResult{}, err
	}
	if w.Type == "" {
		w.Type = key
	}
	if w.Type != KeyPaymentSucceeded && w.Type != KeyPaymentFailed {
		return PaymentResult{}, fmt.Errorf("type %.40q is neither %s nor %s", w.Type, KeyPaymentSucceeded, KeyPaymentFailed)
	}
	return PaymentResult{
		MessageID: w.MessageID, CreatedAt: w.CreatedAt.Time, Type: w.Type, OrderID: int32(w.OrderID), UserID: w.UserID.UserID,
		ShowID: int32(w.ShowID), Quantity: int32(w.Quantity), Amount: int32(w.Amount), Status: w.Status,
	}, nil
}

// head is what every body has.
type head struct {
	MessageID string `json:"messageId"`
	CreatedAt moment `json:"createdAt"`
	Type      string `json:"type"`
	OrderID   number `json:"orderId"`
	UserID    UserID `json:"userId"`
	Status    string `json:"status"`
}

// decode fills w, of which h is a part, from a body.
func decode(body []byte, w any, h *head) error {
	if err := json.Unmarshal(body, w); err != nil {
		return fmt.Errorf("the body is not an event: %w", err)
	}
	if h.OrderID < 1 {
		return errors.New("orderId is missing or below 1")
	}
	return nil
}

// whoever is a user's id that nothing depends on: what is none is left out.
type whoever struct{ UserID }

func (w *whoever) UnmarshalJSON(raw []byte) error {
	if w.UserID.UnmarshalJSON(raw) != nil {
		w.UserID = nil
	}
	return nil
}

// moment is a time that nothing depends on to be there: what is not RFC 3339 is no time.
type moment struct{ time.Time }

func (m *moment) UnmarshalJSON(raw []byte) error {
	if m.Time.UnmarshalJSON(raw) != nil {
		m.Time = time.Time{}
	}
	return nil
}

// begin writes what every body has.
func begin(b []byte, messageID string, at time.Time, kind string, order int32, user UserID) []byte {
	b = append(b, `{"messageId":`...)
	b = quoted(b, messageID)
	b = append(b, `,"createdAt":`...)
	b = stamp(b, at)
	b = append(b, `,"type":`...)
	b = quoted(b, kind)
	b = append(b, `,"orderId":`...)
	b = strconv.AppendInt(b, int64(order), 10)
	b = append(b, `,"userId":`...)
	return append(b, user...)
}

// quoted appends s as a JSON string.
func quoted(b []byte, s string) []byte {
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		plain = s[i] >= ' ' && s[i] < utf8.RuneSelf && s[i] != '"' && s[i] != '\\'
	}
	if plain {
		return append(append(append(b, '"'), s...), '"')
	}
	q, err := json.Marshal(s)
	if err != nil {
		return append(b, `""`...) // a string always marshals
	}
	return append(b, q...)
}

// stamp appends a time as JavaScript's toISOString writes it.
func stamp(b []byte, at time.Time) []byte {
	b = append(b, '"')
	b = at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	return append(b, '"')
}

// Keys are the routing keys of the platform's events.
func Keys() []string { return []string{KeyOrderCreated, KeyPaymentSucceeded, KeyPaymentFailed} }

// Check says what is wrong with a body that is to be published on a key, as a sentence, and else the message id and the order that
// it names. Consumers take more than that: what older services left out, and a type that is not the key's.
func Check(key string, body []byte) (messageID string, order int32, err error) {
	var kind string
	switch key {
	case KeyOrderCreated:
		var e OrderCreated
		if e, err = DecodeOrderCreated(body); err == nil {
			messageID, order, kind = e.MessageID, e.OrderID, KeyOrderCreated
		}
	case KeyPaymentSucceeded, KeyPaymentFailed:
		var e PaymentResult
		if e, err = DecodePaymentResult(body, key); err == nil {
			messageID, order, kind = e.MessageID, e.OrderID, e.Type
		}
	default:
		return "", 0, fmt.Errorf("no event has the key %.40q", key)
	}
	switch {
	case err != nil:
		return "", 0, err
	case kind != key:
		return "", 0, fmt.Errorf("type %s does not go on the key %s", kind, key)
	case messageID == "":
		return "", 0, errors.New("messageId is missing")
	}
	return messageID, order, nil
}
