package terminal

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"
)

// Duration is a time span for people: 120ms, 12.3s, 7m03s, 1h02m, 3d4h.
func Duration(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 999500*time.Microsecond:
		return fmt.Sprintf("%dms", d.Round(time.Millisecond).Milliseconds())
	case d < 59950*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return Age(d.Round(time.Second))
}

// Age is a time span for people in whole seconds: 0s, 44s, 7m03s, 1h02m, 3d4h. What still runs is shown so: tenths that race
// tell nothing.
func Age(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%dh", s/(24*3600), s/3600%24)
}

// Bytes is a size for people, in powers of 1000: 812 B, 3.4 kB, 359 MB, 3.9 GB.
func Bytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	x, unit := float64(n)/1000, 0
	for x >= 999.5 && unit < 3 {
		x, unit = x/1000, unit+1
	}
	format := "%.0f %s"
	if x < 9.95 {
		format = "%.1f %s"
	}
	return fmt.Sprintf(format, x, []string{"kB", "MB", "GB", "TB"}[unit])
}

// clean makes one line of what others wrote: a name or a message that came from outside must not be able to move the cursor.
func clean(s string) string {
	return strings.Join(strings.Fields(strings.Map(printable, ansi.Strip(s))), " ")
}

// cleanText is clean for several lines.
func cleanText(s string) string {
	return strings.TrimRight(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return printable(r)
	}, ansi.Strip(s)), " \t\n")
}

func printable(r rune) rune {
	switch {
	case r == '\n' || r == '\t' || r == '\r':
		return ' '
	case unicode.IsControl(r):
		return -1
	case unicode.Is(unicode.Cf, r): // joins, direction marks: they change how their neighbours look
		return -1
	}
	return r
}
