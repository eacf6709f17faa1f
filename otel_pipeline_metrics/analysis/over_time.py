"""Tell what limited a run when, if that changed: from the busiest stage of each window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import entries, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics.analysis.facts import Facts


# A part of the run that is shorter is not told.
WORTH: Final = 0.15
# A stage that is less busy limits no window.
BUSY: Final = 0.5


def when(data: Mapping[str, Any], facts: Facts) -> str | None:
    """Return which stage was the busiest when; None if that hardly changed."""
    spans: list[tuple[str, float, float]] = []
    for window in entries(data, "windows"):
        begin, end = number(window, "start_s"), number(window, "end_s")
        if begin is None or end is None or end <= begin:
            continue
        name = _busiest(window, end - begin, facts)
        if spans and spans[-1][0] == name:
            spans[-1] = name, spans[-1][1], end
        elif name is not None:
            spans.append((name, begin, end))
    long = _joined([span for span in spans if span[2] - span[1] >= WORTH * facts.wall_s])
    if len(long) < 2:
        return None
    told = [
        f"{name} from {text.duration(begin)} to {text.duration(end)}" for name, begin, end in long
    ]
    return f"The busiest stage changed: {text.listed(told)}."


def _joined(spans: list[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Join neighbours of the same name; what was between them was short."""
    found: list[tuple[str, float, float]] = []
    for name, begin, end in spans:
        if found and found[-1][0] == name:
            found[-1] = name, found[-1][1], end
        else:
            found.append((name, begin, end))
    return found


def _busiest(window: Mapping[str, Any], seconds: float, facts: Facts) -> str | None:
    """Return the stage whose workers were busy for most of a window."""
    shares: dict[str, float] = {}
    workers = {name: group.workers for group in facts.groups for name in group.names}
    for stage in entries(window, "stages"):
        name, busy = str(stage.get("name")), number(stage, "time_s", "busy")
        part = facts.parts.get(name)
        at_a_time = workers.get(name) or (part.most if part is not None else None)
        if busy is not None and at_a_time and (part is None or part.within is None):
            shares[name] = busy / at_a_time / seconds
    most = max(shares, key=shares.__getitem__, default=None)
    return most if most is not None and shares[most] >= BUSY else None
