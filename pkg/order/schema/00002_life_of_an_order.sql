-- +goose Up
SET LOCAL lock_timeout = '1s';

-- +goose StatementBegin
DO $$
DECLARE
	found text;
BEGIN
	SELECT string_agg(order_id::text, ', ' ORDER BY order_id) INTO found
	FROM (SELECT order_id FROM inventory_reservations WHERE order_id IS NOT NULL GROUP BY order_id HAVING count(*) > 1 ORDER BY order_id LIMIT 20) t;
	IF found IS NOT NULL THEN
		RAISE EXCEPTION 'orders with more than one reservation: %; delete all but one of each in inventory_reservations, then migrate again', found;
	END IF;

	SELECT string_agg(order_id::text, ', ' ORDER BY order_id) INTO found
	FROM (SELECT order_id FROM payments GROUP BY order_id HAVING count(*) > 1 ORDER BY order_id LIMIT 20) t;
	IF found IS NOT NULL THEN
		RAISE EXCEPTION 'orders with more than one payment: %; delete all but one of each in payments, then migrate again', found;
	END IF;
END $$;
-- +goose StatementEnd

-- The tables in the order in which the old services lock them: payments before orders, and orders before their reservations.
ALTER TABLE payments ADD COLUMN refund_due boolean NOT NULL DEFAULT false; -- paid, but the order had been cancelled
CREATE UNIQUE INDEX payments_order ON payments (order_id);
ALTER TABLE orders ADD COLUMN ended_at timestamptz; -- when it became CONFIRMED or CANCELLED

-- Room on a page for the second version of a row: an order and its reservation are updated once.
ALTER TABLE orders SET (fillfactor = 85);
ALTER TABLE inventory_reservations SET (fillfactor = 85);

CREATE UNIQUE INDEX inventory_reservations_order ON inventory_reservations (order_id);
-- Holds that may lapse: few rows, whatever the size of the table.
CREATE INDEX inventory_reservations_held ON inventory_reservations (expires_at) INCLUDE (show_id, quantity, order_id) WHERE status = 'RESERVED';

-- Events on their way to the broker. The payload is the exact bytes to send.
CREATE TABLE outbox (
	id             bigserial PRIMARY KEY,
	message_id     text NOT NULL,
	correlation_id text NOT NULL,
	routing_key    text NOT NULL,
	payload        bytea NOT NULL,
	traceparent    text,
	relay          text,        -- the process that it was handed to
	lease_until    timestamptz, -- after this any relay may send it
	created_at     timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- What happened to an order, only ever appended.
CREATE TABLE order_events (
	order_id integer NOT NULL,
	hop      text NOT NULL,
	at       timestamptz NOT NULL DEFAULT clock_timestamp(),
	pod      text NOT NULL,
	tries    integer NOT NULL DEFAULT 1
);
CREATE INDEX order_events_order ON order_events (order_id);
