package page

import (
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"
)

const (
	step  = 2 * time.Second
	steps = 150 // five minutes
)

// history is what was done lately, step by step. The counters and histograms that there are anyway are read twice and compared,
// so that no order pays for it.
type history struct {
	points []Point
	last   Figures
	at     time.Time
}

// add takes the figures of a moment and returns the step that ends with it; the first ones only begin one.
func (h *history) add(f Figures, at time.Time) (Point, bool) {
	last, from := h.last, h.at
	h.last, h.at = f, at
	seconds := at.Sub(from).Seconds()
	if from.IsZero() || seconds <= 0 {
		return Point{}, false
	}
	p := Point{
		At: at, In: (f.Accepted - last.Accepted) / seconds, Out: (f.Ended - last.Ended) / seconds,
		AnswerP99MS: percentile(0.99, last.Answers, f.Answers), EndP99MS: percentile(0.99, last.Ends, f.Ends),
	}
	h.points = append(h.points, p)
	if len(h.points) > steps {
		h.points = append(h.points[:0], h.points[1:]...)
	}
	return p, true
}

// percentile is the q-th of what a histogram counted between two looks, in milliseconds, evenly spread within its bucket; of what
// is past the last bucket, that bucket's bound.
func percentile(q float64, before, after *dto.Histogram) *float64 {
	earlier := func(i int) uint64 {
		if i < len(before.GetBucket()) {
			return before.GetBucket()[i].GetCumulativeCount()
		}
		return 0
	}
	total := after.GetSampleCount() - before.GetSampleCount()
	if total == 0 {
		return nil
	}
	wanted := q * float64(total)
	lower, below := 0.0, 0.0
	for i, bucket := range after.GetBucket() {
		upper, upTo := bucket.GetUpperBound(), float64(bucket.GetCumulativeCount()-earlier(i))
		if math.IsInf(upper, 1) {
			break
		}
		if upTo >= wanted {
			return milliseconds(lower + (upper-lower)*(wanted-below)/(upTo-below))
		}
		lower, below = upper, upTo
	}
	return milliseconds(lower)
}

func milliseconds(seconds float64) *float64 {
	return new(math.Round(seconds*1e4) / 10)
}
