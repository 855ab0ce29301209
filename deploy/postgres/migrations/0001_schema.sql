-- The schema of nearfield, version 1. `nearfield load` runs this file in a database that has no schema
-- nearfield yet, and the later migrations after it, in one transaction. Never changed once released.
--
-- Readers use two functions and three views, and no table. Every load fills partitions of its own;
-- which run the views show is said by one row, so publishing is one UPDATE that waits for nobody.

CREATE SCHEMA nearfield;
COMMENT ON SCHEMA nearfield IS 'Nearest neighbours of recordings, published by nearfield';

CREATE TABLE nearfield.schema_version (version int NOT NULL);
INSERT INTO nearfield.schema_version VALUES (1);
COMMENT ON TABLE nearfield.schema_version IS 'One row: the version of this schema';
COMMENT ON COLUMN nearfield.schema_version.version IS 'Compared by nearfield before it loads';

CREATE TABLE nearfield.runs (
    run_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint text NOT NULL UNIQUE,
    n int NOT NULL CHECK (n > 0),
    k int NOT NULL CHECK (k > 0),
    space text NOT NULL,
    recall float8,
    recall_low float8,
    asked float8 NOT NULL,
    forced boolean NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz,
    facts jsonb NOT NULL
);
COMMENT ON TABLE nearfield.runs IS 'One row per run that is loaded; each has its own partitions';
COMMENT ON COLUMN nearfield.runs.run_id IS 'Names the partitions: neighbours_N and recordings_N';
COMMENT ON COLUMN nearfield.runs.fingerprint IS 'Identifies the matrix and the labels: the same is never loaded twice';
COMMENT ON COLUMN nearfield.runs.n IS 'Number of recordings';
COMMENT ON COLUMN nearfield.runs.k IS 'Neighbours per recording';
COMMENT ON COLUMN nearfield.runs.space IS 'What distances mean: l2 (Euclidean), cosine (1 - cos) or ip (negative inner product); smaller is nearer';
COMMENT ON COLUMN nearfield.runs.recall IS 'Share of the true k nearest that was found, on a sample; NULL when never verified';
COMMENT ON COLUMN nearfield.runs.recall_low IS 'Lower end of the 95% interval of recall';
COMMENT ON COLUMN nearfield.runs.asked IS 'The recall that was asked for';
COMMENT ON COLUMN nearfield.runs.forced IS 'True when it was loaded although verification was missing or failed';
COMMENT ON COLUMN nearfield.runs.loaded_at IS 'When the load began to fill the partitions';
COMMENT ON COLUMN nearfield.runs.published_at IS 'When it was last published by a load; NULL when never';
COMMENT ON COLUMN nearfield.runs.facts IS 'Further facts: fingerprints, method, versions, labels';

CREATE TABLE nearfield.current_run (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    run_id int REFERENCES nearfield.runs
);
INSERT INTO nearfield.current_run DEFAULT VALUES;
COMMENT ON TABLE nearfield.current_run IS 'One row: the run that readers see. Publishing and rollback are one UPDATE of it';
COMMENT ON COLUMN nearfield.current_run.only_row IS 'Keeps the table to one row';
COMMENT ON COLUMN nearfield.current_run.run_id IS 'NULL before the first run is published';

-- No DEFAULT partition: attaching would have to scan it. Keys belong to the partitions, which get
-- them after they are filled.
CREATE TABLE nearfield.recordings_all (
    run_id int NOT NULL,
    "row" int NOT NULL,
    recording_id text COLLATE "C" NOT NULL,
    labels jsonb NOT NULL
) PARTITION BY LIST (run_id);
ALTER TABLE nearfield.recordings_all ALTER labels SET STATISTICS 0;
COMMENT ON TABLE nearfield.recordings_all IS 'Recordings of every loaded run';
COMMENT ON COLUMN nearfield.recordings_all.run_id IS 'The run';
COMMENT ON COLUMN nearfield.recordings_all."row" IS 'Position 0..n-1 in the vector set; unique in a run';
COMMENT ON COLUMN nearfield.recordings_all.recording_id IS 'Public id; unique in a run';
COMMENT ON COLUMN nearfield.recordings_all.labels IS 'Label columns of the vector set (title, artist, ...); those without a value are left out';

CREATE TABLE nearfield.neighbours_all (
    run_id int NOT NULL,
    "row" int NOT NULL,
    neighbours int4[] NOT NULL,
    distances float4[] NOT NULL
) PARTITION BY LIST (run_id);
-- random numbers don't compress; without this Postgres tries to on every list that passes 2 kB.
-- Statistics of lists and labels would cost seconds a load and help no query.
ALTER TABLE nearfield.neighbours_all
    ALTER neighbours SET STORAGE EXTERNAL,
    ALTER distances SET STORAGE EXTERNAL,
    ALTER neighbours SET STATISTICS 0,
    ALTER distances SET STATISTICS 0;
COMMENT ON TABLE nearfield.neighbours_all IS 'Neighbour lists of every loaded run: one row per recording';
COMMENT ON COLUMN nearfield.neighbours_all.run_id IS 'The run';
COMMENT ON COLUMN nearfield.neighbours_all."row" IS 'Row of the recording whose neighbours these are';
COMMENT ON COLUMN nearfield.neighbours_all.neighbours IS 'Rows of the k nearest recordings, nearest first, never itself';
COMMENT ON COLUMN nearfield.neighbours_all.distances IS 'Their distances, ascending, in the space of the run';

