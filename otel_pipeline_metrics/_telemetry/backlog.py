"""Keep what finishes before a meter provider exists, for the provider that comes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.records import Batch, LimitBatch, QueueBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    AnyBatch = Batch | QueueBatch | LimitBatch


# calls, items and event times kept; a program without a provider keeps no more than these
BOUND: Final = 16_384


class PreConfigureBacklog:
    """The first batches before a provider exists, and the number of later calls."""

    __slots__ = ("_batches", "_kept", "_missed")

    def __init__(self) -> None:
        self._batches: deque[AnyBatch] = deque()
        self._kept = 0
        self._missed = 0

    def keep(self, batch: AnyBatch) -> None:
        """Keep a batch, or only count its calls if the backlog is full.

        Interrupted by an exception of a signal handler, it comes again, and is here twice in a row.
        """
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

    def with_those_of(self, other: PreConfigureBacklog) -> PreConfigureBacklog:
        """Return a backlog of what both hold."""
        made = PreConfigureBacklog()
        made._missed = self._missed + other._missed
        for batch in (*self._batches, *other._batches):
            made.keep(batch)
        return made

    def taking(self) -> Iterator[AnyBatch]:
        """Yield the batches, each of which stays until the next one; warn of missing ones."""
        if self._missed:
            errors.warn_once(
                "early",
                "%d calls and items from before configure() are missing in the metrics: "
                "only the first %d are kept until then",
                self._missed,
                BOUND,
            )
        while self._batches:
            yield self._batches[0]
            self._batches.popleft()
        self._kept = self._missed = 0
