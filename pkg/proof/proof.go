// Package proof shows that the platform keeps its promises: an accepted order ends once, with its money and its seats in
// agreement. verify reads the running platform by SQL of its own and judges what it finds; bench puts load on it, measures,
// and verifies afterwards. It shares nothing with the services but the names of pkg/contract: what they get wrong must not be got wrong here too.
//
// Reading (facts.go, servers.go, history.go), judging (judge.go and told.go, pure) and waiting (verify.go) are apart. An invariant
// is one function from facts to a finding, so that another is one more function.
package proof

import "time"

// Facts are what one look at the platform found. All that comes from the database is of one snapshot.
type Facts struct {
	At     time.Time `json:"at"`     // by the database's clock
	Since  time.Time `json:"since"`  // what was on its way at this time already counts as waiting
	Newest time.Time `json:"newest"` // when the newest order was taken; zero where there is none

	Orders   int64   `json:"orders"`
	Payments int64   `json:"payments"`
	Shows    []Show  `json:"shows"`
	Cells    []Cell  `json:"cells"`
	Twice    []Twice `json:"twice"`
	Keys     Keys    `json:"keys"`
	Outbox   Outbox  `json:"outbox"`
	Lives    Lives   `json:"lives"`
	Events   Events  `json:"events"`
	Rows     []Row   `json:"rows"` // the orders of History's runs

	Leaving []string `json:"leaving"` // message ids of before Since that were in the outbox just before the queues were read
	Queues  []Queue  `json:"queues"`
	Letters []Letter `json:"letters"`
	History *History `json:"-"` // nil: there is none
}

// Show is a show's seats: counted one by one, and as the counter beside it has them.
type Show struct {
	ID       int64  `json:"id"`
	Name     string `json:"name"`
	Exists   bool   `json:"exists"` // false: there are only reservations for it
	Capacity int64  `json:"capacity"`
	Sum      int64  `json:"sum"`     // of the reservations that are RESERVED or COMMITTED
	Counter  *int64 `json:"counter"` // nil: there is none
	Limit    *int64 `json:"limit"`   // the counter's own capacity
	Peak     int64  `json:"peak"`    // the most seats that were held at any instant, by the history of the orders
}

// Cell is a combination of the states of an order, its reservation and its payment, and how many orders are in it. "" means
// that there is no such row.
type Cell struct {
	Order   string  `json:"order"`
	Hold    string  `json:"hold"`
	Payment string  `json:"payment"`
	Refund  bool    `json:"refund"`  // the payment is due to be paid back
	Ended   bool    `json:"ended"`   // the order's end has a time; services of the old schema give it none
	Agrees  bool    `json:"agrees"`  // all three are of the same show, quantity and user
	Lapsed  bool    `json:"lapsed"`  // RESERVED, and its time was over at Facts.Since
	Waiting bool    `json:"waiting"` // on its way at Facts.Since already
	Count   int64   `json:"count"`
	First   []int64 `json:"first"` // ids of the first orders in it
}

// Twice is something that is in payments more than once and must not be.
type Twice struct {
	What  string   `json:"what"` // the column
	Count int64    `json:"count"`
	First []string `json:"first"`
}

// Keys are the idempotency keys of the last day, and what is wrong with them.
type Keys struct {
	Count  int64 `json:"count"`
	Astray Some  `json:"astray"` // their order is not there
	Shared Some  `json:"shared"` // orders that have several
}

// Some is a number of rows and what the first of them are.
type Some struct {
	Count int64   `json:"count"`
	First []int64 `json:"first"`
}

// Lives is what order_events, which is only ever appended, tells of the orders' ways to their ends.
type Lives struct {
	Accepted int64     `json:"accepted"`
	Ended    int64     `json:"ended"`
	Lapsed   int64     `json:"lapsed"` // of the ended
	Seats    int64     `json:"seats"`  // of the lapsed
	Broken   []Twisted `json:"broken"`
}

// Twisted is a way in which the orders' lives are not as they may be.
type Twisted struct {
	Invariant string `json:"invariant"` // that it breaks
	How       string `json:"how"`       // "it ended 2 times"
	Some
}

// Events are those that our services sent, by what they must have done. What is in the outbox is not among those without an
// effect; what is in a queue or a dead letter is, for the database does not know.
type Events struct {
	Sent       int64 `json:"sent"`       // order.created, and the results of payments for orders of ours
	Unpaid     Some  `json:"unpaid"`     // orders from before Facts.Since without a payment
	Unsettled  Some  `json:"unsettled"`  // orders with a payment from before it that are PENDING, or confirmed without its result
	Unexpected Some  `json:"unexpected"` // orders with a payment by another order's message
}

// Row is an order that a client of the history may have asked for.
type Row struct {
	ID       int64   `json:"id"`
	User     string  `json:"user"`
	Show     int64   `json:"show"`
	Quantity int64   `json:"quantity"`
	Status   string  `json:"status"`
	Payments int64   `json:"payments"`
	Took     float64 `json:"took"` // seconds to its end; 0 where it has none
}

// Outbox is the events that have not been confirmed by the broker.
type Outbox struct {
	Count   int64    `json:"count"`
	Waiting int64    `json:"waiting"` // of these, there at Facts.Since already
	First   []string `json:"first"`   // message ids of the first waiting ones
}

// Queue is a queue of the broker.
type Queue struct {
	Name    string `json:"name"`
	Ready   int64  `json:"ready"`   // waiting for a consumer
	Unacked int64  `json:"unacked"` // in a consumer's hands
}

// Letter is a dead letter.
type Letter struct {
	ID     string `json:"id"`     // of the message; "" where it had none
	Reason string `json:"reason"` // ours, else the broker's; "" where neither gives one
}

// most is how many rows are named of what is broken.
const most = 10
