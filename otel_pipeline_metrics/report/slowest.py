"""Show the slowest calls that a report has kept, with what is known of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import entries, get_path, number, ratio
from otel_pipeline_metrics.report.flow import trace_link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


# calls of each stage, and of all
MOST_OF_A_STAGE: Final = 3
MOST: Final = 60


class SlowCall(NamedTuple):
    """One of the slowest calls of a stage, in words."""

    stage: str
    duration: str
    # how many times the median
    times: str
    attributes: list[tuple[str, str]]
    result: str
    trace_id: str
    link: str | None


class SlowCalls(NamedTuple):
    """The rows, and which columns have anything in them."""

    rows: list[SlowCall]
    attributes: bool
    result: bool
    trace: bool


def table(report: RunReport, ordered: Sequence[dict[str, Any]]) -> SlowCalls:
    """Return the slowest calls of each stage, in the order of the flow.

    A stage with a single call has none: its duration is in the other tables.
    """
    rows = [
        _row(report, stage, call)
        for stage in ordered
        if (number(stage, "count") or 0) > 1
        for call in entries(stage, "slowest")[:MOST_OF_A_STAGE]
    ][:MOST]
    return SlowCalls(
        rows,
        any(row.attributes for row in rows),
        any(row.result for row in rows),
        any(row.trace_id for row in rows),
    )


def _row(report: RunReport, stage: dict[str, Any], call: dict[str, Any]) -> SlowCall:
    seconds = number(call, "duration_s")
    times = ratio(seconds, number(stage, "duration_s", "p50"))
    attributes = get_path(call, "attributes")
    trace_id = call.get("trace_id")
    outcome = call.get("outcome")
    result = call.get("error_type") or ("" if outcome in {None, "ok"} else outcome)
    return SlowCall(
        stage=str(stage["name"]),
        duration=text.duration(seconds),
        times="" if times is None else f"{text.number(float(f'{times:.2g}'))}\u00d7",
        attributes=[(str(key), _value(value)) for key, value in attributes.items()]
        if isinstance(attributes, dict)
        else [],
        result=str(result),
        trace_id=trace_id if isinstance(trace_id, str) else "",
        link=trace_link(report, trace_id),
    )


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
