"""Decide how many spans a stage may make, and which calls count as slow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import clock

if TYPE_CHECKING:
    from collections.abc import Sequence


# Spans that a stage may make at once before the rate per second limits it.
SPAN_BURST: Final = 1000

# Once the budget is spent, only every so many calls look at the clock.
CALLS_PER_REFILL: Final = 16

SLOW_QUANTILE: Final = 0.99

# A batch of fewer durations does not change what counts as slow.
MIN_DURATIONS: Final = 100

# Spans that each stage may make a second, averaged over time; None: no limit.
spans_per_second: float | None = 100.0


class SpanBudget:
    """The spans that one stage may still make, with all its callers."""

    __slots__ = (
        "calls_without_span", "late_left", "refilled_at", "slow_s", "spans_left", "spans_made",
    )  # fmt: skip

    def __init__(self) -> None:
        self.spans_made = 0
        self.calls_without_span = 0  # since the last batch
        self.reset_budget()

    def reset_budget(self) -> None:
        """Start with a full budget."""
        rate = spans_per_second
        burst = math.inf if rate is None else SPAN_BURST if rate else 0
        # while some are left, every call has a span
        self.spans_left: float = burst
        # the same for spans that are made after the call: of failed and of slow calls
        self.late_left: float = burst
        # a call without a span that takes longer gets a late one
        self.slow_s = math.inf
        self.refilled_at = clock.now()

    def refill(self) -> bool:
        """Add what the time since the last refill allows; tell whether a span is left."""
        rate = spans_per_second
        if rate is None:
            return self.spans_left >= 1
        now = clock.now()
        more = (now - self.refilled_at) * rate
        if more < 1:
            return self.spans_left >= 1
        self.refilled_at = now
        self.spans_left = min(SPAN_BURST, self.spans_left + more)
        self.late_left = min(SPAN_BURST, self.late_left + more)
        return True

    def skip_span(self) -> bool:
        """Tell whether a call goes without a span, now that the budget is spent."""
        self.calls_without_span += 1
        return self.calls_without_span % CALLS_PER_REFILL != 0 or not self.refill()

    def update_slow_threshold(self, durations: Sequence[float]) -> None:
        """Learn from a batch of sorted durations which calls are slow."""
        all_had_spans, self.calls_without_span = not self.calls_without_span, 0
        self.refill()
        if all_had_spans or self.late_left < 1 or len(durations) < MIN_DURATIONS:
            self.slow_s = math.inf
        else:
            self.slow_s = durations[int(len(durations) * SLOW_QUANTILE)]
