SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE SCHEMA nearfield;
COMMENT ON SCHEMA nearfield IS 'Nearest neighbours of recordings, published by nearfield';
CREATE TYPE nearfield.similar_recording AS (
	rank integer,
	recording_id text,
	distance real,
	labels jsonb
);
COMMENT ON TYPE nearfield.similar_recording IS 'One row of similar_recordings';
COMMENT ON COLUMN nearfield.similar_recording.rank IS '1 for the nearest';
COMMENT ON COLUMN nearfield.similar_recording.recording_id IS 'Id of the neighbour';
COMMENT ON COLUMN nearfield.similar_recording.distance IS 'Distance in the space of the run';
COMMENT ON COLUMN nearfield.similar_recording.labels IS 'Labels of the neighbour';
CREATE FUNCTION nearfield.distance_between(a text, b text) RETURNS real
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
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
COMMENT ON FUNCTION nearfield.distance_between(a text, b text) IS 'Distance of two recordings, out of the lists: NULL where neither names the other (a recording doesn''t name itself). Raises NF001 for an unknown recording';
CREATE FUNCTION nearfield.require_recording(recording_id text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
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
COMMENT ON FUNCTION nearfield.require_recording(recording_id text) IS 'Raises NF001 unless the recording is in the published run, NF003 when none is published';
CREATE FUNCTION nearfield.similar_recordings(recording_id text, k integer DEFAULT 10) RETURNS SETOF nearfield.similar_recording
    LANGUAGE plpgsql STABLE ROWS 10
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET max_parallel_workers_per_gather TO '0'
    AS $_$
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
$_$;
COMMENT ON FUNCTION nearfield.similar_recordings(recording_id text, k integer) IS 'The k nearest recordings of one, nearest first. Raises NF001 for an unknown recording, NF002 for k < 1';
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE nearfield.current_run (
    only_row boolean DEFAULT true NOT NULL,
    run_id integer,
    CONSTRAINT current_run_only_row_check CHECK (only_row)
);
COMMENT ON TABLE nearfield.current_run IS 'One row: the run that readers see. Publishing and rollback are one UPDATE of it';
COMMENT ON COLUMN nearfield.current_run.only_row IS 'Keeps the table to one row';
COMMENT ON COLUMN nearfield.current_run.run_id IS 'NULL before the first run is published';
CREATE TABLE nearfield.neighbours_all (
    run_id integer NOT NULL,
    "row" integer NOT NULL,
    neighbours integer[] NOT NULL,
    distances real[] NOT NULL
)
PARTITION BY LIST (run_id);
ALTER TABLE ONLY nearfield.neighbours_all ALTER COLUMN neighbours SET STATISTICS 0;
ALTER TABLE ONLY nearfield.neighbours_all ALTER COLUMN neighbours SET STORAGE EXTERNAL;
ALTER TABLE ONLY nearfield.neighbours_all ALTER COLUMN distances SET STATISTICS 0;
ALTER TABLE ONLY nearfield.neighbours_all ALTER COLUMN distances SET STORAGE EXTERNAL;
COMMENT ON TABLE nearfield.neighbours_all IS 'Neighbour lists of every loaded run: one row per recording';
COMMENT ON COLUMN nearfield.neighbours_all.run_id IS 'The run';
COMMENT ON COLUMN nearfield.neighbours_all."row" IS 'Row of the recording whose neighbours these are';
COMMENT ON COLUMN nearfield.neighbours_all.neighbours IS 'Rows of the k nearest recordings, nearest first, never itself';
COMMENT ON COLUMN nearfield.neighbours_all.distances IS 'Their distances, ascending, in the space of the run';
CREATE TABLE nearfield.recordings_all (
    run_id integer NOT NULL,
    "row" integer NOT NULL,
    recording_id text NOT NULL COLLATE pg_catalog."C",
    labels jsonb NOT NULL
)
PARTITION BY LIST (run_id);
ALTER TABLE ONLY nearfield.recordings_all ALTER COLUMN labels SET STATISTICS 0;
COMMENT ON TABLE nearfield.recordings_all IS 'Recordings of every loaded run';
COMMENT ON COLUMN nearfield.recordings_all.run_id IS 'The run';
COMMENT ON COLUMN nearfield.recordings_all."row" IS 'Position 0..n-1 in the vector set; unique in a run';
COMMENT ON COLUMN nearfield.recordings_all.recording_id IS 'Public id; unique in a run';
COMMENT ON COLUMN nearfield.recordings_all.labels IS 'Label columns of the vector set (title, artist, ...); those without a value are left out';
CREATE VIEW nearfield.neighbours AS
 SELECT own.recording_id,
    ( SELECT array_agg(other.recording_id ORDER BY list.rank) AS array_agg
           FROM (unnest(found.neighbours) WITH ORDINALITY list("row", rank)
             JOIN nearfield.recordings_all other ON (((other.run_id = ( SELECT current_run.run_id
                   FROM nearfield.current_run)) AND (other."row" = list."row"))))) AS neighbour_ids,
    found.distances
   FROM (nearfield.recordings_all own
     JOIN nearfield.neighbours_all found ON (((found.run_id = ( SELECT current_run.run_id
           FROM nearfield.current_run)) AND (found."row" = own."row"))))
  WHERE (own.run_id = ( SELECT current_run.run_id
           FROM nearfield.current_run));
COMMENT ON VIEW nearfield.neighbours IS 'The published matrix, one row per recording: two arrays of length k';
COMMENT ON COLUMN nearfield.neighbours.recording_id IS 'The recording whose neighbours these are';
COMMENT ON COLUMN nearfield.neighbours.neighbour_ids IS 'Ids of the k nearest recordings, nearest first';
COMMENT ON COLUMN nearfield.neighbours.distances IS 'Their distances, in the same order';
CREATE TABLE nearfield.neighbours_1 (
    run_id integer NOT NULL,
    "row" integer NOT NULL,
    neighbours integer[] NOT NULL,
    distances real[] NOT NULL,
    CONSTRAINT neighbours_1_check CHECK (((cardinality(neighbours) = 3) AND (cardinality(distances) = 3))),
    CONSTRAINT neighbours_1_distances_check CHECK ((('-Infinity'::real < ALL (distances)) AND ('Infinity'::real > ALL (distances)))),
    CONSTRAINT neighbours_1_run_id_check CHECK ((run_id = 1))
)
WITH (toast_tuple_target='8160');
ALTER TABLE ONLY nearfield.neighbours_1 ALTER COLUMN neighbours SET STATISTICS 0;
ALTER TABLE ONLY nearfield.neighbours_1 ALTER COLUMN neighbours SET STORAGE EXTERNAL;
ALTER TABLE ONLY nearfield.neighbours_1 ALTER COLUMN distances SET STATISTICS 0;
ALTER TABLE ONLY nearfield.neighbours_1 ALTER COLUMN distances SET STORAGE EXTERNAL;
COMMENT ON COLUMN nearfield.neighbours_1.run_id IS 'The run';
COMMENT ON COLUMN nearfield.neighbours_1."row" IS 'Row of the recording whose neighbours these are';
COMMENT ON COLUMN nearfield.neighbours_1.neighbours IS 'Rows of the k nearest recordings, nearest first, never itself';
COMMENT ON COLUMN nearfield.neighbours_1.distances IS 'Their distances, ascending, in the space of the run';
CREATE TABLE nearfield.neighbours_2 (
    run_id integer NOT NULL,
    "row" integer NOT NULL,
    neighbours integer[] NOT NULL,
    distances real[] NOT NULL,
    CONSTRAINT neighbours_2_check CHECK (((cardinality(neighbours) = 3) AND (cardinality(distances) = 3))),
    CONSTRAINT neighbours_2_distances_check CHECK ((('-Infinity'::real < ALL (distances)) AND ('Infinity'::real > ALL (distances)))),
    CONSTRAINT neighbours_2_run_id_check CHECK ((run_id = 2))
)
WITH (toast_tuple_target='8160');
ALTER TABLE ONLY nearfield.neighbours_2 ALTER COLUMN neighbours SET STATISTICS 0;
ALTER TABLE ONLY nearfield.neighbours_2 ALTER COLUMN neighbours SET STORAGE EXTERNAL;
ALTER TABLE ONLY nearfield.neighbours_2 ALTER COLUMN distances SET STATISTICS 0;
ALTER TABLE ONLY nearfield.neighbours_2 ALTER COLUMN distances SET STORAGE EXTERNAL;
COMMENT ON COLUMN nearfield.neighbours_2.run_id IS 'The run';
COMMENT ON COLUMN nearfield.neighbours_2."row" IS 'Row of the recording whose neighbours these are';
COMMENT ON COLUMN nearfield.neighbours_2.neighbours IS 'Rows of the k nearest recordings, nearest first, never itself';
COMMENT ON COLUMN nearfield.neighbours_2.distances IS 'Their distances, ascending, in the space of the run';
CREATE VIEW nearfield.neighbours_flat AS
 SELECT own.recording_id,
    (list.rank)::integer AS rank,
    other.recording_id AS neighbour_id,
    list.distance
   FROM (((nearfield.recordings_all own
     JOIN nearfield.neighbours_all found ON (((found.run_id = ( SELECT current_run.run_id
           FROM nearfield.current_run)) AND (found."row" = own."row"))))
     CROSS JOIN LATERAL UNNEST(found.neighbours, found.distances) WITH ORDINALITY list("row", distance, rank))
     JOIN nearfield.recordings_all other ON (((other.run_id = ( SELECT current_run.run_id
           FROM nearfield.current_run)) AND (other."row" = list."row"))))
  WHERE (own.run_id = ( SELECT current_run.run_id
           FROM nearfield.current_run));
COMMENT ON VIEW nearfield.neighbours_flat IS 'The published matrix, one row per pair';
COMMENT ON COLUMN nearfield.neighbours_flat.recording_id IS 'The recording whose neighbour this is';
COMMENT ON COLUMN nearfield.neighbours_flat.rank IS '1 for the nearest';
COMMENT ON COLUMN nearfield.neighbours_flat.neighbour_id IS 'Id of the neighbour';
COMMENT ON COLUMN nearfield.neighbours_flat.distance IS 'Distance in the space of the run';
CREATE VIEW nearfield.recordings AS
 SELECT recordings_all."row",
    recordings_all.recording_id,
    recordings_all.labels
   FROM nearfield.recordings_all
  WHERE (recordings_all.run_id = ( SELECT current_run.run_id
           FROM nearfield.current_run));
COMMENT ON VIEW nearfield.recordings IS 'Recordings of the published run';
COMMENT ON COLUMN nearfield.recordings."row" IS 'Position in the vector set: not an id, other runs may number otherwise';
COMMENT ON COLUMN nearfield.recordings.recording_id IS 'Public id';
COMMENT ON COLUMN nearfield.recordings.labels IS 'Labels as JSON: labels->>''title''';
CREATE TABLE nearfield.recordings_1 (
    run_id integer NOT NULL,
    "row" integer NOT NULL,
    recording_id text NOT NULL COLLATE pg_catalog."C",
    labels jsonb NOT NULL,
    CONSTRAINT recordings_1_run_id_check CHECK ((run_id = 1))
);
ALTER TABLE ONLY nearfield.recordings_1 ALTER COLUMN labels SET STATISTICS 0;
COMMENT ON COLUMN nearfield.recordings_1.run_id IS 'The run';
COMMENT ON COLUMN nearfield.recordings_1."row" IS 'Position 0..n-1 in the vector set; unique in a run';
COMMENT ON COLUMN nearfield.recordings_1.recording_id IS 'Public id; unique in a run';
COMMENT ON COLUMN nearfield.recordings_1.labels IS 'Label columns of the vector set (title, artist, ...); those without a value are left out';
CREATE TABLE nearfield.recordings_2 (
    run_id integer NOT NULL,
    "row" integer NOT NULL,
    recording_id text NOT NULL COLLATE pg_catalog."C",
    labels jsonb NOT NULL,
    CONSTRAINT recordings_2_run_id_check CHECK ((run_id = 2))
);
ALTER TABLE ONLY nearfield.recordings_2 ALTER COLUMN labels SET STATISTICS 0;
COMMENT ON COLUMN nearfield.recordings_2.run_id IS 'The run';
COMMENT ON COLUMN nearfield.recordings_2."row" IS 'Position 0..n-1 in the vector set; unique in a run';
COMMENT ON COLUMN nearfield.recordings_2.recording_id IS 'Public id; unique in a run';
COMMENT ON COLUMN nearfield.recordings_2.labels IS 'Label columns of the vector set (title, artist, ...); those without a value are left out';
CREATE TABLE nearfield.runs (
    run_id integer NOT NULL,
    fingerprint text NOT NULL,
    n integer NOT NULL,
    k integer NOT NULL,
    space text NOT NULL,
    recall double precision,
    recall_low double precision,
    asked double precision NOT NULL,
    forced boolean NOT NULL,
    loaded_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    published_at timestamp with time zone,
    facts jsonb NOT NULL,
    CONSTRAINT runs_k_check CHECK ((k > 0)),
    CONSTRAINT runs_n_check CHECK ((n > 0))
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
ALTER TABLE nearfield.runs ALTER COLUMN run_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME nearfield.runs_run_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE nearfield.schema_version (
    version integer NOT NULL
);
COMMENT ON TABLE nearfield.schema_version IS 'One row: the version of this schema';
COMMENT ON COLUMN nearfield.schema_version.version IS 'Compared by nearfield before it loads';
ALTER TABLE ONLY nearfield.neighbours_all ATTACH PARTITION nearfield.neighbours_1 FOR VALUES IN (1);
ALTER TABLE ONLY nearfield.neighbours_all ATTACH PARTITION nearfield.neighbours_2 FOR VALUES IN (2);
ALTER TABLE ONLY nearfield.recordings_all ATTACH PARTITION nearfield.recordings_1 FOR VALUES IN (1);
ALTER TABLE ONLY nearfield.recordings_all ATTACH PARTITION nearfield.recordings_2 FOR VALUES IN (2);
INSERT INTO nearfield.current_run VALUES (true, 2);
INSERT INTO nearfield.neighbours_1 VALUES (1, 0, '{5,6,9}', '{0.12442088,0.4534979,0.97690594}');
INSERT INTO nearfield.neighbours_1 VALUES (1, 1, '{7,6,10}', '{0.13404167,0.38331157,0.40311295}');
INSERT INTO nearfield.neighbours_1 VALUES (1, 2, '{7,11,8}', '{0.20345521,0.5022581,0.90387183}');
INSERT INTO nearfield.neighbours_1 VALUES (1, 3, '{0,9,8}', '{0.019822478,0.2623133,0.75036466}');
INSERT INTO nearfield.neighbours_1 VALUES (1, 4, '{9,10,1}', '{0.06202072,0.28040874,0.498245}');
INSERT INTO nearfield.neighbours_1 VALUES (1, 5, '{10,11,2}', '{0.116937995,0.48519093,0.98073715}');
INSERT INTO nearfield.neighbours_1 VALUES (1, 6, '{11,0,3}', '{0.09210414,0.7491029,0.96165717}');
INSERT INTO nearfield.neighbours_1 VALUES (1, 7, '{4,1,0}', '{0.2931462,0.5412268,0.7247899}');
INSERT INTO nearfield.neighbours_1 VALUES (1, 8, '{1,5,2}', '{0.27689117,0.725875,0.924931}');
INSERT INTO nearfield.neighbours_1 VALUES (1, 9, '{2,6,3}', '{0.16065198,0.32257557,0.9699254}');
INSERT INTO nearfield.neighbours_1 VALUES (1, 10, '{3,4,7}', '{0.2929685,0.42111737,0.5160686}');
INSERT INTO nearfield.neighbours_1 VALUES (1, 11, '{8,5,4}', '{0.11586559,0.4245996,0.62348974}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 0, '{3,8,2}', '{0.6331844,0.93495107,0.9674359}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 1, '{4,9,3}', '{0.3801713,0.6830648,0.8678922}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 2, '{5,10,4}', '{0.039781153,0.18725252,0.3916248}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 3, '{11,6,5}', '{0.33298683,0.34596062,0.57973397}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 4, '{0,6,7}', '{0.51106596,0.69245934,0.89120936}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 5, '{8,7,1}', '{0.7755639,0.8770268,0.97660667}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 6, '{9,8,2}', '{0.3181466,0.9074265,0.92421687}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 7, '{3,10,9}', '{0.22378612,0.47090983,0.5694029}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 8, '{4,11,10}', '{0.1072073,0.6937588,0.70034546}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 9, '{5,0,11}', '{0.10454351,0.47694916,0.9578253}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 10, '{6,0,1}', '{0.2019074,0.4490924,0.88444966}');
INSERT INTO nearfield.neighbours_2 VALUES (2, 11, '{7,1,2}', '{0.49926913,0.5222504,0.6798114}');
INSERT INTO nearfield.recordings_1 VALUES (1, 0, 'id-0', '{"title": "title 0"}');
INSERT INTO nearfield.recordings_1 VALUES (1, 1, 'id-1', '{"title": "title 1"}');
INSERT INTO nearfield.recordings_1 VALUES (1, 2, 'id-2', '{"title": "title 2"}');
INSERT INTO nearfield.recordings_1 VALUES (1, 3, 'id-3', '{"title": "title 3"}');
INSERT INTO nearfield.recordings_1 VALUES (1, 4, 'id-4', '{"title": "title 4"}');
INSERT INTO nearfield.recordings_1 VALUES (1, 5, 'id-5', '{"title": "title 5"}');
INSERT INTO nearfield.recordings_1 VALUES (1, 6, 'id-6', '{"title": "title 6"}');
INSERT INTO nearfield.recordings_1 VALUES (1, 7, 'id-7', '{"title": "title 7"}');
INSERT INTO nearfield.recordings_1 VALUES (1, 8, 'id-8', '{"title": "title 8"}');
INSERT INTO nearfield.recordings_1 VALUES (1, 9, 'id-9', '{"title": "title 9"}');
INSERT INTO nearfield.recordings_1 VALUES (1, 10, 'id-10', '{"title": "title 10"}');
INSERT INTO nearfield.recordings_1 VALUES (1, 11, 'id-11', '{"title": "title 11"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 0, 'id-0', '{"title": "title 0"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 1, 'id-1', '{"title": "title 1"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 2, 'id-2', '{"title": "title 2"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 3, 'id-3', '{"title": "title 3"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 4, 'id-4', '{"title": "title 4"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 5, 'id-5', '{"title": "title 5"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 6, 'id-6', '{"title": "title 6"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 7, 'id-7', '{"title": "title 7"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 8, 'id-8', '{"title": "title 8"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 9, 'id-9', '{"title": "title 9"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 10, 'id-10', '{"title": "title 10"}');
INSERT INTO nearfield.recordings_2 VALUES (2, 11, 'id-11', '{"title": "title 11"}');
INSERT INTO nearfield.runs OVERRIDING SYSTEM VALUE VALUES (1, '85b759256f791879', 12, 3, 'l2', 0.97, 0.96, 0.9, false, '2026-11-21 10:29:20.879734+00', '2026-11-21 10:29:20.93158+00', '{"run": {"d": 2, "k": 3, "n": 12, "seed": 1, "space": "l2", "method": "exact", "recall": 0.9, "vectors": "vectors", "vectors_fingerprint": "a894a7f5340a8966"}, "labels": ["title"], "versions": {"dask": "2026.8.0", "h5py": "3.16.0", "numpy": "2.4.6", "python": "3.11.7", "pyarrow": "26.0.1", "faiss-cpu": "1.15.1", "nearfield": "0.1.0"}, "matrix_sha256": "82e025b7de5a6afd7223d37493d602ab1d354f6bef8f2f4e05fed9afa04ea0e2", "run_fingerprint": "980afe4bf22ec2c7"}');
INSERT INTO nearfield.runs OVERRIDING SYSTEM VALUE VALUES (2, '16cc2634b3ef8b8d', 12, 3, 'l2', 0.97, 0.96, 0.9, false, '2026-11-21 10:29:21.004517+00', '2026-11-21 10:29:21.038132+00', '{"run": {"d": 2, "k": 3, "n": 12, "seed": 2, "space": "l2", "method": "exact", "recall": 0.9, "vectors": "vectors", "vectors_fingerprint": "406907b0006f2501"}, "labels": ["title"], "versions": {"dask": "2026.8.0", "h5py": "3.16.0", "numpy": "2.4.6", "python": "3.11.7", "pyarrow": "26.0.1", "faiss-cpu": "1.15.1", "nearfield": "0.1.0"}, "matrix_sha256": "7fc145f5b26bd94cdae0c84ebb3f94dcea63b5684004a1e13a9ec22f63443876", "run_fingerprint": "c6d078a3a1b9def6"}');
INSERT INTO nearfield.schema_version VALUES (1);
SELECT pg_catalog.setval('nearfield.runs_run_id_seq', 2, true);
ALTER TABLE ONLY nearfield.current_run
    ADD CONSTRAINT current_run_pkey PRIMARY KEY (only_row);
ALTER TABLE ONLY nearfield.neighbours_1
    ADD CONSTRAINT neighbours_1_pkey PRIMARY KEY ("row");
ALTER TABLE ONLY nearfield.neighbours_2
    ADD CONSTRAINT neighbours_2_pkey PRIMARY KEY ("row");
ALTER TABLE ONLY nearfield.recordings_1
    ADD CONSTRAINT recordings_1_pkey PRIMARY KEY ("row");
ALTER TABLE ONLY nearfield.recordings_1
    ADD CONSTRAINT recordings_1_recording_id_key UNIQUE (recording_id);
ALTER TABLE ONLY nearfield.recordings_2
    ADD CONSTRAINT recordings_2_pkey PRIMARY KEY ("row");
ALTER TABLE ONLY nearfield.recordings_2
    ADD CONSTRAINT recordings_2_recording_id_key UNIQUE (recording_id);
ALTER TABLE ONLY nearfield.runs
    ADD CONSTRAINT runs_fingerprint_key UNIQUE (fingerprint);
ALTER TABLE ONLY nearfield.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (run_id);
ALTER TABLE ONLY nearfield.current_run
    ADD CONSTRAINT current_run_run_id_fkey FOREIGN KEY (run_id) REFERENCES nearfield.runs(run_id);
GRANT USAGE ON SCHEMA nearfield TO nearfield_read;
REVOKE ALL ON FUNCTION nearfield.distance_between(a text, b text) FROM PUBLIC;
GRANT ALL ON FUNCTION nearfield.distance_between(a text, b text) TO nearfield_read;
REVOKE ALL ON FUNCTION nearfield.require_recording(recording_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION nearfield.require_recording(recording_id text) TO nearfield_read;
REVOKE ALL ON FUNCTION nearfield.similar_recordings(recording_id text, k integer) FROM PUBLIC;
GRANT ALL ON FUNCTION nearfield.similar_recordings(recording_id text, k integer) TO nearfield_read;
GRANT SELECT ON TABLE nearfield.neighbours TO nearfield_read;
GRANT SELECT ON TABLE nearfield.neighbours_flat TO nearfield_read;
GRANT SELECT ON TABLE nearfield.recordings TO nearfield_read;
