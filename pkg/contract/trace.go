package contract

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Trace is a W3C traceparent, version 00: the id of a trace, which an order keeps for its whole life, and that of one span of it.
// "" is none.
type Trace string

const (
	traceDigits, spanDigits = 32, 16
	traceForm               = "00-" // version 00; behind it the trace, the span and the flags
)

// NewTrace begins a trace.
func NewTrace() Trace {
	id := make([]byte, traceDigits/2)
	_, _ = rand.Read(id) // it never fails
	return traced(hex.EncodeToString(id))
}

// ParseTrace reads the header; what is none by the standard's rules is "".
func ParseTrace(header string) Trace {
	parts := strings.Split(header, "-")
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" || parts[0] == "00" && len(parts) != 4 || len(parts[1]) != traceDigits || len(parts[2]) != spanDigits || len(parts[3]) != 2 {
		return ""
	}
	for _, p := range parts[:4] {
		if strings.Trim(p, "0123456789abcdef") != "" {
			return ""
		}
	}
	if strings.Trim(parts[1], "0") == "" || strings.Trim(parts[2], "0") == "" {
		return ""
	}
	return Trace(traceForm + parts[1] + "-" + parts[2] + "-" + parts[3])
}

// ID is the id of the trace: 32 hexadecimal digits, or "".
func (t Trace) ID() string {
	if len(t) < len(traceForm)+traceDigits {
		return ""
	}
	return string(t[len(traceForm) : len(traceForm)+traceDigits])
}

// Headers are what a message of the trace carries.
func (t Trace) Headers() amqp.Table {
	if t == "" {
		return nil
	}
	return amqp.Table{HeaderTrace: string(t)}
}

// TraceOf is the trace that a message belongs to.
func TraceOf(headers amqp.Table) Trace {
	header, _ := headers[HeaderTrace].(string)
	return ParseTrace(header)
}

// Next is a new span of the same trace; of none it begins a new one.
func (t Trace) Next() Trace {
	if t == "" {
		return NewTrace()
	}
	return traced(t.ID())
}

func traced(id string) Trace {
	span := make([]byte, spanDigits/2)
	_, _ = rand.Read(span) // it never fails
	return Trace(traceForm + id + "-" + hex.EncodeToString(span) + "-01")
}
