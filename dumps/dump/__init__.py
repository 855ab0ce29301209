"""A run as files for others: a stamped directory of HDF5, Parquet and CSV that explains itself.

write.write_dump() makes one, check.check_dump() examines a downloaded one with code of its own,
retention says which old ones go. Refuses to know a database.
"""
