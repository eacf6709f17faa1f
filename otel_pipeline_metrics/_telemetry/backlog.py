"""What finishes before there is a provider that takes metrics: kept for the one that comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.records import Batch, QueueBatch

if TYPE_CHECKING:
    AnyBatch = Batch | QueueBatch


BOUND: Final = 16_384
"""Invocations and items kept; a program that nobody configures keeps no more than these."""


class PreConfigureBacklog:
    """Batches that wait for a provider: the first ones, and the number of those past the bound."""

    __slots__ = ("_batches", "_kept", "_missed")

    def __init__(self) -> None:
        self._batches: list[AnyBatch] = []
        self._kept = 0
        self._missed = 0

    def __bool__(self) -> bool:
        return bool(self._batches)

    def keep(self, batch: AnyBatch) -> None:
        """Keep a batch, or count what is in it where there are enough."""
        if isinstance(batch, QueueBatch):
            size = len(batch.waits)
        else:
            size = len(batch.durations) + len(batch.results)
        if self._kept + size > BOUND:
            self._missed += size
        else:
            self._kept += size
            self._batches.append(batch)

    def take(self) -> list[AnyBatch]:
        """Return what is kept, and keep it no longer; what is missing is said."""
        if self._missed:
            errors.warn_once(
                "early",
                "%d invocations and items from before configure() are not among the metrics: "
                "the first %d are kept until then",
                self._missed,
                BOUND,
            )
        taken = self._batches
        self._batches, self._kept, self._missed = [], 0, 0
        return taken
