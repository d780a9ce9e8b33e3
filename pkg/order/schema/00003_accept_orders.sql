-- +goose Up
-- accept_orders takes a batch of orders in the order they came: each is accepted if it still fits, else refused, and a later,
-- smaller one may still fit. The arrays have one element an order. A row comes back for each, by position from 1:
-- whether it was accepted, the seats left in its show then (NULL: no such show), and the id of its event.
--
-- repeated says that the same batch may have committed before, its answer having been lost. The counters' locks make sure
-- that the first try is over; if it had committed, its outcome is told and nothing is done again.
-- +goose StatementBegin
CREATE FUNCTION accept_orders(
	ids integer[], users text[], show_ids integer[], quantities integer[], payloads bytea[],
	hold interval, relay_name text, lease interval, pod_name text, repeated boolean
) RETURNS TABLE (accepted boolean, available integer, event_id bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
	n        integer := cardinality(ids);
	fits     boolean[] := array_fill(false, ARRAY[n]);
	seats    integer[] := array_fill(NULL::integer, ARRAY[n]);
	events   bigint[];
	counter  record;
	free     integer;
	i        integer;
BEGIN
	FOR counter IN
		SELECT s.show_id, s.capacity - s.held AS free FROM show_seats s
		WHERE s.show_id = ANY(show_ids) ORDER BY s.show_id FOR NO KEY UPDATE
	LOOP
		free := counter.free;
		FOR i IN 1..n LOOP
			IF show_ids[i] = counter.show_id THEN
				IF quantities[i] <= free THEN
					free := free - quantities[i];
					fits[i] := true;
				END IF;
				seats[i] := free;
			END IF;
		END LOOP;
	END LOOP;

	IF repeated AND EXISTS (SELECT FROM orders WHERE id = ANY(ids)) THEN
		RETURN QUERY
		SELECT o.id IS NOT NULL, s.capacity - s.held, e.id
		FROM unnest(ids, show_ids) WITH ORDINALITY AS t (id, show_id, ord)
		LEFT JOIN orders o ON o.id = t.id
		LEFT JOIN show_seats s ON s.show_id = t.show_id
		LEFT JOIN outbox e ON e.message_id = 'order.created:' || t.id
		ORDER BY t.ord;
		RETURN;
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

	RETURN QUERY SELECT t.* FROM unnest(fits, seats, events) AS t (accepted, available, event_id);
END $$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION accept_orders FROM PUBLIC;
