-- What readers may: look at the views, call the functions, touch no table. Run after the migrations
-- where the role nearfield_read exists.
GRANT USAGE ON SCHEMA nearfield TO nearfield_read;
GRANT SELECT ON nearfield.recordings, nearfield.neighbours, nearfield.neighbours_flat, nearfield.lists,
    nearfield.run, nearfield.run_gates, nearfield.history
    TO nearfield_read;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA nearfield TO nearfield_read;
