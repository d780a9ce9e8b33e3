package kube

import (
	"bufio"
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestDial(t *testing.T) {
	s, c := newAPIServer(t)
	s.has(target{pod: "shop-0", uid: "u1"}, target{pod: "shop-1", uid: "u2"})
	s.dead["u2"] = true
	conn, err := c.Dial(t.Context(), "apps", "shop-0", 5432)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line := &lineClient{t, conn, bufio.NewReader(conn)}
	line.asks("hello", "shop-0/u1:5432 hello")
	line.asks(strings.Repeat("x", 50_000), "shop-0/u1:5432 "+strings.Repeat("x", 50_000))
	s.cut("shop-0")
	line.ends()
	_ = conn.Close() // its far end went before it

	refused, err := c.Dial(t.Context(), "apps", "shop-1", 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := refused.Read(make([]byte, 1)); err == nil || err.Error() != "connection refused" {
		t.Errorf("what the pod says is lost: %v", err)
	}
	if err := refused.Close(); err != nil {
		t.Error(err)
	}

	open, err := c.Dial(t.Context(), "apps", "shop-0", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := open.Close(); err != nil {
		t.Error(err)
	}
	stopped, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if _, err := c.Dial(stopped, "apps", "shop-0", 1); !errors.Is(err, enough) {
		t.Errorf("its context has ended: %v", err)
	}
}
