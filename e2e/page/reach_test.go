//go:build e2e

package page

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// reaches places orders, each when the one before was seen, and returns how long after its end each was in the stream: the median, and
// the longest but one. All clocks are this machine's.
func reaches(t *testing.T, url string, orders int) (median, late time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"page/stream", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	known := map[int32]bool{}
	var took []time.Duration
	for first := true; len(took) < orders && lines.Scan(); {
		before := len(took)
		text, is := strings.CutPrefix(lines.Text(), "data: {")
		if !is {
			continue
		}
		var frame struct {
			Orders []struct {
				ID    int32
				Ended *time.Time
			}
		}
		if err := json.Unmarshal([]byte("{"+text), &frame); err != nil {
			t.Fatal(err)
		}
		for _, o := range frame.Orders {
			if o.Ended != nil && !known[o.ID] {
				known[o.ID] = true
				if !first {
					took = append(took, time.Since(*o.Ended))
				}
			}
		}
		if first || len(took) > before && len(took) < orders {
			elsewhere(t, url, 2, 1)
		}
		first = false
	}
	if len(took) < orders {
		t.Fatalf("%d of %d orders were seen: %v", len(took), orders, lines.Err())
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)-2]
}
