package order

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"platformctl/pkg/failpoint"
	"platformctl/pkg/outbox"
	"platformctl/pkg/postgres"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	shards      = 2    // batchers; all orders for one show go to the same
	queueLength = 4096 // orders that may wait for a batcher
	batchLimit  = 256

	// renewals is how often a batch gets new ids where others in the table have its own.
	renewals = 2

	// maxWait is the longest wait that is worth while: where more is to be expected, an order is turned away at once.
	maxWait = 250 * time.Millisecond
	// patient is how long a client is taken to be there without a look.
	patient = 50 * time.Millisecond
	// slowBatch is how long a batch may take and others still gather for the next; past it the database is as good as away.
	slowBatch     = time.Second
	batchDeadline = 3 * time.Second // Intake.Deadline of a service
)

// Errors of Intake.Submit.
var (
	// ErrBusy says that too many orders wait already; the order was not taken, and may be sent again.
	ErrBusy = errors.New("too many orders are waiting")
	// ErrBehind says that too many orders wait for their payments' results; the order was not taken, and may be sent again.
	ErrBehind = errors.New("too many orders wait to be settled")
	// ErrUnavailable says that the database is away. The order was most likely not taken.
	ErrUnavailable = errors.New("the database is not available")
	// ErrClosed says that the service is stopping.
	ErrClosed = errors.New("the service is stopping")
	// ErrTwin says that the order was not weighed, for another came with its key at the same moment, and was not taken; this one may be sent again.
	ErrTwin = errors.New("another order came with the same Idempotency-Key at the same moment, and was not taken")
	// ErrGone says that the client had gone before the order was decided; it was not taken.
	ErrGone = errors.New("the client has gone")
)

// Intake takes orders and has the store decide them in batches. There is no timer: a batcher takes what gathered while the
// batch before was committing.
type Intake struct {
	// Deadline is how long a batch is tried while the database is away. It is not changed once the intake runs.
	Deadline time.Duration

	store *Store
	pace  *Pace
	offer func([]outbox.Event)
	log   *slog.Logger

	queues  [shards]chan *waiting
	costs   [shards]atomic.Int64 // of the last batches, a moving mean in nanoseconds
	mu      sync.RWMutex         // held for reading while something is put into a queue
	closed  bool
	ids     ids
	metrics intakeMetrics
}

// waiting is an order in a queue.
type waiting struct {
	request Request
	gone    func() bool // tells whether the client has gone
	since   time.Time
	answer  chan answer // with room for one
	twins   []*waiting  // others of the same batch with the same key: what is decided for this one answers them too
}

type answer struct {
	outcome Outcome
	err     error
}

type intakeMetrics struct {
	batch  prometheus.Histogram
	wait   prometheus.Histogram
	orders map[string]prometheus.Counter // by outcome
}

// What can become of an order at the intake.
const (
	accepted    = "accepted"
	replayed    = "replayed" // by its key
	refused     = "not_enough_stock"
	noShow      = "show_not_found"
	keyReused   = "key_reused"
	invalid     = "invalid"
	unavailable = "unavailable"
	shed        = "shed"        // too many wait to be settled
	turnedAway  = "turned_away" // too many wait for a batch
)

// latencies are the buckets of what people look at: so fine that a percentile read from them is off by a fifth at most, from half a
// millisecond to more than half a minute.
func latencies() []float64 { return prometheus.ExponentialBuckets(0.0005, math.Sqrt2, 33) }

// NewIntake makes an intake. Accepted events go to offer after their transaction has committed.
func NewIntake(store *Store, pace *Pace, offer func([]outbox.Event), registry prometheus.Registerer, log *slog.Logger) *Intake {
	orders := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "intake_orders_total", Help: "Orders by outcome."}, []string{"outcome"})
	in := &Intake{Deadline: batchDeadline, store: store, pace: pace, offer: offer, log: log, ids: ids{reserve: store.ReserveIDs}, metrics: intakeMetrics{
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "intake_batch_orders", Help: "Orders decided by one statement.", Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "intake_wait_seconds", Help: "From an order's arrival to its decision.", Buckets: latencies(),
		}),
		orders: map[string]prometheus.Counter{},
	}}
	for _, outcome := range []string{accepted, replayed, refused, noShow, keyReused, invalid, unavailable, shed, turnedAway} {
		in.metrics.orders[outcome] = orders.WithLabelValues(outcome)
	}
	registry.MustRegister(in.metrics.batch, in.metrics.wait, orders, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "intake_waiting_orders", Help: "Orders that wait for a batch.",
	}, func() float64 { return float64(in.Waiting()) }))
	for i := range in.queues {
		in.queues[i] = make(chan *waiting, queueLength)
	}
	return in
}

