-- +goose Up
-- The services' own roles, made before the migrations run. Old services go on as the owner.
GRANT SELECT ON goose_db_version TO order_api, payment_service;

GRANT SELECT ON shows TO order_api;
GRANT EXECUTE ON FUNCTION accept_orders TO order_api;
GRANT SELECT ON show_seats, orders, inventory_reservations TO order_api;
GRANT UPDATE (status, ended_at) ON orders TO order_api;
GRANT UPDATE (status) ON inventory_reservations TO order_api;
GRANT SELECT ON payments TO order_api;
GRANT UPDATE (refund_due) ON payments TO order_api;

GRANT SELECT, INSERT ON payments TO payment_service;

GRANT INSERT ON outbox TO payment_service;
GRANT SELECT, DELETE ON outbox TO order_api, payment_service;
GRANT UPDATE (relay, lease_until) ON outbox TO order_api, payment_service;
GRANT SELECT, INSERT ON order_events TO order_api, payment_service;

-- The sequences behind the ids, whatever an old schema called them.
-- +goose StatementBegin
DO $$
BEGIN
	EXECUTE format('GRANT USAGE ON SEQUENCE %s TO order_api', pg_get_serial_sequence('orders', 'id')); -- ids come in blocks
	EXECUTE format('GRANT USAGE ON SEQUENCE %s TO payment_service', pg_get_serial_sequence('payments', 'id'));
	GRANT USAGE ON SEQUENCE outbox_id_seq TO payment_service;
	EXECUTE format('GRANT USAGE ON SCHEMA %I TO order_api, payment_service', current_schema());
END $$;
-- +goose StatementEnd
