-- +goose Up
-- The seat counter. The database refuses to oversell whoever writes: our services, an old one that names only the old
-- columns, or a person. It has a row of its own so that the foreign keys' locks on shows stay off it.
SET LOCAL lock_timeout = '1s';
LOCK TABLE shows, inventory_reservations IN SHARE ROW EXCLUSIVE MODE; -- old services wait a moment; nothing slips in uncounted

-- +goose StatementBegin
DO $$
DECLARE
	found text;
BEGIN
	SELECT string_agg(format('show %s (%s): %s of %s', id, name, held, capacity), ', ' ORDER BY id) INTO found
	FROM (SELECT s.id, s.name, s.capacity, sum(r.quantity) AS held
		FROM shows s JOIN inventory_reservations r ON r.show_id = s.id
		WHERE r.status IN ('RESERVED', 'COMMITTED') GROUP BY s.id) t
	WHERE held > capacity;
	IF found IS NOT NULL THEN
		RAISE EXCEPTION 'this database has already sold more seats than there are (%); raise the capacity of the shows or release reservations, then migrate again', found;
	END IF;
END $$;
-- +goose StatementEnd

CREATE TABLE show_seats (
	show_id  integer PRIMARY KEY REFERENCES shows ON DELETE CASCADE,
	capacity integer NOT NULL,
	held     integer NOT NULL DEFAULT 0, -- the sum of RESERVED and COMMITTED
	CONSTRAINT show_seats_not_oversold CHECK (held BETWEEN 0 AND capacity)
) WITH (fillfactor = 10);

INSERT INTO show_seats (show_id, capacity, held)
SELECT s.id, s.capacity, coalesce((
	SELECT sum(r.quantity) FROM inventory_reservations r WHERE r.show_id = s.id AND r.status IN ('RESERVED', 'COMMITTED')), 0)
FROM shows s;

-- +goose StatementBegin
CREATE FUNCTION shows_to_seats() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
	INSERT INTO show_seats (show_id, capacity) VALUES (NEW.id, NEW.capacity)
	ON CONFLICT (show_id) DO UPDATE SET capacity = EXCLUDED.capacity;
	RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER shows_to_seats AFTER INSERT OR UPDATE OF capacity ON shows
FOR EACH ROW EXECUTE FUNCTION shows_to_seats();

-- One function for each kind of statement: a trigger sees only the transition tables of its own. Shows are taken in order,
-- so that two statements never wait for each other.
-- +goose StatementBegin
CREATE FUNCTION seats_of_inserted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
	change record;
BEGIN
	FOR change IN
		SELECT show_id, sum(quantity) AS seats FROM new_rows WHERE status IN ('RESERVED', 'COMMITTED')
		GROUP BY show_id ORDER BY show_id
	LOOP
		UPDATE show_seats SET held = held + change.seats WHERE show_id = change.show_id;
		IF NOT FOUND THEN
			RAISE foreign_key_violation USING MESSAGE = format('there is no show %s', change.show_id);
		END IF;
	END LOOP;
	RETURN NULL;
END $$;

CREATE FUNCTION seats_of_updated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
	change record;
BEGIN
	FOR change IN
		SELECT show_id, sum(quantity) AS seats
		FROM (
			SELECT show_id, quantity FROM new_rows WHERE status IN ('RESERVED', 'COMMITTED')
			UNION ALL
			SELECT show_id, -quantity FROM old_rows WHERE status IN ('RESERVED', 'COMMITTED')
		) t
		GROUP BY show_id HAVING sum(quantity) <> 0 ORDER BY show_id
	LOOP
		UPDATE show_seats SET held = held + change.seats WHERE show_id = change.show_id;
		IF NOT FOUND THEN
			RAISE foreign_key_violation USING MESSAGE = format('there is no show %s', change.show_id);
		END IF;
	END LOOP;
	RETURN NULL;
END $$;

CREATE FUNCTION seats_of_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
	change record;
BEGIN
	FOR change IN
		SELECT show_id, sum(quantity) AS seats FROM old_rows WHERE status IN ('RESERVED', 'COMMITTED')
		GROUP BY show_id ORDER BY show_id
	LOOP
		UPDATE show_seats SET held = held - change.seats WHERE show_id = change.show_id; -- a deleted show took its counter along
	END LOOP;
	RETURN NULL;
END $$;

CREATE FUNCTION seats_of_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
	UPDATE show_seats SET held = 0 WHERE held <> 0;
	RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER seats_of_inserted AFTER INSERT ON inventory_reservations
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION seats_of_inserted();
CREATE TRIGGER seats_of_updated AFTER UPDATE ON inventory_reservations
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION seats_of_updated();
CREATE TRIGGER seats_of_deleted AFTER DELETE ON inventory_reservations
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION seats_of_deleted();
CREATE TRIGGER seats_of_truncated AFTER TRUNCATE ON inventory_reservations
FOR EACH STATEMENT EXECUTE FUNCTION seats_of_truncated();
