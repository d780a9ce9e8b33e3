// Package payment takes orders' payments: it consumes order.created, asks the gateway, keeps a row for each payment and tells
// how it ended. A payment's message id is unique, and so is its order: what is delivered twice is paid once.
package payment

import (
	"fmt"
	"math"
	"time"

	"platformctl/pkg/contract"
)

// PricePerSeat is what a seat costs, in the unit of payments.amount.
const PricePerSeat = 50

// Status is a payment's, and final from the start.
type Status string

// How a payment ends.
const (
	Succeeded Status = "SUCCEEDED"
	Failed    Status = "FAILED"
)

// Payment is a decided payment that is going to be stored.
type Payment struct {
	Order  contract.OrderCreated
	Amount int32
	Status Status
	Tries  int32          // deliveries of the order, this one included
	Trace  contract.Trace // that the order belongs to
}

// Amount is the price of an order's seats.
func Amount(quantity int32) (int32, error) {
	amount := int64(quantity) * PricePerSeat
	if quantity < 1 || amount > math.MaxInt32 {
		return 0, fmt.Errorf("%d seats have no price", quantity)
	}
	return int32(amount), nil
}

// event is what others are told of the payment. Its message id is the same whenever it is made.
func (p Payment) event(at time.Time) contract.PaymentResult {
	kind := contract.KeyPaymentSucceeded
	if p.Status == Failed {
		kind = contract.KeyPaymentFailed
	}
	return contract.PaymentResult{
		MessageID: fmt.Sprintf("%s:%d", kind, p.Order.OrderID), CreatedAt: at, Type: kind, OrderID: p.Order.OrderID, UserID: p.Order.UserID,
		ShowID: p.Order.ShowID, Quantity: p.Order.Quantity, Amount: p.Amount, Status: string(p.Status),
	}
}
