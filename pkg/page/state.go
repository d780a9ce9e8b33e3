package page

import (
	"context"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Source is what the page shows, and who is asked for it. What reads the database ends with its context.
type Source interface {
	// Shows are all shows by id.
	Shows(ctx context.Context) ([]Show, error)
	// Free are the same with nothing but id, capacity and free seats, which costs little.
	Free(ctx context.Context) ([]Show, error)
	// Orders are the newest, the newest first, at most limit.
	Orders(ctx context.Context, limit int) ([]Order, error)
	// Outbox is what waits in the database for the broker.
	Outbox(ctx context.Context) (Outbox, error)
	// Broker is what is known of the broker at this moment; it does not ask.
	Broker() Broker
	// Figures are those of this process since it began; it does not ask anybody.
	Figures() (Figures, error)
}

// Show is a show with its seats: free + held + sold = capacity.
type Show struct {
	ID       int32  `json:"id"`
	Name     string `json:"name"`
	Venue    string `json:"venue,omitempty"`
	Capacity int32  `json:"capacity"`
	Free     int32  `json:"free"`
	Held     int32  `json:"held"`
	Sold     int32  `json:"sold"`
}

// Order is an order with the times of its hops; nil where it has not come so far.
type Order struct {
	ID       int32      `json:"id"`
	Show     string     `json:"show"`
	Quantity int32      `json:"quantity"`
	Status   string     `json:"status"`            // PENDING, CONFIRMED or CANCELLED
	Payment  string     `json:"payment,omitempty"` // SUCCEEDED or FAILED
	Accepted time.Time  `json:"accepted"`
	Sent     *time.Time `json:"sent,omitempty"`  // when the broker had confirmed the order's event
	Taken    *time.Time `json:"taken,omitempty"` // when payment-service had it
	Paid     *time.Time `json:"paid,omitempty"`  // when the payment was decided, either way
	Told     *time.Time `json:"told,omitempty"`  // when the broker had confirmed its result
	Back     *time.Time `json:"back,omitempty"`  // when order-api had that
	Ended    *time.Time `json:"ended,omitempty"`
}

// Outbox is how many events wait for the broker, of all services, and for how long the first has.
type Outbox struct {
	Events        int64   `json:"events"`
	OldestSeconds float64 `json:"oldestSeconds"`
}

// Broker is what is known of the broker.
type Broker struct {
	Trouble string  `json:"trouble,omitempty"` // a sentence; "" when all is well
	Queues  []Queue `json:"queues"`            // in the order in which an order passes them, as the broker told last
	Dead    int     `json:"dead"`              // dead letters
}

// Queue is a queue with how many messages lie in it.
type Queue struct {
	Name     string `json:"name"`
	What     string `json:"what"` // what its messages wait for
	Messages int    `json:"messages"`
}

// Figures count what this process did; Answers and Ends are histograms of seconds.
type Figures struct {
	Accepted, Ended float64
	Answers, Ends   *dto.Histogram
}

// Event is a message that this process sent to the broker or had from it.
type Event struct {
	Key   string    `json:"key"`
	Order string    `json:"order"`
	At    time.Time `json:"at"`
}

// Point is what this process did in one step of the past. A percentile of nothing is nil.
type Point struct {
	At          time.Time `json:"at"`
	In          float64   `json:"in"`  // orders accepted a second
	Out         float64   `json:"out"` // orders ended a second
	AnswerP99MS *float64  `json:"answerP99ms"`
	EndP99MS    *float64  `json:"endP99ms"`
}

// State is all that the page shows.
type State struct {
	Pod      string  `json:"pod"`
	Database string  `json:"database"` // why the database does not answer, or ""
	Shows    []Show  `json:"shows"`
	Orders   []Order `json:"orders"`
	Outbox   Outbox  `json:"outbox"`
	Broker   Broker  `json:"broker"`
	History  []Point `json:"history"` // the oldest first
}