// Submit waits for an order to be decided. Its error is one of those above, or a data error of the order itself. An order that has
// waited for a while is not taken when gone tells, before its batch begins, that nobody waits for the answer any more.
func (in *Intake) Submit(r Request, gone func() bool) (Outcome, error) {
	w := &waiting{request: r, gone: gone, since: time.Now(), answer: make(chan answer, 1)}
	if !in.pace.Admit(w.since) {
		in.metrics.orders[shed].Inc()
		return Outcome{}, ErrBehind
	}
	if err := in.enqueue(w); err != nil {
		in.metrics.orders[turnedAway].Inc()
		return Outcome{}, err
	}
	a := <-w.answer
	return a.outcome, a.err
}

func (in *Intake) enqueue(w *waiting) error {
	shard := int(uint32(w.request.Show) % shards)
	queue := in.queues[shard]
	in.mu.RLock()
	defer in.mu.RUnlock()
	if in.closed {
		return ErrClosed
	}
	if !worthWaiting(time.Duration(in.costs[shard].Load()), len(queue)) {
		return ErrBusy
	}
	select {
	case queue <- w:
		return nil
	default:
		return ErrBusy
	}
}

// worthWaiting tells whether an order may queue behind others, where a batch takes that long.
func worthWaiting(batch time.Duration, before int) bool {
	switch {
	case before == 0: // how else would one know that the database is back?
		return true
	case before < batchLimit:
		// It goes with them. A full batch takes hardly longer than one with a single order, so to turn orders away would make batches
		// small and not quick: on a busy machine, whose batches take longer than maxWait, a few orders a second would be all.
		return batch <= slowBatch
	}
	return batch*time.Duration(1+before/batchLimit) <= maxWait
}

// Waiting is the number of orders that wait for a batch.
func (in *Intake) Waiting() int {
	n := 0
	for _, q := range in.queues {
		n += len(q)
	}
	return n
}

// Close lets no more orders in. Run then ends when those that are in are answered.
func (in *Intake) Close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return
	}
	in.closed = true
	for _, q := range in.queues {
		close(q)
	}
}

// Run decides orders until Close was called and the last is answered. When ctx ends it closes by itself.
func (in *Intake) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, in.Close)()
	// A batch that has begun is brought to its end.
	work := context.WithoutCancel(ctx)
	var batchers sync.WaitGroup
	for i := range in.queues {
		batchers.Go(func() { in.batches(work, i) })
	}
	batchers.Wait()
	return nil
}

func (in *Intake) batches(ctx context.Context, shard int) {
	for first := range in.queues[shard] {
		began := time.Now()
		batch := in.gather(first, in.queues[shard], began)
		if len(batch) == 0 {
			continue
		}
		in.decide(ctx, batch)
		in.costs[shard].Store((3*in.costs[shard].Load() + int64(time.Since(began))) / 4)
		in.metrics.batch.Observe(float64(len(batch)))
	}
}

// gather takes what has come to a queue behind its first order, without waiting. Who has gone or waited too long is answered here, and
// who asks with the key of another order of the batch is put to that.
func (in *Intake) gather(first *waiting, queue <-chan *waiting, now time.Time) []*waiting {
	batch := make([]*waiting, 0, batchLimit)
	keys := map[string]*waiting{}
	for w, taken := first, 1; ; taken++ {
		switch twin := keys[w.request.Key]; {
		case now.Sub(w.since) > patient && w.gone():
			w.answer <- answer{err: ErrGone}
		case now.Sub(w.since) > in.Deadline: // it waited behind a database that was away
			in.answer(w, answer{err: ErrUnavailable}, now)
		case twin != nil:
			twin.twins = append(twin.twins, w)
		default:
			batch = append(batch, w)
			if w.request.Key != "" {
				keys[w.request.Key] = w
			}
		}
		if taken == batchLimit {
			return batch
		}
		more := false
		select {
		case w, more = <-queue:
		default:
		}
		if !more {
			return batch
		}
	}
}

// decide has a batch decided and answers each of its orders.
func (in *Intake) decide(ctx context.Context, batch []*waiting) {
	ctx, cancel := context.WithTimeout(ctx, in.Deadline)
	defer cancel()
	failed := func(err error) {
		in.log.WarnContext(ctx, "a batch of orders is tried again", "orders", len(batch), "error", err.Error())
	}
	err := postgres.Retry(ctx, failed, func(ctx context.Context) error { return in.identify(ctx, batch) })
	if err == nil {
		open := batch
		err = postgres.EachGood(batch, func(part []*waiting) error {
			if err := in.accept(ctx, part, failed); err != nil {
				return err
			}
			open = open[len(part):]
			return nil
		}, func(w *waiting, err error) {
			open = open[1:]
			in.answer(w, answer{err: err}, time.Now())
		})
		batch = open
	}
	if err == nil {
		return
	}
	in.log.ErrorContext(ctx, "a batch of orders failed", "orders", len(batch), "error", err.Error())
	for _, w := range batch {
		in.answer(w, answer{err: fmt.Errorf("%w: %w", ErrUnavailable, err)}, time.Now())
	}
}

