-- Version 2: loads in chunks that are kept when a load is interrupted; gates with their figures; a log
-- of publications; views of the runs; lists by row; reverse neighbours. Touches nothing that readers
-- of version 1 lock, so they neither wait nor notice.

ALTER TABLE nearfield.runs
    ALTER loaded_at DROP NOT NULL,
    ALTER loaded_at DROP DEFAULT,
    ADD began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD dropping boolean NOT NULL DEFAULT false;
UPDATE nearfield.runs SET began_at = loaded_at;
COMMENT ON COLUMN nearfield.runs.began_at IS 'When the load began';
COMMENT ON COLUMN nearfield.runs.loaded_at IS 'When the load was complete; NULL while it is under way or interrupted';
COMMENT ON COLUMN nearfield.runs.dropping IS 'True once the run is being removed: it can''t be published any more';
COMMENT ON COLUMN nearfield.runs.published_at IS 'When it was last published, rollbacks aside; NULL when never';

-- rows and runs are spread evenly: a small sample tells as much as a large one, sooner
ALTER TABLE nearfield.recordings_all
    ALTER run_id SET STATISTICS 10, ALTER "row" SET STATISTICS 10, ALTER recording_id SET STATISTICS 10;
ALTER TABLE nearfield.neighbours_all
    ALTER run_id SET STATISTICS 10, ALTER "row" SET STATISTICS 10;

CREATE TABLE nearfield.load_chunks (
    run_id int NOT NULL REFERENCES nearfield.runs ON DELETE CASCADE,
    part text NOT NULL CHECK (part IN ('recordings', 'neighbours')),
    chunk int NOT NULL,
    first_row int NOT NULL,
    rows int NOT NULL,
    bytes bigint NOT NULL,
    distance_min float4,
    distance_max float4,
    loaded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, part, chunk)
);
COMMENT ON TABLE nearfield.load_chunks IS 'Finished chunks of each run: written in the transaction that filled them, so that an interrupted load goes on after them';
COMMENT ON COLUMN nearfield.load_chunks.run_id IS 'The run';
COMMENT ON COLUMN nearfield.load_chunks.part IS 'recordings, or neighbours: the lists';
COMMENT ON COLUMN nearfield.load_chunks.chunk IS 'Number of the chunk from 0; its table is PART_RUN_CHUNK';
COMMENT ON COLUMN nearfield.load_chunks.first_row IS 'Its first row';
COMMENT ON COLUMN nearfield.load_chunks.rows IS 'Its number of rows';
COMMENT ON COLUMN nearfield.load_chunks.bytes IS 'Bytes that the copy sent';
COMMENT ON COLUMN nearfield.load_chunks.distance_min IS 'Least distance in it; NULL for recordings';
COMMENT ON COLUMN nearfield.load_chunks.distance_max IS 'Greatest distance in it; NULL for recordings';
COMMENT ON COLUMN nearfield.load_chunks.loaded_at IS 'When it was committed';

CREATE TABLE nearfield.gates (
    run_id int NOT NULL REFERENCES nearfield.runs ON DELETE CASCADE,
    gate text NOT NULL,
    figure float8,
    at_least float8,
    at_most float8,
    passed boolean NOT NULL,
    detail text NOT NULL,
    against int,
    measured_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, gate)
);
COMMENT ON TABLE nearfield.gates IS 'What was measured of a run before it was published, last time';
COMMENT ON COLUMN nearfield.gates.run_id IS 'The run';
COMMENT ON COLUMN nearfield.gates.gate IS 'rows, recall, recall_drop, ranges, coverage, changed_rows or changed_neighbours';
COMMENT ON COLUMN nearfield.gates.figure IS 'What was measured; NULL when it could not be';
COMMENT ON COLUMN nearfield.gates.at_least IS 'The least that passes; NULL: no such limit';
COMMENT ON COLUMN nearfield.gates.at_most IS 'The most that passes; NULL: no such limit';
COMMENT ON COLUMN nearfield.gates.passed IS 'Whether it passed';
COMMENT ON COLUMN nearfield.gates.detail IS 'How the figure came about';
COMMENT ON COLUMN nearfield.gates.against IS 'The run that was published at the time and compared with; NULL for gates that compare with none';
COMMENT ON COLUMN nearfield.gates.measured_at IS 'When';

