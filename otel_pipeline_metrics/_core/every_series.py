"""Change what every series of every run has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import nesting, span_budget
from otel_pipeline_metrics._core.series import CELL_WITHOUT_SPAN, all_series, scopes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics._core.stage_id import StageId


def withdraw(attributes: Sequence[tuple[StageId, str]]) -> None:
    """Remove fixed attributes from their stages, and build those of spans anew."""
    for stage, key in attributes:
        stage.attributes.pop(key, None)
    for series in all_series():
        series.cache = None


def limit_spans(per_second: float | None) -> None:
    """Give every stage a new budget of spans; None: no limit."""
    span_budget.spans_per_second = per_second
    for series in all_series():
        series.budget.reset_budget()


def find_anew() -> None:
    """Have the hot path find every series anew."""
    for scope in list(scopes):
        scope.turns.clear()
    for series in all_series():
        for each in (series, *series.pulled):
            each.turns.clear()


def hand_over_spans() -> None:
    """Have the calls in progress end their spans by themselves, without the tracer in force."""
    for series in all_series():
        for cell in series.open:
            if len(cell) > CELL_WITHOUT_SPAN:
                nesting.have_execution(cell)
