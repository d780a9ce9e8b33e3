-- +goose Up
SET LOCAL lock_timeout = '1s';

-- payment-service takes no payment for an order that there is not: it may see which there are, and nothing of them.
GRANT SELECT (id) ON orders TO payment_service;
