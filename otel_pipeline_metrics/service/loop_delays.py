"""Remember how late an event loop has been in the last minute."""

from __future__ import annotations

from collections import deque
from typing import Final

from otel_pipeline_metrics._core import clock
from otel_pipeline_metrics._probes.eventloop import INTERVAL_S, Heartbeat

# Delays are remembered for so long.
MEMORY_S: Final = 60.0

# Shorter delays are not remembered: no threshold of health is below.
_LEAST_S: Final = 0.1
_MAX_REMEMBERED: Final = 1000


class LoopDelays:
    """The delays of the event loop that runs where `start()` is called."""

    def __init__(self) -> None:
        self._heartbeat = Heartbeat()
        self._late: deque[tuple[float, float]] = deque(maxlen=_MAX_REMEMBERED)
        self._last_beat: float | None = None

    def start(self) -> None:
        """Begin to measure."""
        if self._heartbeat.start(self._note):
            self._last_beat = clock.now()

    def stop(self) -> None:
        """Stop measuring."""
        self._last_beat = None
        self._heartbeat.stop()

    def _note(self, delay: float) -> None:
        now = clock.now()
        if self._last_beat is not None:
            self._last_beat = now
        if delay >= _LEAST_S:
            self._late.append((now, delay))

    def worst(self) -> float | None:
        """Return the longest delay of the last minute, one in progress included.

        None if nothing is measured.
        """
        last_beat = self._last_beat
        if last_beat is None:
            return None
        now = clock.now()
        recent = [delay for at, delay in list(self._late) if now - at <= MEMORY_S]
        return max([0.0, now - last_beat - INTERVAL_S, *recent])
