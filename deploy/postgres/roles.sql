-- For an administrator of a shared server, once, in the database that is to hold the matrix. Not
-- needed for the embedded server, or when nearfield connects as a role that may create roles.
--
--   psql -d DATABASE -f roles.sql
--   nearfield_load  loads and publishes: owns the schema nearfield and all that is in it
--   nearfield_read  reads: GRANT nearfield_read TO some_user;
CREATE ROLE nearfield_read NOLOGIN;
COMMENT ON ROLE nearfield_read IS 'May read what nearfield publishes';
CREATE ROLE nearfield_load LOGIN;
COMMENT ON ROLE nearfield_load IS 'Loads and publishes runs of nearfield';
DO $$
BEGIN
    -- a run that was updated is loaded with the help of a temporary table
    EXECUTE format('GRANT CREATE, TEMPORARY ON DATABASE %I TO nearfield_load', current_database());
END
$$;
-- to see how old the snapshots of readers are, before a run that they may still read is dropped
GRANT pg_read_all_stats TO nearfield_load;
