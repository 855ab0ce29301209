"""A benchmark's report: a page that opens offline, and pictures. Reads results, no measuring."""

from benchmark.report.write import REPORT, write_report

__all__ = ["REPORT", "write_report"]