CREATE TABLE nearfield.publications (
    publication_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_id int NOT NULL,
    fingerprint text NOT NULL,
    action text NOT NULL CHECK (action IN ('publish', 'rollback')),
    failed_gates text[] NOT NULL DEFAULT '{}',
    by_role text NOT NULL DEFAULT session_user,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id()
);
INSERT INTO nearfield.publications (published_at, run_id, fingerprint, action)
SELECT coalesce(published_at, loaded_at), run_id, fingerprint, 'publish'
FROM nearfield.runs JOIN nearfield.current_run USING (run_id);
COMMENT ON TABLE nearfield.publications IS 'Every move of the pointer in current_run; kept when a run is dropped';
COMMENT ON COLUMN nearfield.publications.publication_id IS 'Ascends';
COMMENT ON COLUMN nearfield.publications.published_at IS 'When';
COMMENT ON COLUMN nearfield.publications.run_id IS 'The run that readers saw from then on';
COMMENT ON COLUMN nearfield.publications.fingerprint IS 'Its matrix and labels';
COMMENT ON COLUMN nearfield.publications.action IS 'publish or rollback';
COMMENT ON COLUMN nearfield.publications.failed_gates IS 'Gates that failed and were overridden with --force; empty otherwise';
COMMENT ON COLUMN nearfield.publications.by_role IS 'Who did it';
COMMENT ON COLUMN nearfield.publications.transaction_id IS 'The transaction that moved the pointer: older snapshots still see the run before';

CREATE VIEW nearfield.run AS
SELECT
    r.run_id,
    r.run_id IS NOT DISTINCT FROM (SELECT run_id FROM nearfield.current_run) AS is_current,
    CASE WHEN r.run_id = (SELECT run_id FROM nearfield.current_run) THEN (
        SELECT max(published_at) FROM nearfield.publications AS p WHERE p.run_id = r.run_id
    ) END AS current_since,
    r.n,
    r.k,
    r.space,
    r.recall,
    r.recall_low,
    r.asked AS recall_asked,
    g.loaded_rows::bigint AS loaded_rows,
    g.coverage,
    g.changed_rows,
    g.changed_neighbours,
    c.distance_min,
    c.distance_max,
    r.forced,
    coalesce(g.failed_gates, '{}') AS failed_gates,
    (r.facts ->> 'matrix_created')::timestamptz AS matrix_created_at,
    r.loaded_at,
    r.published_at
FROM nearfield.runs AS r
LEFT JOIN LATERAL (
    SELECT
        max(figure) FILTER (WHERE gate = 'rows') AS loaded_rows,
        max(figure) FILTER (WHERE gate = 'coverage') AS coverage,
        max(figure) FILTER (WHERE gate = 'changed_rows') AS changed_rows,
        max(figure) FILTER (WHERE gate = 'changed_neighbours') AS changed_neighbours,
        array_agg(gate ORDER BY gate) FILTER (WHERE NOT passed) AS failed_gates
    FROM nearfield.gates WHERE gates.run_id = r.run_id
) AS g ON true
LEFT JOIN LATERAL (
    SELECT min(distance_min) AS distance_min, max(distance_max) AS distance_max
    FROM nearfield.load_chunks WHERE load_chunks.run_id = r.run_id
) AS c ON true
WHERE r.loaded_at IS NOT NULL AND NOT r.dropping;
COMMENT ON VIEW nearfield.run IS 'Runs that are loaded, with what was measured of each before it was published';
COMMENT ON COLUMN nearfield.run.run_id IS 'Number of the run in this database';
COMMENT ON COLUMN nearfield.run.is_current IS 'True for the one that the other views show';
COMMENT ON COLUMN nearfield.run.current_since IS 'Since when readers see it; NULL for the others';
COMMENT ON COLUMN nearfield.run.n IS 'Number of recordings';
COMMENT ON COLUMN nearfield.run.k IS 'Neighbours per recording';
COMMENT ON COLUMN nearfield.run.space IS 'l2 (Euclidean), cosine (1 - cos) or ip (negative inner product); smaller is nearer';
COMMENT ON COLUMN nearfield.run.recall IS 'Share of the true k nearest that was found, on a sample; NULL when never verified';
COMMENT ON COLUMN nearfield.run.recall_low IS 'Lower end of the 95% interval of recall';
COMMENT ON COLUMN nearfield.run.recall_asked IS 'The recall that was asked for';
COMMENT ON COLUMN nearfield.run.loaded_rows IS 'Lists in the database, counted by it; NULL for a run loaded by schema version 1';
COMMENT ON COLUMN nearfield.run.coverage IS 'Share of the recordings of the run published before that it has, too';
COMMENT ON COLUMN nearfield.run.changed_rows IS 'Share of the recordings in both whose list differs in any place';
COMMENT ON COLUMN nearfield.run.changed_neighbours IS 'Share of the neighbours of recordings in both that weren''t neighbours before';
COMMENT ON COLUMN nearfield.run.distance_min IS 'Least distance in it';
COMMENT ON COLUMN nearfield.run.distance_max IS 'Greatest distance in it';
COMMENT ON COLUMN nearfield.run.forced IS 'True when it was loaded although verification was missing or failed';
COMMENT ON COLUMN nearfield.run.failed_gates IS 'Gates that failed when last measured';
COMMENT ON COLUMN nearfield.run.matrix_created_at IS 'When the matrix was made; NULL for a run loaded by schema version 1';
COMMENT ON COLUMN nearfield.run.loaded_at IS 'When it was loaded';
COMMENT ON COLUMN nearfield.run.published_at IS 'When it was last published, rollbacks aside; NULL when never';

