// Package proof shows that the platform keeps its promises: an accepted order ends once, with its money and its seats in
// agreement. verify reads the running platform by SQL of its own and judges what it finds; bench puts load on it, measures,
// and verifies afterwards. It shares no code with the services: what they get wrong must not be got wrong here too.
//
// Reading (facts.go, servers.go), judging (judge.go, pure) and waiting (verify.go) are apart. An invariant is one function
// from facts to a finding, so that another is one more function.
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
	Outbox   Outbox  `json:"outbox"`
	Queues   []Queue `json:"queues"`
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

// most is how many rows are named of what is broken.
const most = 10
