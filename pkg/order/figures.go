package order

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Figures are what this process did since it began: two of them, compared, say what it did in between. They are the metrics' own,
// so that keeping them costs an order nothing.
type Figures struct {
	Accepted, Ended float64        // orders
	Answers, Ends   *dto.Histogram // in seconds, as intake_wait_seconds and order_end_seconds
}

// Figures reads the figures of an intake, and of a settler's and a sweeper's ends.
func (in *Intake) Figures(ends prometheus.Histogram, expired, unheard prometheus.Counter) (Figures, error) {
	var accept, wait, end, lapse, paid dto.Metric
	for _, m := range []struct {
		from prometheus.Metric
		into *dto.Metric
	}{{in.metrics.orders[accepted], &accept}, {in.metrics.wait, &wait}, {ends, &end}, {expired, &lapse}, {unheard, &paid}} {
		if err := m.from.Write(m.into); err != nil {
			return Figures{}, fmt.Errorf("read the metric %s: %w", m.from.Desc(), err)
		}
	}
	return Figures{
		Accepted: accept.GetCounter().GetValue(),
		Ended:    float64(end.GetHistogram().GetSampleCount()) + lapse.GetCounter().GetValue() + paid.GetCounter().GetValue(),
		Answers:  wait.GetHistogram(), Ends: end.GetHistogram(),
	}, nil
}
