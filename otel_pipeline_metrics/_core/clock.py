"""Read the time in one place that tests can patch to assert exact numbers.

Call it as `clock.now()`: a name bound to the function would miss the patch.
"""

from __future__ import annotations

import time

# Seconds on a monotonic clock; only differences are meaningful.
now = time.perf_counter

# Seconds since the Unix epoch.
unix = time.time
