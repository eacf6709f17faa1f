"""Tell whether the GIL keeps more threads from helping."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from otel_pipeline_metrics._probes.resources import contention

# The latest moments that count, and how many of them must have been looked at.
_MOMENTS: Final = 40
_LEAST: Final = 8

# From this part of the time on, the GIL is what threads wait for.
_HELD: Final = 0.7

# Less CPU than this cannot be a held GIL: something else woke the thread late.
_LEAST_CPUS: Final = 0.6


class Gil:
    """How often a thread that woke had to wait for the GIL."""

    def __init__(self) -> None:
        self._held: deque[bool] = deque(maxlen=_MOMENTS)

    def sample(self, seconds: float) -> None:
        """Sleep, and see whether the GIL is held after it; `contention` tells how."""
        before = contention.voluntary_switches() if contention.gil_enabled() else None
        time.sleep(seconds)
        if before is None:
            return
        now = contention.voluntary_switches()
        if now is not None and now > before:
            self._held.append(now > before + 1)

    def bound(self, cpus: float) -> str | None:
        """Return why more threads do not help, if they do not.

        Args:
            cpus: that the process used lately.
        """
        if len(self._held) < _LEAST or cpus < _LEAST_CPUS:
            return None
        share = sum(self._held) / len(self._held)
        return None if share < _HELD else f"the GIL is held {100 * share:.0f} % of the time"
