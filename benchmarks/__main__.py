"""`python -m benchmarks`: what a call costs."""

from benchmarks.costs import main

main()