CREATE VIEW nearfield.run_gates AS
SELECT run_id, gate, figure, at_least, at_most, passed, detail, against, measured_at
FROM nearfield.gates;
COMMENT ON VIEW nearfield.run_gates IS 'Gates of every loaded run, one row each: figure, limits, whether it passed';
COMMENT ON COLUMN nearfield.run_gates.run_id IS 'The run';
COMMENT ON COLUMN nearfield.run_gates.gate IS 'rows, recall, recall_drop, ranges, coverage, changed_rows or changed_neighbours';
COMMENT ON COLUMN nearfield.run_gates.figure IS 'What was measured; NULL when it could not be';
COMMENT ON COLUMN nearfield.run_gates.at_least IS 'The least that passes; NULL: no such limit';
COMMENT ON COLUMN nearfield.run_gates.at_most IS 'The most that passes; NULL: no such limit';
COMMENT ON COLUMN nearfield.run_gates.passed IS 'Whether it passed';
COMMENT ON COLUMN nearfield.run_gates.detail IS 'How the figure came about';
COMMENT ON COLUMN nearfield.run_gates.against IS 'The run that it was compared with';
COMMENT ON COLUMN nearfield.run_gates.measured_at IS 'When';

CREATE VIEW nearfield.history AS
SELECT published_at, run_id, action, failed_gates FROM nearfield.publications;
COMMENT ON VIEW nearfield.history IS 'Which run was published when';
COMMENT ON COLUMN nearfield.history.published_at IS 'When';
COMMENT ON COLUMN nearfield.history.run_id IS 'The run that readers saw from then on; it may have been dropped since';
COMMENT ON COLUMN nearfield.history.action IS 'publish or rollback';
COMMENT ON COLUMN nearfield.history.failed_gates IS 'Gates that were overridden with --force';

CREATE VIEW nearfield.lists AS
SELECT "row", neighbours, distances
FROM nearfield.neighbours_all
WHERE run_id = (SELECT run_id FROM nearfield.current_run);
COMMENT ON VIEW nearfield.lists IS 'The published matrix as it is stored: row numbers instead of ids, for queries over many lists; join "row" with nearfield.recordings';
COMMENT ON COLUMN nearfield.lists."row" IS 'Row of the recording whose neighbours these are';
COMMENT ON COLUMN nearfield.lists.neighbours IS 'Rows of the k nearest recordings, nearest first';
COMMENT ON COLUMN nearfield.lists.distances IS 'Their distances, in the same order';

CREATE FUNCTION nearfield.reverse_neighbours(recording_id text, k int DEFAULT 10)
RETURNS SETOF nearfield.similar_recording
LANGUAGE plpgsql STABLE ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    own int;
BEGIN
    IF k IS NULL OR k < 1 THEN
        RAISE EXCEPTION 'expected k >= 1, got %', coalesce(k::text, 'NULL')
            USING ERRCODE = 'NF002';
    END IF;
    PERFORM nearfield.require_recording($1);
    SELECT "row" INTO own FROM nearfield.recordings WHERE recording_id = $1;
    RETURN QUERY
    SELECT (row_number() OVER (ORDER BY near.distance, near."row"))::int,
        other.recording_id, near.distance, other.labels
    FROM (
        SELECT list."row", list.distances[array_position(list.neighbours, own)] AS distance
        FROM nearfield.lists AS list
        WHERE list.neighbours @> ARRAY[own]
        ORDER BY 2, 1
        LIMIT $2
    ) AS near
    JOIN nearfield.recordings AS other ON other."row" = near."row"
    ORDER BY 1;
END
$$;
REVOKE ALL ON FUNCTION nearfield.reverse_neighbours FROM PUBLIC;
COMMENT ON FUNCTION nearfield.reverse_neighbours IS 'The k nearest of the recordings that have this one in their lists. Reads all lists (about half a second per million recordings) unless they were loaded with --reverse-index. Raises NF001 and NF002 as similar_recordings does';
