"""Measure how late an asyncio event loop runs its callbacks.

A callback asks to be called after `INTERVAL_S`; the time by which the call is late is the time
for which the loop was held up. It costs the loop about two microseconds each time.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors, settings
from otel_pipeline_metrics._core.distribution import Distribution

if TYPE_CHECKING:
    from collections.abc import Callable


INTERVAL_S: Final = 0.05


class Heartbeat:
    """A repeated callback on the event loop that runs in the starting thread."""

    def __init__(self) -> None:
        self._on_delay: Callable[[float], None] = _ignore
        self._loop: Any = None
        self._handle: Any = None
        self._due = 0.0
        self._delays = Distribution()

    def start(self, on_delay: Callable[[float], None]) -> bool:
        """Begin, if an asyncio loop runs in this thread and the settings do not forbid it.

        Args:
            on_delay: called with each delay in seconds, until the end.

        Returns:
            Whether it began.
        """
        asked = settings.settings()
        asyncio = sys.modules.get("asyncio")
        if asyncio is None or not (asked.monitoring_enabled and asked.enable_performance_metrics):
            return False
        self._loop = asyncio._get_running_loop()
        if self._loop is not None:
            self._on_delay = on_delay
            self._schedule()
        return self._loop is not None

    def stop(self) -> None:
        """End the callbacks; a closed loop has dropped them already."""
        if self._handle is not None:
            self._handle.cancel()
            # a loop that is held up right now is late already, and that counts too
            self._note_delay()
        self._handle = self._loop = None
        self._on_delay = _ignore

    def _schedule(self) -> None:
        self._due = clock.now() + INTERVAL_S
        self._handle = self._loop.call_later(INTERVAL_S, self._beat)

    def _beat(self) -> None:
        with errors.suppress_errors("the event loop's heartbeat"):
            self._note_delay()
            self._schedule()

    def _note_delay(self) -> None:
        delay = max(0.0, clock.now() - self._due)
        self._delays.add_sorted([delay])
        self._on_delay(delay)

    def summary(self) -> dict[str, float | int | None] | None:
        """Return the count, and avg, p50, p95, p99 and max delay in seconds.

        None if there was no loop, or if it has not called back yet.
        """
        delays = self._delays
        if not delays.count:
            return None
        return {
            "count": delays.count,
            "avg": delays.total_s / delays.count,
            **delays.sketch.percentiles(None, delays.max_s),
            "max": delays.max_s,
        }


def _ignore(_: float) -> None:
    """Take a delay before the start or after the end."""
