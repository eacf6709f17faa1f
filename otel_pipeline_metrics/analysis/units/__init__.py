"""The kinds of verdict: each a check with its thresholds, its words and its witnesses.

The first one that finds something, and that none of its witnesses vetoes, is the verdict. What
distorts the times of all stages comes first; the rest follows the largest bound of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from otel_pipeline_metrics.analysis.units import (
    computing,
    errors,
    event_loop,
    limit,
    serial,
    stage,
    steps,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics.analysis.case import Case
    from otel_pipeline_metrics.analysis.findings import Verdict


class Unit(NamedTuple):
    """One or two kinds of verdict, and the function that finds them."""

    kinds: tuple[str, ...]
    check: Callable[[Case], Verdict | None]


UNITS: Final = (
    Unit(("cpu",), computing.check_cpu),
    Unit(("machine",), computing.check_machine),
    Unit(("event loop",), event_loop.check),
    Unit(("gil",), computing.check_gil),
    Unit(("source",), steps.check_source),
    Unit(("undecorated",), steps.check_undecorated),
    Unit(("errors",), errors.check),
    Unit(("limit",), limit.check),
    Unit(("serial", "undecorated"), serial.check),
    Unit(("skew",), stage.check_skew),
    Unit(("tie",), stage.check_tie),
    Unit(("stage", "workers"), stage.check),
)