// identify gives each order of the batch an id before it is stored, so that the same batch can be stored again when it is
// not known whether the first try has committed.
func (in *Intake) identify(ctx context.Context, batch []*waiting) error {
	ids, err := in.ids.take(ctx, len(batch))
	if err != nil {
		return err
	}
	now := time.Now()
	for i, w := range batch {
		w.request.ID, w.request.CreatedAt = ids[i], now
	}
	return nil
}

// accept stores orders, however often the connection breaks, and answers them. Its error is of the data, or ctx ended.
func (in *Intake) accept(ctx context.Context, part []*waiting, failed func(error)) error {
	outcomes, tries, err := in.put(ctx, part, failed)
	if err != nil {
		return err
	}
	in.handOver(ctx, part, outcomes, tries)
	now := time.Now()
	for i, w := range part {
		in.answer(w, answer{outcome: outcomes[i]}, now)
	}
	return nil
}

// put stores orders and tells how many tries that took.
func (in *Intake) put(ctx context.Context, part []*waiting, failed func(error)) (outcomes []Outcome, tries int, err error) {
	requests := make([]Request, len(part))
	for again := renewals; ; again-- {
		for i, w := range part {
			requests[i] = w.request
		}
		tries = 0
		err = postgres.Retry(ctx, failed, func(ctx context.Context) (err error) {
			tries++
			outcomes, err = in.store.Accept(ctx, requests, tries > 1)
			return err
		})
		if !postgres.IsDuplicate(err, "orders", "inventory_reservations") {
			return outcomes, tries, err
		}
		if again == 0 {
			return nil, tries, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		// Somebody put orders into the table whose ids were given to us, such as a snapshot of another database. It is not our own
		// first try, which the statement would have recognised.
		failed(err)
		in.ids.forget()
		if err := in.identify(ctx, part); err != nil {
			return nil, 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
}

// handOver gives the events of accepted orders to the relay, and the ids that no order has back.
func (in *Intake) handOver(ctx context.Context, part []*waiting, outcomes []Outcome, tries int) {
	events := make([]outbox.Event, 0, len(outcomes))
	unused := make([]int32, 0, len(outcomes))
	for i, o := range outcomes {
		asked := &part[i].request
		switch {
		case o.Accepted && o.Event.ID != 0:
			events = append(events, o.Event)
			if in.log.Enabled(ctx, slog.LevelDebug) {
				in.log.DebugContext(ctx, "order accepted", "order", o.ID, "message", o.Event.MessageID, "trace", asked.Trace.ID(), "tries", tries)
			}
		case o.ID != asked.ID || !o.Accepted: // its key's order, or none
			unused = append(unused, asked.ID)
		}
	}
	if len(events) > 0 {
		failpoint.Hit(failpoint.Committed)
	}
	in.pace.Accepted(len(events), time.Now())
	in.offer(events)
	if tries == 1 { // else the first try, its connection lost, may yet come to use them
		in.ids.giveBack(unused)
	}
}

func (in *Intake) answer(w *waiting, a answer, at time.Time) {
	outcome := accepted
	switch {
	case a.outcome.KeyReused:
		outcome = keyReused
	case a.outcome.Accepted && a.outcome.ID != w.request.ID:
		outcome = replayed
	case a.err != nil && !errors.Is(a.err, ErrUnavailable) && postgres.IsDataError(a.err):
		outcome = invalid
	case a.err != nil:
		outcome = unavailable
	case a.outcome.NoShow:
		outcome = noShow
	case !a.outcome.Accepted:
		outcome = refused
	}
	in.metrics.orders[outcome].Inc()
	in.metrics.wait.Observe(at.Sub(w.since).Seconds())
	w.answer <- a
	// The same order at the same moment gets the same answer, also where that is a refusal: within a batch seats only get fewer.
	for _, twin := range w.twins {
		same := a
		switch other := !bytes.Equal(twin.request.fingerprint(), w.request.fingerprint()); {
		case other && a.outcome.Accepted:
			same = answer{outcome: Outcome{KeyReused: true}}
		case other && a.err == nil: // it may be sent again: nothing has the key, or an order of before, and that may be its own
			same = answer{err: ErrTwin}
		}
		in.answer(twin, same, at)
	}
}
