// Package order takes orders for seats and brings each to its end.
//
// An order comes in over HTTP (http.go), is accepted or refused together with those that came meanwhile (intake.go), in one
// statement that holds its seats and writes its event (store.go, schema/). It ends by its payment's result (consume.go) or
// because its hold lapsed (expire.go). State and Next are the rule by which it does, and the statements are tested against it.
package order

// Status is an order's.
type Status string

// An order is PENDING until it ends, and then never changes again.
const (
	Pending   Status = "PENDING"
	Confirmed Status = "CONFIRMED"
	Cancelled Status = "CANCELLED"
)

// Hold is the status of an order's reservation. RESERVED and COMMITTED count against the show's capacity.
type Hold string

// A reservation ends with its order.
const (
	Reserved  Hold = "RESERVED"
	Committed Hold = "COMMITTED"
	Released  Hold = "RELEASED" // the payment failed
	Expired   Hold = "EXPIRED"  // the payment came to no result in time
)

// State is all that an event can change of an order.
type State struct {
	Order     Status
	Hold      Hold
	RefundDue bool // it was paid for, but had been cancelled
}

// Fresh is the state of an order that was just accepted.
func Fresh() State { return State{Order: Pending, Hold: Reserved} }

// Event is what can happen to an order, in any order and any number of times.
type Event int

// The events of an order's life.
const (
	PaymentSucceeded Event = iota
	PaymentFailed
	HoldLapsed     // and no payment is known to have succeeded
	PaidHoldLapsed // a payment has, but its result has not come
)

// Next is the rule of the races: the first event decides, no order leaves an end state, and a payment that succeeds for a
// cancelled order is due to be paid back. A success that comes past the hold, but before the hold was seen to have lapsed,
// confirms: the seats are still held. So does the payment itself, where nothing tells of it while they are. The statements of store.go do the same to many orders at once.
func (s State) Next(e Event) State {
	if s.Order != Pending {
		if s.Order == Cancelled && e == PaymentSucceeded {
			s.RefundDue = true
		}
		return s
	}
	switch e {
	case PaymentSucceeded, PaidHoldLapsed:
		s.Order, s.Hold = Confirmed, Committed
	case PaymentFailed:
		s.Order, s.Hold = Cancelled, Released
	case HoldLapsed:
		s.Order, s.Hold = Cancelled, Expired
	}
	return s
}
