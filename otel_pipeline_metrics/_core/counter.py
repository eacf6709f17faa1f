"""A count that threads, signal handlers and gc callbacks may raise without a lock."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

from otel_pipeline_metrics._core.process import forking

if TYPE_CHECKING:
    from collections.abc import Callable


class Counter:
    """Counts up; a forked child starts again at zero."""

    __slots__ = ("__weakref__", "_count", "_lock", "_reads", "add")

    def __init__(self) -> None:
        self.reset()
        forking.watch(self)

    def reset(self) -> None:
        """Start again at zero."""
        self._count = itertools.count()
        # Call it to count one more: it is atomic, unlike adding to a number.
        self.add: Callable[[], object] = self._count.__next__
        self._reads = 0
        self._lock = threading.RLock()  # a signal handler may read in the middle of a read

    after_fork = reset

    def value(self) -> int:
        """Return the count."""
        with self._lock:
            # reading takes a number as well, so earlier reads are subtracted
            found = next(self._count) - self._reads
            self._reads += 1
            return found
