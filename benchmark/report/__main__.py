"""`python -m benchmark.report DIR`: the report of a benchmark's directory, once more."""

from benchmark.report.write import main

main()
