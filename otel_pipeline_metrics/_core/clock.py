"""The clock that everything reads, so that a test can patch one place and assert exact numbers.

Callers say `clock.now()` and never bind the function, or a patch would not reach them.
"""

from __future__ import annotations

import time

now = time.perf_counter
"""Seconds on a monotonic clock; only differences mean anything."""

unix = time.time
"""Seconds since the Unix epoch."""
