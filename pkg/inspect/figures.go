package inspect

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"platformctl/pkg/contract"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Scrape is what the metrics of one pod said at one moment.
type Scrape struct {
	Pod      string
	At       time.Time
	families map[string]*dto.MetricFamily
}

// ReadScrape reads metrics in Prometheus' text format.
func ReadScrape(pod string, at time.Time, text []byte) (Scrape, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return Scrape{}, fmt.Errorf("read the metrics of %s: %w", pod, err)
	}
	return Scrape{pod, at, families}, nil
}

// Figures are what the platform's services do, by their metrics, all pods together. What nobody told is nil.
type Figures struct {
	At      time.Time      `json:"at"`
	Over    float64        `json:"overSeconds"` // that rates and percentiles are taken over; 0 in the first look, which has none
	In      Rate           `json:"accepted"`
	Refused Rate           `json:"refused"` // for lack of seats, time or sense
	Paid    Rate           `json:"paid"`    // either way; the time is that of the batches
	Out     Rate           `json:"ended"`
	Again   Rate           `json:"redelivered"`
	Outbox  *OutboxFigures `json:"outbox"`
	Queues  []QueueFigure  `json:"queues"` // in the order in which an order passes them; the last is of the dead letters
	Shows   []Seats        `json:"shows"`
	Pods    []PodFigures   `json:"pods"`
}

// Rate is how often something happened, and how long 99 in 100 of it took at the most.
type Rate struct {
	PerSecond float64  `json:"perSecond"`
	P99MS     *float64 `json:"p99ms"` // nil where nothing happened, or no time is taken
}

// OutboxFigures are those of the events that the broker has not confirmed.
type OutboxFigures struct {
	Events        int64   `json:"events"`
	OldestSeconds float64 `json:"oldestSeconds"`
}

// QueueFigure is how many messages lie in a queue.
type QueueFigure struct {
	Name     string `json:"name"`
	Messages int64  `json:"messages"`
}

// Seats are those of a show.
type Seats struct {
	Show int64 `json:"show"`
	Free int64 `json:"free"`
	Held int64 `json:"held"`
	Sold int64 `json:"sold"`
}

// PodFigures are those of one pod.
type PodFigures struct {
	Pod    string  `json:"pod"`
	Cores  float64 `json:"cores"`       // of CPU that it used
	Memory int64   `json:"memoryBytes"` // resident
	Pool   int64   `json:"poolInUse"`   // connections to the database
	Of     int64   `json:"poolMax"`
}

// over is the time that rates and percentiles are taken over: in one second there may be too little.
const over = 5 * time.Second

// Window keeps the looks of the last seconds. Its zero value is empty.
type Window struct{ looks []look }

type look struct {
	at   time.Time
	pods map[string]Scrape
}

// Add takes a look at all pods and returns the figures at its time.
func (w *Window) Add(at time.Time, pods []Scrape) Figures {
	now := look{at: at, pods: map[string]Scrape{}}
	for _, p := range pods {
		now.pods[p.Pod] = p
	}
	w.looks = append(w.looks, now)
	// The oldest that is kept is the last that is old enough.
	for len(w.looks) > 2 && at.Sub(w.looks[1].at) >= over {
		w.looks = w.looks[1:]
	}
	return w.figures(now)
}

func (w *Window) figures(now look) Figures {
	f := Figures{At: now.at, Over: now.at.Sub(w.looks[0].at).Seconds()}
	for _, name := range slices.Sorted(podsOf(now)) {
		p := now.pods[name]
		first, seconds := w.first(p)
		since := change{first, p, seconds}
		f.In.PerSecond += since.rate("intake_orders_total", "outcome", "accepted")
		for _, outcome := range []string{"not_enough_stock", "show_not_found", "key_reused", "invalid", "unavailable", "shed", "turned_away"} {
			f.Refused.PerSecond += since.rate("intake_orders_total", "outcome", outcome)
		}
		f.Paid.PerSecond += since.rate("consumer_batch_messages", "queue", contract.QueueOrderCreated)
		f.Out.PerSecond += since.rate("order_end_seconds", "", "") + since.rate("orders_expired_total", "", "") + since.rate("orders_paid_unheard_total", "", "")
		for _, queue := range []string{contract.QueueOrderCreated, contract.QueuePaymentResults} {
			f.Again.PerSecond += since.rate("consumer_redelivered_total", "queue", queue)
		}
		f.Pods = append(f.Pods, PodFigures{
			Pod: name, Cores: since.rate("process_cpu_seconds_total", "", ""), Memory: whole(p.value("process_resident_memory_bytes", "", "")),
			Pool: whole(p.value("postgres_pool_connections_in_use", "", "")), Of: whole(p.value("postgres_pool_connections_max", "", "")),
		})
		f.stock(p)
	}
	f.In.P99MS = w.p99(now, "intake_wait_seconds", "", "")
	f.Paid.P99MS = w.p99(now, "consumer_batch_seconds", "queue", contract.QueueOrderCreated)
	f.Out.P99MS = w.p99(now, "order_end_seconds", "", "")
	return f
}

