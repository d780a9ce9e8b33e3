-- All that verify judges, in one snapshot: it is true also while orders flow. What stands in braces is put in by facts.go: since, before
-- which nothing may be on its way any more; most, the number of rows that are named; users, the condition on an order to be one of a
-- history's; and candidates, the number of orders that are looked for among the dead letters.
--
-- An order's hop is written down by the statement that makes it so. That seats are taken is written behind the lock of their
-- counter, and that they came back, before it: in the order of the times no more can seem to be held than were.
WITH params AS MATERIALIZED (SELECT coalesce({since}, now()) AS since),
-- I2: the seats of each show, counted one by one.
sums AS (
	SELECT show_id, sum(quantity) AS seats FROM inventory_reservations WHERE status IN ('RESERVED', 'COMMITTED') GROUP BY show_id
),
-- I3 and I6: each order with its reservation and its payment; the three states, and what is wrong with them or was on its way at since.
states AS (
	SELECT coalesce(o.id, r.order_id, p.order_id) AS id,
		coalesce(o.status, '') AS "order", coalesce(r.status, '') AS hold, coalesce(p.status, '') AS payment,
		coalesce(p.refund_due, false) AS refund,
		o.ended_at IS NOT NULL AS ended,
		coalesce((r.show_id, r.quantity) = (o.show_id, o.quantity), true) AND coalesce(p.user_id = o.user_id, true) AS agrees,
		coalesce(r.status = 'RESERVED' AND r.expires_at < since, false) AS lapsed,
		coalesce(CASE
			WHEN o.status = 'PENDING' THEN o.created_at <= since
			WHEN o.status = 'CANCELLED' AND r.status = 'EXPIRED' AND p.status = 'SUCCEEDED' AND NOT p.refund_due THEN p.created_at <= since
		END, false) AS waiting
	FROM params, orders o FULL JOIN inventory_reservations r ON r.order_id = o.id FULL JOIN payments p ON p.order_id = coalesce(o.id, r.order_id)
),
-- The same by combination, with the first orders of each.
cells AS (
	SELECT "order", hold, payment, refund, ended, agrees, lapsed, waiting, count(*) AS count,
		(array_agg(id ORDER BY id) FILTER (WHERE id IS NOT NULL))[1:{most}] AS first
	FROM states GROUP BY "order", hold, payment, refund, ended, agrees, lapsed, waiting
),
-- I4.
twice AS (
	SELECT 'order_id' AS what, order_id::text AS value FROM payments GROUP BY order_id HAVING count(*) > 1
	UNION ALL
	SELECT 'message_id', message_id FROM payments GROUP BY message_id HAVING count(*) > 1
),
-- I9 and I10: what the history has of each order.
lives AS MATERIALIZED (
	SELECT order_id AS id, count(*) FILTER (WHERE hop = 'accepted') AS accepted, min(at) FILTER (WHERE hop = 'accepted') AS at,
		count(*) FILTER (WHERE hop IN ('confirmed', 'cancelled', 'expired')) AS ends, count(*) FILTER (WHERE hop = 'expired') AS lapses,
		max(hop) FILTER (WHERE hop IN ('confirmed', 'cancelled', 'expired')) AS last,
		-- confirmed as its hold ran out, by a payment of which payment-service has told, and nobody has heard
		bool_or(hop = 'unheard') AND bool_or(hop = 'payment_succeeded') AND NOT bool_or(hop = 'heard') AS unheard, max(at) AS latest
	FROM order_events GROUP BY order_id
),
-- What of that cannot be, and by which invariant.
twisted AS (
	SELECT l.id, u.invariant, u.how
	FROM lives l LEFT JOIN orders o ON o.id = l.id LEFT JOIN inventory_reservations r ON r.order_id = l.id
	CROSS JOIN LATERAL (VALUES
		('I1', CASE WHEN l.accepted > 0 AND o.id IS NULL THEN 'it was accepted, and is not there' END),
		('I9', CASE WHEN l.accepted > 1 THEN 'it was accepted ' || l.accepted || ' times' END),
		('I9', CASE WHEN l.ends > 1 THEN 'it ended ' || l.ends || ' times' END),
		('I9', CASE WHEN l.ends = 1 AND o.status <> CASE l.last WHEN 'confirmed' THEN 'CONFIRMED' ELSE 'CANCELLED' END
			THEN 'it ended as ' || l.last || ', and is ' || o.status END),
		('I10', CASE WHEN l.lapses > 1 THEN 'its hold lapsed ' || l.lapses || ' times' END),
		('I10', CASE WHEN l.lapses > 0 AND r.status IS DISTINCT FROM 'EXPIRED' THEN 'its hold lapsed, and its seats are ' || coalesce(r.status, 'not there') END),
		('I10', CASE WHEN l.lapses = 0 AND l.ends > 0 AND r.status = 'EXPIRED' THEN 'it ended as ' || l.last || ', and its hold lapsed besides' END)
	) AS u (invariant, how) WHERE u.how IS NOT NULL
),
-- I2, at every instant: the seats held after each row of the history.
running AS (
	SELECT o.show_id, sum(CASE e.hop WHEN 'accepted' THEN o.quantity ELSE -o.quantity END)
		OVER (PARTITION BY o.show_id ORDER BY e.at, e.hop = 'accepted' ROWS UNBOUNDED PRECEDING) AS seats
	FROM order_events e JOIN orders o ON o.id = e.order_id JOIN lives l ON l.id = e.order_id LEFT JOIN inventory_reservations r ON r.order_id = e.order_id
	WHERE e.hop IN ('accepted', 'cancelled', 'expired')
		AND (l.ends > 0 OR r.status IN ('RESERVED', 'COMMITTED')) -- an old service that cancels leaves no time at which the seats came back
), peaks AS (
	SELECT show_id, max(seats) AS peak FROM running GROUP BY show_id
),
-- I5: accepted before since, and no payment, nor an event that is still to be sent.
unpaid AS (
	SELECT l.id FROM params, lives l LEFT JOIN payments p ON p.order_id = l.id LEFT JOIN outbox b ON b.message_id = 'order.created:' || l.id
	WHERE l.accepted > 0 AND l.at <= since AND p.order_id IS NULL AND b.id IS NULL
),
-- I5: paid before since, and PENDING, or confirmed without the result; nor is that still to be sent.
unsettled AS (
	SELECT u.id FROM (
		SELECT o.id FROM params, orders o JOIN payments p ON p.order_id = o.id WHERE o.status = 'PENDING' AND p.created_at <= since
		UNION ALL
		SELECT l.id FROM params, lives l WHERE l.unheard AND l.latest <= since
	) u
	WHERE NOT EXISTS (SELECT FROM outbox b WHERE b.correlation_id = u.id::text AND b.routing_key LIKE 'payment.%')
),
-- I5: paid for by a message that is another order's.
unexpected AS (
	SELECT order_id AS id FROM payments WHERE message_id LIKE 'order.created:%' AND message_id <> 'order.created:' || order_id
),
-- I7: orders of several keys, and keys of no order.
shared AS (
	SELECT order_id AS id FROM order_keys GROUP BY order_id HAVING count(*) > 1
), astray AS (
	SELECT k.order_id AS id FROM order_keys k LEFT JOIN orders o ON o.id = k.order_id WHERE o.id IS NULL
)
SELECT json_build_object(
	'at', now(), 'since', (SELECT since FROM params), 'newest', (SELECT max(created_at) FROM orders),
	'orders', (SELECT count(*) FROM orders), 'payments', (SELECT count(*) FROM payments),
	'shows', (SELECT json_agg(json_build_object('id', coalesce(s.id, t.show_id), 'name', s.name, 'exists', s.id IS NOT NULL,
			'capacity', coalesce(s.capacity, 0), 'sum', coalesce(t.seats, 0), 'counter', c.held, 'limit', c.capacity,
			'peak', coalesce(k.peak, 0)) ORDER BY coalesce(s.id, t.show_id))
		FROM shows s FULL JOIN sums t ON t.show_id = s.id LEFT JOIN show_seats c ON c.show_id = coalesce(s.id, t.show_id)
		LEFT JOIN peaks k ON k.show_id = s.id),
	'cells', (SELECT json_agg(c) FROM cells c),
	'twice', (SELECT json_agg(t) FROM (
		SELECT what, count(*) AS count, (array_agg(value ORDER BY value))[1:{most}] AS first FROM twice GROUP BY what ORDER BY what) t),
	'outbox', (SELECT json_build_object('count', count(*), 'waiting', count(*) FILTER (WHERE created_at <= since),
			'first', (array_agg(message_id ORDER BY id) FILTER (WHERE created_at <= since))[1:{most}])
		FROM params, outbox),
	'keys', json_build_object('count', (SELECT count(*) FROM order_keys), 'astray', (SELECT json_build_object('count', count(*), 'first', (array_agg(id ORDER BY id))[1:{candidates}]) FROM astray),
		'shared', (SELECT json_build_object('count', count(*), 'first', (array_agg(id ORDER BY id))[1:{candidates}]) FROM shared)),
	'lives', (SELECT json_build_object('accepted', count(*) FILTER (WHERE l.accepted > 0), 'ended', count(*) FILTER (WHERE l.ends > 0),
			'lapsed', count(*) FILTER (WHERE l.lapses > 0), 'seats', coalesce(sum(o.quantity) FILTER (WHERE l.lapses > 0), 0),
			'broken', (SELECT json_agg(t) FROM (SELECT invariant, how, count(*) AS count, (array_agg(id ORDER BY id))[1:{most}] AS first
				FROM twisted GROUP BY invariant, how ORDER BY invariant, how) t))
		FROM lives l LEFT JOIN orders o ON o.id = l.id),
	'events', json_build_object(
		'sent', (SELECT count(*) FROM lives WHERE accepted > 0) + (SELECT count(*) FROM payments WHERE message_id LIKE 'order.created:%'),
		'unpaid', (SELECT json_build_object('count', count(*), 'first', (array_agg(id ORDER BY id))[1:{candidates}]) FROM unpaid),
		'unsettled', (SELECT json_build_object('count', count(*), 'first', (array_agg(id ORDER BY id))[1:{candidates}]) FROM unsettled),
		'unexpected', (SELECT json_build_object('count', count(*), 'first', (array_agg(id ORDER BY id))[1:{candidates}]) FROM unexpected)),
	'rows', (SELECT json_agg(json_build_object('id', o.id, 'user', o.user_id, 'show', o.show_id, 'quantity', o.quantity, 'status', o.status,
			'payments', (SELECT count(*) FROM payments p WHERE p.order_id = o.id), 'took', coalesce(extract(epoch FROM o.ended_at - o.created_at), 0)))
		FROM orders o WHERE {users}))
