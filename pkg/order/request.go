package order

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"platformctl/pkg/contract"
)

// parseRequest reads the body of POST /orders. Unknown fields are ignored. The error is a sentence for who sent it.
func parseRequest(body []byte) (Request, error) {
	var fields struct {
		User     json.RawMessage `json:"userId"`
		Show     json.RawMessage `json:"showId"`
		Quantity json.RawMessage `json:"quantity"`
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		return Request{}, sentence(body, err)
	}
	var missing []string
	for _, f := range []struct {
		name string
		raw  json.RawMessage
	}{{"userId", fields.User}, {"showId", fields.Show}, {"quantity", fields.Quantity}} {
		if len(f.raw) == 0 || string(f.raw) == "null" {
			missing = append(missing, f.name)
		}
	}
	if len(missing) > 0 {
		return Request{}, fmt.Errorf("missing: %s; an order has userId, showId and quantity", join(missing))
	}
	r := Request{User: contract.UserID(fields.User)}
	if err := r.User.Check(); err != nil {
		return Request{}, err
	}
	var err error
	if r.Show, err = integer("showId", fields.Show, math.MaxInt32); err != nil {
		return Request{}, err
	}
	if r.Quantity, err = integer("quantity", fields.Quantity, contract.MaxQuantity); err != nil {
		return Request{}, err
	}
	return r, nil
}

const (
	headerKey = "Idempotency-Key"
	maxKey    = 255 // bytes of the longest
)

// idempotencyKey is a request's key of all the values of its header, or "" where it has none. The error is a sentence for who sent it.
func idempotencyKey(values [][]byte) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	key := string(values[0])
	printable := func(c rune) bool { return c >= ' ' && c <= '~' }
	if len(values) > 1 || key == "" || len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return !printable(c) }) {
		return "", fmt.Errorf(headerKey+" must be one value of 1 to %d printable ASCII characters", maxKey)
	}
	return key, nil
}

// sentence says what is wrong with a body that is no object.
func sentence(body []byte, err error) error {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return errors.New(`the body is empty; send an object like {"userId":123,"showId":1,"quantity":2}`)
	case errors.As(err, &kind):
		return errors.New(`the body must be one object like {"userId":123,"showId":1,"quantity":2}`)
	case errors.As(err, &syntax):
		return fmt.Errorf("the body must be one JSON object and nothing else: %v at byte %d", err, syntax.Offset)
	}
	return fmt.Errorf("the body must be one JSON object and nothing else: %v", err)
}

// integer reads a JSON number that has no fraction, from 1 to limit.
func integer(field string, raw json.RawMessage, limit int32) (int32, error) {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil { // 2.0 and 2e0 are integers too; what is no number is 0
		if f, err := strconv.ParseFloat(string(raw), 64); err == nil && f == math.Trunc(f) && math.Abs(f) <= math.MaxInt32 {
			n = int64(f)
		} else {
			n = 0
		}
	}
	if n < 1 || n > int64(limit) {
		return 0, fmt.Errorf("%s must be an integer from 1 to %d, not %s", field, limit, shortened(raw))
	}
	return int32(n), nil
}

// shortened is a value as it goes into a sentence.
func shortened(raw []byte) string {
	const most = 40
	if len(raw) > most {
		return string(bytes.ToValidUTF8(raw[:most], nil)) + "…"
	}
	return string(raw)
}

func join(words []string) string {
	joined := words[0]
	for i, w := range words[1:] {
		if i == len(words)-2 {
			joined += " and " + w
		} else {
			joined += ", " + w
		}
	}
	return joined
}