CREATE VIEW nearfield.recordings AS
SELECT "row", recording_id, labels
FROM nearfield.recordings_all
WHERE run_id = (SELECT run_id FROM nearfield.current_run);
COMMENT ON VIEW nearfield.recordings IS 'Recordings of the published run';
COMMENT ON COLUMN nearfield.recordings."row" IS 'Position in the vector set: not an id, other runs may number otherwise';
COMMENT ON COLUMN nearfield.recordings.recording_id IS 'Public id';
COMMENT ON COLUMN nearfield.recordings.labels IS 'Labels as JSON: labels->>''title''';

-- The pointer is read in a subquery of its own for each table, so that the other runs' partitions
-- are pruned when the query starts.
CREATE VIEW nearfield.neighbours AS
SELECT
    own.recording_id,
    (
        SELECT array_agg(other.recording_id ORDER BY list.rank)
        FROM unnest(found.neighbours) WITH ORDINALITY AS list ("row", rank)
        JOIN nearfield.recordings_all AS other
            ON other.run_id = (SELECT run_id FROM nearfield.current_run)
            AND other."row" = list."row"
    ) AS neighbour_ids,
    found.distances
FROM nearfield.recordings_all AS own
JOIN nearfield.neighbours_all AS found
    ON found.run_id = (SELECT run_id FROM nearfield.current_run)
    AND found."row" = own."row"
WHERE own.run_id = (SELECT run_id FROM nearfield.current_run);
COMMENT ON VIEW nearfield.neighbours IS 'The published matrix, one row per recording: two arrays of length k';
COMMENT ON COLUMN nearfield.neighbours.recording_id IS 'The recording whose neighbours these are';
COMMENT ON COLUMN nearfield.neighbours.neighbour_ids IS 'Ids of the k nearest recordings, nearest first';
COMMENT ON COLUMN nearfield.neighbours.distances IS 'Their distances, in the same order';

CREATE VIEW nearfield.neighbours_flat AS
SELECT
    own.recording_id,
    list.rank::int AS rank,
    other.recording_id AS neighbour_id,
    list.distance
FROM nearfield.recordings_all AS own
JOIN nearfield.neighbours_all AS found
    ON found.run_id = (SELECT run_id FROM nearfield.current_run)
    AND found."row" = own."row"
CROSS JOIN LATERAL unnest(found.neighbours, found.distances)
    WITH ORDINALITY AS list ("row", distance, rank)
JOIN nearfield.recordings_all AS other
    ON other.run_id = (SELECT run_id FROM nearfield.current_run)
    AND other."row" = list."row"
WHERE own.run_id = (SELECT run_id FROM nearfield.current_run);
COMMENT ON VIEW nearfield.neighbours_flat IS 'The published matrix, one row per pair';
COMMENT ON COLUMN nearfield.neighbours_flat.recording_id IS 'The recording whose neighbour this is';
COMMENT ON COLUMN nearfield.neighbours_flat.rank IS '1 for the nearest';
COMMENT ON COLUMN nearfield.neighbours_flat.neighbour_id IS 'Id of the neighbour';
COMMENT ON COLUMN nearfield.neighbours_flat.distance IS 'Distance in the space of the run';

-- The functions read the views only, so they run with their caller's rights.
CREATE FUNCTION nearfield.require_recording(recording_id text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (
        SELECT FROM nearfield.recordings AS r WHERE r.recording_id = require_recording.recording_id
    ) THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM nearfield.recordings) THEN
        RAISE EXCEPTION 'no run is published in this database' USING ERRCODE = 'NF003';
    END IF;
    RAISE EXCEPTION 'unknown recording: %', coalesce(quote_literal(recording_id), 'NULL') USING
        ERRCODE = 'NF001',
        HINT = 'The ids of the published run are in nearfield.recordings';
END
$$;
COMMENT ON FUNCTION nearfield.require_recording IS 'Raises NF001 unless the recording is in the published run, NF003 when none is published';

CREATE TYPE nearfield.similar_recording AS (
    rank int,
    recording_id text,
    distance float4,
    labels jsonb
);
COMMENT ON TYPE nearfield.similar_recording IS 'One row of similar_recordings';
COMMENT ON COLUMN nearfield.similar_recording.rank IS '1 for the nearest';
COMMENT ON COLUMN nearfield.similar_recording.recording_id IS 'Id of the neighbour';
COMMENT ON COLUMN nearfield.similar_recording.distance IS 'Distance in the space of the run';
COMMENT ON COLUMN nearfield.similar_recording.labels IS 'Labels of the neighbour';

CREATE FUNCTION nearfield.similar_recordings(recording_id text, k int DEFAULT 10)
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
    PERFORM nearfield.require_recording($1);
    RETURN QUERY
    SELECT flat.rank, flat.neighbour_id, flat.distance, other.labels
    FROM nearfield.neighbours_flat AS flat
    JOIN nearfield.recordings AS other ON other.recording_id = flat.neighbour_id
    WHERE flat.recording_id = $1 AND flat.rank <= $2
    ORDER BY flat.rank;
END
$$;
COMMENT ON FUNCTION nearfield.similar_recordings IS 'The k nearest recordings of one, nearest first. Raises NF001 for an unknown recording, NF002 for k < 1';

CREATE FUNCTION nearfield.distance_between(a text, b text) RETURNS float4
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM nearfield.require_recording(a);
    PERFORM nearfield.require_recording(b);
    RETURN coalesce(
        (
            SELECT distance FROM nearfield.neighbours_flat
            WHERE recording_id = a AND neighbour_id = b
        ),
        (
            SELECT distance FROM nearfield.neighbours_flat
            WHERE recording_id = b AND neighbour_id = a
        )
    );
END
$$;
COMMENT ON FUNCTION nearfield.distance_between IS 'Distance of two recordings, out of the lists: NULL where neither names the other (a recording doesn''t name itself). Raises NF001 for an unknown recording';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA nearfield FROM PUBLIC;
