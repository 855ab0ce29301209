-- Version 3: the functions find neighbours by row and labels with them, where version 2 went through
-- the index of ids once more for each neighbour. Same names, arguments and answers.

CREATE OR REPLACE FUNCTION nearfield.similar_recordings(recording_id text, k int DEFAULT 10)
RETURNS SETOF nearfield.similar_recording
LANGUAGE plpgsql STABLE ROWS 10
SET search_path = pg_catalog, pg_temp
SET max_parallel_workers_per_gather = 0
AS $$
#variable_conflict use_column
BEGIN
    IF k IS NULL OR k < 1 THEN
        RAISE EXCEPTION 'expected k >= 1, got %', coalesce(k::text, 'NULL')
            USING ERRCODE = 'NF002';
    END IF;
    RETURN QUERY
    SELECT near.rank::int, other.recording_id, near.distance, other.labels
    FROM nearfield.recordings AS own
    JOIN nearfield.lists AS list ON list."row" = own."row"
    CROSS JOIN LATERAL unnest(list.neighbours[:$2], list.distances[:$2])
        WITH ORDINALITY AS near ("row", distance, rank)
    JOIN nearfield.recordings AS other ON other."row" = near."row"
    WHERE own.recording_id = $1
    ORDER BY near.rank;
    IF NOT FOUND THEN
        PERFORM nearfield.require_recording($1);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION nearfield.distance_between(a text, b text) RETURNS float4
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    row_a int := (SELECT "row" FROM nearfield.recordings WHERE recording_id = a);
    row_b int := (SELECT "row" FROM nearfield.recordings WHERE recording_id = b);
BEGIN
    IF row_a IS NULL OR row_b IS NULL THEN
        PERFORM nearfield.require_recording(a);
        PERFORM nearfield.require_recording(b);
    END IF;
    RETURN coalesce(
        (
            SELECT distances[array_position(neighbours, row_b)]
            FROM nearfield.lists WHERE "row" = row_a
        ),
        (
            SELECT distances[array_position(neighbours, row_a)]
            FROM nearfield.lists WHERE "row" = row_b
        )
    );
END
$$;
