-- +goose Up
-- Which order answered which key, so that a request that is sent again is not a second order. Swept after a day.
CREATE TABLE order_keys (
	key          text PRIMARY KEY,
	order_id     integer NOT NULL,
	request_hash bytea NOT NULL, -- of what was ordered: the key of one order does not answer for another
	created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX order_keys_age ON order_keys (created_at);

-- accept_orders with keys. It takes a batch of orders in the order they came: each is accepted if it still fits, else refused,
-- and a later, smaller one may still fit. The arrays have one element an order; keys and hashes are empty where no order has a
-- key, else NULL for those that have none, and no key comes twice. A row comes back for each, by position: whether it was
-- accepted, now or, by its key, before; the id of that order; the seats left in its show then (NULL: no such show); the id of
-- its event; and whether its key stands for another request. Only an order that was accepted is kept under its key: whoever was
-- refused may try again with the same one.
--
-- repeated says that the same batch may have committed before, its answer having been lost. The counters' locks make sure
-- that the first try is over; if it had committed, its outcome is told and nothing is done again.
-- +goose StatementBegin
CREATE FUNCTION accept_orders(
	ids integer[], users text[], show_ids integer[], quantities integer[], payloads bytea[], keys text[], hashes bytea[],
	hold interval, relay_name text, lease interval, pod_name text, repeated boolean
) RETURNS TABLE (accepted boolean, order_id integer, available integer, event_id bigint, key_reused boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
	n        integer := cardinality(ids);
	fits     boolean[] := array_fill(false, ARRAY[n]);
	seats    integer[] := array_fill(NULL::integer, ARRAY[n]);
	earlier  integer[] := array_fill(NULL::integer, ARRAY[n]); -- the order of the same request
	reused   boolean[] := array_fill(false, ARRAY[n]);
	events   bigint[];
	counter  record;
	known    record;
	free     integer;
	i        integer;
	claimed  bigint;
BEGIN
	IF cardinality(keys) > 0 THEN
		-- Behind the locks, so that the same request at another replica is over, and seen.
		PERFORM FROM show_seats s WHERE s.show_id = ANY(show_ids) ORDER BY s.show_id FOR NO KEY UPDATE;
		FOR known IN SELECT k.key, k.order_id, k.request_hash FROM order_keys k WHERE k.key = ANY(keys) LOOP
			i := array_position(keys, known.key);
			IF known.request_hash = hashes[i] THEN
				earlier[i] := known.order_id;
			ELSE
				reused[i] := true;
			END IF;
		END LOOP;
	END IF;

	FOR counter IN
		SELECT s.show_id, s.capacity - s.held AS free FROM show_seats s
		WHERE s.show_id = ANY(show_ids) ORDER BY s.show_id FOR NO KEY UPDATE
	LOOP
		free := counter.free;
		FOR i IN 1..n LOOP
			IF show_ids[i] = counter.show_id THEN
				IF quantities[i] <= free AND earlier[i] IS NULL AND NOT reused[i] THEN
					free := free - quantities[i];
					fits[i] := true;
				END IF;
				seats[i] := free;
			END IF;
		END LOOP;
	END LOOP;

	IF repeated AND EXISTS (SELECT FROM orders WHERE id = ANY(ids)) THEN
		RETURN QUERY
		SELECT o.id IS NOT NULL OR t.earlier IS NOT NULL, coalesce(o.id, t.earlier), s.capacity - s.held, e.id, o.id IS NULL AND t.reused
		FROM unnest(ids, show_ids, earlier, reused) WITH ORDINALITY AS t (id, show_id, earlier, reused, ord)
		LEFT JOIN orders o ON o.id = t.id
		LEFT JOIN show_seats s ON s.show_id = t.show_id
		LEFT JOIN outbox e ON e.message_id = 'order.created:' || t.id
		ORDER BY t.ord;
		RETURN;
	END IF;

	IF cardinality(keys) > 0 THEN
		INSERT INTO order_keys (key, order_id, request_hash)
		SELECT t.key, t.id, t.hash FROM unnest(fits, ids, keys, hashes) AS t (fits, id, key, hash)
		WHERE t.fits AND t.key IS NOT NULL ORDER BY t.key
		ON CONFLICT DO NOTHING;
		GET DIAGNOSTICS claimed = ROW_COUNT;
		IF claimed < (SELECT count(*) FROM unnest(fits, keys) AS t (fits, key) WHERE t.fits AND t.key IS NOT NULL) THEN
			-- The same key for another show, at the same time: its locks are others. Once more, and it is seen.
			RAISE serialization_failure USING MESSAGE = 'an idempotency key of the batch was taken meanwhile';
		END IF;
	END IF;

	events := ARRAY(
		SELECT CASE WHEN t.fits THEN nextval('outbox_id_seq') END
		FROM unnest(fits) WITH ORDINALITY AS t (fits, ord) ORDER BY t.ord);

	INSERT INTO orders (id, user_id, show_id, quantity, status)
	SELECT t.id, t.user_id, t.show_id, t.quantity, 'PENDING'
	FROM unnest(fits, ids, users, show_ids, quantities) AS t (fits, id, user_id, show_id, quantity) WHERE t.fits;

	INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at)
	SELECT t.show_id, t.id, t.quantity, 'RESERVED', now() + hold
	FROM unnest(fits, ids, show_ids, quantities) AS t (fits, id, show_id, quantity) WHERE t.fits;

	INSERT INTO outbox (id, message_id, correlation_id, routing_key, payload, relay, lease_until)
	SELECT t.event, 'order.created:' || t.id, t.id::text, 'order.created', t.payload, relay_name, now() + lease
	FROM unnest(fits, ids, events, payloads) AS t (fits, id, event, payload) WHERE t.fits;

	INSERT INTO order_events (order_id, hop, pod)
	SELECT t.id, 'accepted', pod_name FROM unnest(fits, ids) AS t (fits, id) WHERE t.fits;

	RETURN QUERY
	SELECT t.fits OR t.earlier IS NOT NULL, CASE WHEN t.fits THEN t.id ELSE t.earlier END, t.available, t.event, t.reused
	FROM unnest(fits, ids, earlier, seats, events, reused) AS t (fits, id, earlier, available, event, reused);
END $$;
-- +goose StatementEnd

-- While a rollout lasts the pods of the version before call it without keys.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION accept_orders(
	ids integer[], users text[], show_ids integer[], quantities integer[], payloads bytea[],
	hold interval, relay_name text, lease interval, pod_name text, repeated boolean
) RETURNS TABLE (accepted boolean, available integer, event_id bigint)
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
	SELECT a.accepted, a.available, a.event_id
	FROM accept_orders(ids, users, show_ids, quantities, payloads, '{}', '{}', hold, relay_name, lease, pod_name, repeated) a
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION accept_orders(integer[], text[], integer[], integer[], bytea[], text[], bytea[], interval, text, interval, text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION accept_orders(integer[], text[], integer[], integer[], bytea[], text[], bytea[], interval, text, interval, text, boolean) TO order_api;
GRANT SELECT, DELETE ON order_keys TO order_api;
