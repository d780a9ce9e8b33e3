package terminal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"platformctl/pkg/fault"
)

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0ms", 0: "0ms", 412 * time.Millisecond: "412ms", 999 * time.Millisecond: "999ms", 999900 * time.Microsecond: "1.0s",
		3200 * time.Millisecond: "3.2s", 59940 * time.Millisecond: "59.9s", 59960 * time.Millisecond: "1m00s",
		423 * time.Second: "7m03s", 3599*time.Second + 600*time.Millisecond: "1h00m", 3720 * time.Second: "1h02m",
		76 * time.Hour: "3d4h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9960: "10 kB", 359_000_000: "359 MB", 999_600: "1.0 MB",
		3_900_000_000: "3.9 GB", 5_000_000_000_000: "5.0 TB", 5_000_000_000_000_000: "5000 TB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	err := Table(&out, []string{"ID", "NAME", "FREE", "NOTE"}, [][]string{
		{"1", "Rock Festival 2025", "4998", ""},
		{"12", "Größe\x1b[31m 日本", "0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "" +
		"ID  NAME                FREE  NOTE\n" +
		" 1  Rock Festival 2025  4998\n" +
		"12  Größe 日本             0\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestModes(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for _, c := range []struct {
		mode     Mode
		terminal bool
		env      func(string) string
		want     Mode
	}{
		{Auto, true, env("TERM", "xterm"), TTY},
		{Auto, true, nil, TTY},
		{Auto, false, env("TERM", "xterm"), Plain},
		{Auto, true, env("TERM", "dumb"), Plain},
		{Auto, true, env("CI", "true"), Plain},
		{Auto, true, env("CI", "false"), TTY},
		{TTY, false, env("CI", "true"), TTY},
		{JSON, true, nil, JSON},
		{Quiet, true, nil, Quiet},
	} {
		if got := (Surroundings{Terminal: c.terminal, Getenv: c.env}).Resolve(c.mode); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	if _, err := ParseMode("loud"); fault.CodeOf(err) != fault.CodeUsage || !strings.Contains(err.Error(), "auto, tty, plain, json, quiet") {
		t.Errorf("%v", err)
	}
	wide := func() (int, int) { return 100, 50 }
	for columns, want := range map[string]int{"": 100, "60": 60, "300": 100, "x": 100, "-1": 100} {
		if got, _ := (Surroundings{Size: wide, Getenv: env("COLUMNS", columns)}).size(); got != want {
			t.Errorf("COLUMNS=%q: %d columns, want %d", columns, got, want)
		}
	}
	if got, _ := (Surroundings{Getenv: env("COLUMNS", "132")}).size(); got != 132 {
		t.Errorf("COLUMNS without a terminal: %d", got)
	}
}

func TestAsk(t *testing.T) {
	for typed, want := range map[string]bool{"y\n": true, "YES\n": true, "\n": false, "n\n": false, "": false, "yeah\n": false} {
		got, err := Ask(t.Context(), strings.NewReader(typed), io.Discard, true, "Go on?")
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", typed, got, err)
		}
	}
	var out bytes.Buffer
	_, err := Ask(t.Context(), strings.NewReader("y\n"), &out, false, "Delete the cluster?")
	if fault.CodeOf(err) != fault.CodeUsage || !strings.Contains(fault.CureOf(err), "-y") || out.Len() > 0 {
		t.Errorf("without a terminal: %v, %q", err, &out)
	}
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Ask(ctx, r, io.Discard, true, "Go on?"); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	broken, writer := io.Pipe()
	writer.CloseWithError(errors.New("the line is cut"))
	if _, err := Ask(t.Context(), broken, io.Discard, true, "Go on?"); err == nil {
		t.Error("a failed read counts as an answer")
	}
}
