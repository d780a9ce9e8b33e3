-- +goose Up
SET LOCAL lock_timeout = '1s';

-- Who consumed a queue, from when until when: a row a session. A delivery that was not finished leaves no row, and to note each one
-- would cost every order. When a message comes again, a session that ended meanwhile is the one that had it.
CREATE TABLE consumer_sessions (
	id    text PRIMARY KEY,
	queue text NOT NULL,
	pod   text NOT NULL,
	began timestamptz NOT NULL,
	seen  timestamptz NOT NULL DEFAULT now(), -- alive, at the last; each five seconds
	ended timestamptz                         -- NULL where it never said so: it goes on, or it was killed
);
GRANT SELECT, INSERT, UPDATE, DELETE ON consumer_sessions TO order_api, payment_service;
