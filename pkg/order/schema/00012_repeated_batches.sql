-- +goose Up
-- accept_orders is the one of before, but for a batch that is repeated. It is known by its orders, and not by their ids alone: after
-- a snapshot of another database these may be others' orders. And who was refused by the first try is told of fewer seats than were
-- asked for: that some have come back since does not make the answer another.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION accept_orders(
	ids integer[], users text[], show_ids integer[], quantities integer[], payloads bytea[], keys text[], hashes bytea[],
	shows integer[], seats bigint, hold interval, relay_name text, lease interval, pod_name text, repeated boolean,
	came timestamptz[], traces text[]
) RETURNS TABLE (accepted boolean, order_id integer, available integer, event_id bigint, key_reused boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
	n        integer := cardinality(ids);
	keyed    boolean := cardinality(keys) > 0;
	fits     boolean[] := array_fill(true, ARRAY[n]);
	remain   integer[] := array_fill(0, ARRAY[n]);
	earlier  integer[] := array_fill(NULL::integer, ARRAY[n]); -- the order of the same request
	reused   boolean[] := array_fill(false, ARRAY[n]);
	ample    integer;
	counter  record;
	known    record;
	free     integer;
	i        integer;
	claimed  bigint;
BEGIN
	PERFORM pg_advisory_xact_lock_shared(720517001);

	SELECT count(*) FILTER (WHERE seats <= s.capacity - s.held) INTO ample
	FROM (SELECT c.capacity, c.held FROM show_seats c WHERE c.show_id = ANY(shows) ORDER BY c.show_id FOR NO KEY UPDATE) s;

	IF keyed THEN
		-- Behind the locks, so that the same request at another replica is over, and seen.
		FOR known IN SELECT k.key, k.order_id, k.request_hash FROM order_keys k WHERE k.key = ANY(keys) LOOP
			i := array_position(keys, known.key);
			fits[i] := false;
			IF known.request_hash = hashes[i] THEN
				earlier[i] := known.order_id;
			ELSE
				reused[i] := true;
			END IF;
		END LOOP;
	END IF;

	IF ample < cardinality(shows) THEN
		remain := array_fill(NULL::integer, ARRAY[n]);
		FOR counter IN SELECT s.show_id, s.capacity - s.held AS free FROM show_seats s WHERE s.show_id = ANY(shows) LOOP
			free := counter.free;
			FOR i IN 1..n LOOP
				IF show_ids[i] = counter.show_id THEN
					fits[i] := fits[i] AND quantities[i] <= free;
					IF fits[i] THEN
						free := free - quantities[i];
					END IF;
					remain[i] := free;
				END IF;
			END LOOP;
		END LOOP;
		FOR i IN 1..n LOOP
			fits[i] := fits[i] AND remain[i] IS NOT NULL;
		END LOOP;
	END IF;

	IF repeated AND EXISTS (
		SELECT FROM unnest(ids, users, show_ids, quantities) AS t (id, user_id, show_id, quantity) JOIN orders o USING (id, user_id, show_id, quantity)
	) THEN
		RETURN QUERY
		SELECT o.id IS NOT NULL OR t.earlier IS NOT NULL, coalesce(o.id, t.earlier),
			CASE WHEN o.id IS NULL AND s.capacity - s.held >= t.quantity THEN t.quantity - 1 ELSE s.capacity - s.held END, e.id, o.id IS NULL AND t.reused
		FROM unnest(ids, users, show_ids, quantities, earlier, reused) WITH ORDINALITY AS t (id, user_id, show_id, quantity, earlier, reused, ord)
		LEFT JOIN orders o USING (id, user_id, show_id, quantity)
		LEFT JOIN show_seats s ON s.show_id = t.show_id
		LEFT JOIN outbox e ON e.message_id = 'order.created:' || t.id
		ORDER BY t.ord;
		RETURN;
	END IF;

	IF keyed THEN
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

	-- One statement: starting another costs as much as inserting ten rows.
	RETURN QUERY
	WITH batch AS MATERIALIZED (
		SELECT t.*, CASE WHEN t.fits THEN nextval('outbox_id_seq') END AS event
		FROM unnest(fits, ids, users, show_ids, quantities, payloads, earlier, remain, reused, came, traces)
			AS t (fits, id, user_id, show_id, quantity, payload, earlier, remain, reused, began, trace)
	), taken AS (
		INSERT INTO orders (id, user_id, show_id, quantity, status)
		SELECT b.id, b.user_id, b.show_id, b.quantity, 'PENDING' FROM batch b WHERE b.fits
	), held AS (
		INSERT INTO inventory_reservations (show_id, order_id, quantity, status, expires_at)
		SELECT b.show_id, b.id, b.quantity, 'RESERVED', now() + hold FROM batch b WHERE b.fits
	), events AS (
		INSERT INTO outbox (id, message_id, correlation_id, routing_key, payload, traceparent, relay, lease_until)
		SELECT b.event, 'order.created:' || b.id, b.id::text, 'order.created', b.payload, b.trace, relay_name, now() + lease FROM batch b WHERE b.fits
	), history AS (
		INSERT INTO order_events (order_id, hop, pod, began, traceparent) SELECT b.id, 'accepted', pod_name, b.began, b.trace FROM batch b WHERE b.fits
	)
	SELECT b.fits OR b.earlier IS NOT NULL, CASE WHEN b.fits THEN b.id ELSE b.earlier END, b.remain, b.event, b.reused FROM batch b;
END $$;
-- +goose StatementEnd