// stock takes what each pod of a service tells alike, for it reads it of the servers: of the first that does.
func (f *Figures) stock(p Scrape) {
	if events, ok := p.value("outbox_events", "", ""); ok && f.Outbox == nil {
		oldest, _ := p.value("outbox_oldest_seconds", "", "") // it comes with the other
		f.Outbox = &OutboxFigures{int64(events), oldest}
	}
	if f.Queues == nil {
		for _, name := range []string{contract.QueueOrderCreated, contract.QueuePaymentResults, contract.QueueDeadLetters} {
			if n, ok := p.value("queue_messages", "queue", name); ok {
				f.Queues = append(f.Queues, QueueFigure{name, int64(n)})
			}
		}
	}
	if f.Shows != nil {
		return
	}
	shows := map[int64]*Seats{}
	for _, m := range p.families["show_seats"].GetMetric() {
		show, err := strconv.ParseInt(label(m, "show"), 10, 64)
		if err != nil {
			continue // of another service
		}
		if shows[show] == nil {
			shows[show] = &Seats{Show: show}
		}
		n := int64(m.GetGauge().GetValue())
		switch label(m, "state") {
		case "free":
			shows[show].Free = n
		case "held":
			shows[show].Held = n
		case "sold":
			shows[show].Sold = n
		}
	}
	for _, s := range shows {
		f.Shows = append(f.Shows, *s)
	}
	slices.SortFunc(f.Shows, func(a, b Seats) int { return int(a.Show - b.Show) })
}

func podsOf(l look) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range l.pods {
			if !yield(name) {
				return
			}
		}
	}
}

// first is the oldest look of the window at a pod, of its present life, and how long before p it was.
func (w *Window) first(p Scrape) (Scrape, float64) {
	born, _ := p.value("process_start_time_seconds", "", "") // 0 is as good where it is not told
	for _, l := range w.looks {
		earlier, ok := l.pods[p.Pod]
		if !ok {
			continue
		}
		if at, _ := earlier.value("process_start_time_seconds", "", ""); at == born {
			return earlier, p.At.Sub(earlier.At).Seconds()
		}
	}
	return p, 0
}

// change is a pod at two times.
type change struct {
	from, to Scrape
	seconds  float64
}

func (c change) rate(name, key, value string) float64 {
	if c.seconds <= 0 {
		return 0
	}
	before, _ := c.from.value(name, key, value) // what was not there had not happened
	after, _ := c.to.value(name, key, value)
	return max(0, after-before) / c.seconds
}

// p99 is the time of 99 in 100 that all pods counted in the window, evenly spread within a bucket; of what is past the last bucket,
// that one's bound.
func (w *Window) p99(now look, name, key, value string) *float64 {
	counts := map[float64]float64{}
	total := 0.0
	for _, p := range now.pods {
		first, _ := w.first(p)
		for sign, h := range map[float64]*dto.Histogram{1: p.metric(name, key, value).GetHistogram(), -1: first.metric(name, key, value).GetHistogram()} {
			total += sign * float64(h.GetSampleCount())
			for _, b := range h.GetBucket() {
				counts[b.GetUpperBound()] += sign * float64(b.GetCumulativeCount())
			}
		}
	}
	if total <= 0 {
		return nil
	}
	bounds := make([]float64, 0, len(counts))
	for bound := range counts {
		if !math.IsInf(bound, 1) {
			bounds = append(bounds, bound)
		}
	}
	slices.Sort(bounds)
	wanted, lower, below := 0.99*total, 0.0, 0.0
	for _, bound := range bounds {
		if upTo := counts[bound]; upTo >= wanted {
			lower += (bound - lower) * (wanted - below) / (upTo - below)
			break
		} else {
			lower, below = bound, upTo
		}
	}
	return new(math.Round(lower*1e4) / 10)
}

// value is that of a counter or a gauge, the sum of a histogram of counts, or how many times a histogram of seconds has.
func (s Scrape) value(name, key, value string) (float64, bool) {
	m := s.metric(name, key, value)
	switch {
	case m == nil:
		return 0, false
	case m.Counter != nil:
		return m.Counter.GetValue(), true
	case m.Gauge != nil:
		return m.Gauge.GetValue(), true
	case m.Histogram != nil && name == "consumer_batch_messages":
		return m.Histogram.GetSampleSum(), true
	}
	return float64(m.GetHistogram().GetSampleCount()), true
}

// metric is the one of a family whose label key has that value; "" is one without a label.
func (s Scrape) metric(name, key, value string) *dto.Metric {
	for _, m := range s.families[name].GetMetric() {
		if key == "" || label(m, key) == value {
			return m
		}
	}
	return nil
}

func label(m *dto.Metric, key string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == key {
			return l.GetValue()
		}
	}
	return ""
}

// whole is a value that counts; what is not told is 0.
func whole(v float64, _ bool) int64 { return int64(v) }
