-- +goose Up
-- A hold outlives its show: nothing in the old schema forbids that. When it ends there is no counter to keep; only taking seats
-- needs one. It is the function of before but for that.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION seats_of_updated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
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
		IF NOT FOUND AND change.seats > 0 THEN
			RAISE foreign_key_violation USING MESSAGE = format('there is no show %s', change.show_id);
		END IF;
	END LOOP;
	RETURN NULL;
END $$;
-- +goose StatementEnd
