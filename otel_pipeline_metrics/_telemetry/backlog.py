"""Keep what finishes before a meter provider exists, for the provider that comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.records import Batch, LimitBatch, QueueBatch

if TYPE_CHECKING:
    AnyBatch = Batch | QueueBatch | LimitBatch


# calls, items and event times kept; a program without a provider keeps no more than these
BOUND: Final = 16_384


class PreConfigureBacklog:
    """The first batches before a provider exists, and the number of later calls."""

    __slots__ = ("_batches", "_kept", "_missed")

    def __init__(self) -> None:
        self._batches: list[AnyBatch] = []
        self._kept = 0
        self._missed = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    def keep(self, batch: AnyBatch) -> None:
        """Keep a batch, or only count its calls if the backlog is full."""
        if isinstance(batch, QueueBatch):
            size = len(batch.waits)
        elif isinstance(batch, LimitBatch):
            size = len(batch.waits) + batch.passed
        else:
            size = len(batch.durations) + len(batch.results) + len(batch.event_times)
        if self._kept + size > BOUND:
            self._missed += size
        else:
            self._kept += size
            self._batches.append(batch)

    def take(self) -> list[AnyBatch]:
        """Empty the backlog and return its batches; warn of those that are missing."""
        if self._missed:
            errors.warn_once(
                "early",
                "%d calls and items from before configure() are missing in the metrics: "
                "only the first %d are kept until then",
                self._missed,
                BOUND,
            )
        taken = self._batches
        self._batches, self._kept, self._missed = [], 0, 0
        return taken
