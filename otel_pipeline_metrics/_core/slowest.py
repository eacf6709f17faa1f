"""Keep which calls with a span were the slowest, at the cost of one comparison for each other."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.series import Series


# how many of the slowest calls of a stage a report keeps
SLOWEST: Final = 5

_duration = itemgetter(0)


def keep_slowest(series: Series, elapsed: float, context: Any) -> None:
    """Keep a call if it may be one of the slowest of its series.

    Args:
        series: of the call.
        elapsed: its duration, as it is in `Series.durations`.
        context: the OpenTelemetry context of its span.
    """
    kept = series.slowest
    kept.append((elapsed, context))
    if len(kept) >= 2 * SLOWEST:
        # A new list: another thread, or a finalizer that runs in here, appends to the old one.
        # What it adds meanwhile is not kept.
        series.slowest = sorted(kept, key=_duration, reverse=True)[:SLOWEST]
        series.slow_from = series.slowest[-1][0]
