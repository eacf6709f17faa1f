"""Tests of what `opm top` looks at."""
