"""Keep the latest samples of a measurement, and what sums up all of them."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from otel_pipeline_metrics._core import clock, settings
from otel_pipeline_metrics._core.distribution import Distribution
from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.quantile_sketch import is_largest


class History:
    """The durations of one kind of work, in seconds.

    The latest `history_size` ones are kept one by one.
    """

    def __init__(self) -> None:
        self._distribution = Distribution()
        # (`clock.now()`, seconds) of the latest ones, the newest last
        self._latest: deque[tuple[float, float]] = deque()
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        # re-entrant, since a signal handler may add while its thread does
        self._lock = threading.RLock()

    def add(self, seconds: float, at: float) -> None:
        """Add one sample, which ended at `at` on `clock.now`."""
        size = settings.settings().history_size
        with self._lock:
            self._latest.append((at, seconds))
            while len(self._latest) > size:
                self._latest.popleft()
            self._distribution.add_sorted([seconds])

    @property
    def count(self) -> int:
        """How many samples there were."""
        return self._distribution.count

    def share(self, part: float) -> float | None:
        """Return a part of all samples, 0 to 1; None without a sample."""
        return ratio(part, self.count)

    def rate(self) -> float | None:
        """Return samples per second, from the oldest sample that is kept until now.

        None before there are two, or if no time has passed.
        """
        with self._lock:
            kept, oldest = len(self._latest), self._latest[0][0] if self._latest else 0.0
        elapsed = clock.now() - oldest
        return (kept - 1) / elapsed if kept > 1 and elapsed > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return all samples' sums, and quantiles of the latest ones.

        A quantile is the sample of rank floor(q (n - 1)), counted from zero, as in the sketch;
        below 100 samples p99 is the largest, and below 20 p95 is too.
        """
        with self._lock:
            latest = sorted(seconds for _, seconds in self._latest)
            whole = self._distribution
            found: dict[str, Any] = {
                "count": whole.count,
                "total": whole.total_s,
                "avg": ratio(whole.total_s, whole.count),
                "max": whole.max_s if whole.count else None,
                "samples": len(latest),
            }
            overall = whole.sketch.percentiles(None, whole.max_s)
        for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            rank = 1 if is_largest(q, len(latest)) else q
            found[name] = latest[int(rank * (len(latest) - 1))] if latest else None
        found["overall"] = overall
        return found
