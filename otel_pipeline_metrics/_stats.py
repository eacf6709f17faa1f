"""Streaming statistics of a run's stages: what the report is made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from otel_pipeline_metrics import _sketch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics._model import Batch, StageKey, StageResult


class StageStats:
    """Everything that one run knows of one stage. Times are in seconds."""

    def __init__(self, key: StageKey) -> None:
        self.key = key
        self.count = 0
        self.cancelled = 0
        self.abandoned = 0
        self.errors: dict[str, int] = {}
        self.retries = 0
        self.items_in: int | None = None
        self.items_out: int | None = None
        self.bytes_in: int | None = None
        self.bytes_out: int | None = None
        self.total_s = 0.0
        self.min_s = math.inf
        self.max_s = 0.0
        self.sketch = _sketch.Sketch()

    def add_sorted(self, durations: Sequence[float]) -> None:
        """Add the durations, sorted upwards, of one invocation or more."""
        self.count += len(durations)
        self.total_s += sum(durations)
        self.min_s = min(self.min_s, durations[0])
        self.max_s = max(self.max_s, durations[-1])
        self.sketch.add_sorted(durations)

    def add(self, result: StageResult) -> None:
        """Add what one invocation says beside its duration."""
        if result.outcome == "error":
            kind = result.error_type or "_OTHER"
            self.errors[kind] = self.errors.get(kind, 0) + 1
        elif result.outcome == "cancelled":
            self.cancelled += 1
        elif result.outcome == "abandoned":
            self.abandoned += 1
        self.retries += sum(count for _, count in result.retries)
        self.items_in = _plus(self.items_in, result.items_in)
        self.items_out = _plus(self.items_out, result.items_out)
        self.bytes_in = _plus(self.bytes_in, result.bytes_in)
        self.bytes_out = _plus(self.bytes_out, result.bytes_out)

    def to_dict(self, wall_s: float) -> dict[str, Any]:
        """Return the stage's part of the report; unknown is None, never 0."""
        items = self.items_out if self.items_out is not None else self.items_in
        return {
            "name": self.key.stage,
            "kind": self.key.kind,
            "workers": None,
            "count": self.count,
            "cancelled": self.cancelled,
            "abandoned": self.abandoned,
            "errors": {"total": sum(self.errors.values()), "by_type": dict(self.errors)},
            "retries": self.retries,
            "items": {"in": self.items_in, "out": self.items_out},
            "bytes": {"in": self.bytes_in, "out": self.bytes_out},
            "duration_s": {
                "total": self.total_s,
                "avg": _ratio(self.total_s, self.count),
                "min": self.min_s if self.count else None,
                "max": self.max_s if self.count else None,
                "p50": self._quantile(0.5),
                "p95": self._quantile(0.95),
                "p99": self._quantile(0.99),
                "rel_error": _sketch.REL_ERROR,
            },
            "throughput": {
                "wall_per_s": _ratio(self.count, wall_s),
                "busy_per_s": _ratio(self.count, self.total_s),
                "items_per_s": None if items is None else _ratio(items, wall_s),
            },
            "share": {"busy": None, "idle": None, "blocked": None},
            "cpu_s": None,
        }

    def _quantile(self, q: float) -> float | None:
        value = self.sketch.quantile(q)
        # the sketch's error may not carry a quantile past what was really seen
        return None if value is None else min(max(value, self.min_s), self.max_s)


class RunStats:
    """The sink of one run: its stages, in the order in which they first finished."""

    def __init__(self) -> None:
        self.stages: dict[StageKey, StageStats] = {}

    def accept(self, batch: Batch) -> None:
        """Add a batch to its stage."""
        stats = self.stages.get(batch.key)
        if stats is None:
            stats = self.stages[batch.key] = StageStats(batch.key)
        if batch.plain:
            stats.add_sorted(batch.plain)
        if batch.results:
            stats.add_sorted(sorted(result.busy_s for result in batch.results))
        for result in batch.results:
            stats.add(result)

    def to_list(self, wall_s: float) -> list[dict[str, Any]]:
        """Return the stages' part of the report."""
        return [stats.to_dict(wall_s) for stats in list(self.stages.values())]


def _plus(total: int | None, more: int | None) -> int | None:
    return total if more is None else (total or 0) + more


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
