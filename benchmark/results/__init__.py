"""What a benchmark measured: the row of the table, result files, growth with n, exports."""
