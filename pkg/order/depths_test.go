package order_test

import (
	"testing"

	"platformctl/pkg/contract"
	"platformctl/pkg/order"
	"platformctl/pkg/postgres/postgrestest"
	"platformctl/pkg/rabbit/rabbittest"
)

// Until payment-service has been there once, the queue to it is missing. The queues are measured as soon as all are there.
func TestAQueueIsMissingForAWhile(t *testing.T) {
	t.Parallel()
	vhost := rabbittest.VHost(t)
	s := newService(t, postgrestest.New(t), vhost, options{})
	until(t, "somebody misses it", func() bool { return s.notes.have("the queues cannot be measured, trying again") })
	topology := contract.Topology{Events: "events.topic", DeadLetters: "dlx.direct"}
	if err := topology.Declare(rabbittest.Channel(t, vhost), order.ToBePaid); err != nil {
		t.Fatal(err)
	}
	until(t, "the queues are measured", func() bool {
		queues, _ := s.depths.Now()
		return len(queues) == 3
	})
}
