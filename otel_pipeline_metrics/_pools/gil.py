"""Tell whether the GIL keeps more threads from helping."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._probes.resources import contention

# The latest moments that count, and how many of them must have been looked at.
_MOMENTS: Final = 40
_LEAST: Final = 8

# From this part of the time on, the GIL is what threads wait for.
_HELD: Final = 0.8


class Gil:
    """How often a thread that woke had to wait for the GIL."""

    def __init__(self) -> None:
        self._held: deque[bool] = deque(maxlen=_MOMENTS)

    def sample(self, seconds: float) -> None:
        """Sleep, and see whether the GIL is held after it; `contention` tells how."""
        before = contention.voluntary_switches() if contention.gil_enabled() else None
        began = clock.monotonic()
        time.sleep(seconds)
        # a sleep that somebody replaced, and that takes no time, tells nothing
        if before is None or clock.monotonic() - began < seconds / 2:
            return
        now = contention.voluntary_switches()
        if now is not None and now > before:
            self._held.append(now > before + 1)

    def bound(self) -> str | None:
        """Return why more threads do not help, if they do not."""
        if len(self._held) < _LEAST:
            return None
        share = sum(self._held) / len(self._held)
        return None if share < _HELD else f"the GIL is held {100 * share:.0f} % of the time"
