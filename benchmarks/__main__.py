"""Measure what a call costs: `python -m benchmarks`."""

from benchmarks.costs import main

main()
