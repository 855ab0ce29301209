"""Data that the benchmark measures on."""
