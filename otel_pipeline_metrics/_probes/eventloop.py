"""How late an event loop comes round: a heartbeat that notes by how much it was missed.

A callback asks to be called after `INTERVAL_S`; by how much it is called too late is the time
for which something held the loop up. It costs the loop about two microseconds a beat.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import clock, errors
from otel_pipeline_metrics._core.quantile_sketch import Sketch

if TYPE_CHECKING:
    from collections.abc import Callable


INTERVAL_S: Final = 0.05


class Heartbeat:
    """Beats on the loop that runs where it is started; nothing happens where none runs."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        """Nothing beats yet.

        Args:
            tell: is called with each delay in seconds.
        """
        self._tell = tell
        self._loop: Any = None
        self._handle: Any = None
        self._due = 0.0
        self._sketch = Sketch()
        self._total_s = 0.0
        self._max_s = 0.0
        self._count = 0

    def start(self) -> None:
        """Begin, if an asyncio loop runs in this thread."""
        asyncio = sys.modules.get("asyncio")
        if asyncio is None:
            return
        self._loop = asyncio._get_running_loop()  # noqa: SLF001 - documented for such use
        if self._loop is not None:
            self._arm()

    def stop(self) -> None:
        """Beat no more; a loop that is closed by then has forgotten it anyway."""
        if self._handle is not None:
            self._handle.cancel()
            # a loop that is held up right now was late already: that counts too
            self._note(max(0.0, clock.now() - self._due))
        self._handle = self._loop = None

    def _arm(self) -> None:
        self._due = clock.now() + INTERVAL_S
        self._handle = self._loop.call_later(INTERVAL_S, self._beat)

    def _beat(self) -> None:
        with errors.suppress_errors("the event loop's heartbeat"):
            self._note(max(0.0, clock.now() - self._due))
            self._arm()

    def _note(self, delay: float) -> None:
        self._count += 1
        self._total_s += delay
        self._max_s = max(self._max_s, delay)
        self._sketch.add_sorted([delay])
        self._tell(delay)

    def summary(self) -> dict[str, float | int | None] | None:
        """Return the beats' count, and avg, p50, p95, p99 and max delay in seconds.

        None where no loop ran, or none came round yet.
        """
        if not self._count:
            return None
        percentiles = self._sketch.percentiles(None, self._max_s)
        avg = self._total_s / self._count
        return {"count": self._count, "avg": avg, **percentiles, "max": self._max_s}
