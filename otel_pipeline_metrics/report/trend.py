"""Follow a pipeline over many runs: what it came to, and where that changed.

    from otel_pipeline_metrics import RunReport
    from otel_pipeline_metrics.report.trend import trend

    found = trend(map(RunReport.load, paths), fail_on=0.1)
    print(found.render())
    sys.exit(found.exit_code)

`change_points` has the test. The chance that it finds a change in equal runs is at most one per
cent for all figures together.
"""

from __future__ import annotations

import math
import statistics
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import number, ratio, stage_items, whole
from otel_pipeline_metrics.report.change_points import change_points
from otel_pipeline_metrics.report.flow import stages_in_flow_order
from otel_pipeline_metrics.report.merge_runs import runs_in
from otel_pipeline_metrics.report.significance import RESOLUTION
from otel_pipeline_metrics.report.trend_result import Change, Trend, TrendFigure, TrendRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_pipeline_metrics.report.run_report import RunReport
    from otel_pipeline_metrics.report.trend_result import Unit


__all__ = ["Change", "Trend", "TrendFigure", "TrendRun", "trend"]

# of all figures together
_LEVEL: Final = 0.01
_LEAST: Final = math.log(1.03)
# a stage that is called less often, such as one for a summary, does not count the work
_OFTEN: Final = 0.1


class _Stage(NamedTuple):
    """What a trend needs of a stage in one run."""

    calls: int
    items: int | None
    p95_s: float | None
    errors: int


class _Row(NamedTuple):
    """What a trend needs of one run; the report itself is not kept."""

    run: TrendRun
    ids: tuple[str, ...]
    wall_s: float | None
    # by name, in the order of the flow
    stages: dict[str, _Stage]


def trend(
    reports: Iterable[RunReport], *, stage: str | None = None, fail_on: float | None = None
) -> Trend:
    """Return what became of a pipeline over its runs, in the order in which they started.

    Args:
        reports: reports of one pipeline, in any order; they are read one after the other. One
            that is there twice counts once. Only runs that ended in success count for times and
            throughput.
        stage: follow this stage alone.
        fail_on: by how much a figure may have become worse; 0.1 is ten per cent. None never
            fails.

    Raises:
        ValueError: there is no report, they are of different pipelines, no run has the stage,
            or `fail_on` is not positive.
    """
    if fail_on is not None and not 0 < fail_on < math.inf:
        raise ValueError(f"fail_on must be a positive ratio such as 0.1, not {fail_on!r}")
    pipeline, rows, notes = _read(reports)
    names = list(dict.fromkeys(name for row in reversed(rows) for name in row.stages))
    if stage is not None:
        if stage not in names:
            raise ValueError(f"no run has a stage {stage!r}; there are: {', '.join(names)}")
        names = [stage]
    figures = _figures(rows, _rules(rows, names, whole_run=stage is None))
    regressions = []
    for figure in figures:
        notes += [
            figure.sentence(change, rows[change.at].run, len(rows)) for change in figure.changes
        ]
        if fail_on is not None and (worse := figure.regression(fail_on)):
            regressions.append(worse)
    notes += [f"{name} is not in the latest run" for name in names if name not in rows[-1].stages]
    return Trend(
        pipeline=pipeline,
        fail_on=fail_on,
        runs=tuple(row.run for row in rows),
        figures=tuple(figures),
        regressions=tuple(regressions),
        notes=tuple(notes),
    )


# --- reading --------------------------------------------------------------------------------


def _read(reports: Iterable[RunReport]) -> tuple[str, list[_Row], list[str]]:
    """Return the pipeline, its runs from first to last, and what was left out."""
    pipelines: dict[Any, None] = {}
    rows: dict[Any, _Row] = {}
    twice = undated = 0
    for report in reports:
        pipelines[report.run.get("pipeline")] = None
        row = _row(report)
        key = row.run.id or object()
        twice += key in rows
        undated += not row.run.started
        if row.run.started:
            rows[key] = row
    if not pipelines:
        raise ValueError("there is no report to follow")
    if len(pipelines) > 1:
        found = ", ".join(repr(name) for name in pipelines)
        raise ValueError(f"the reports are of different pipelines: {found}; choose one")
    single = {one for row in rows.values() if len(row.ids) == 1 for one in row.ids}
    kept = [r for r in rows.values() if len(r.ids) == 1 or single.isdisjoint(r.ids)]
    if not kept:
        raise ValueError("no report tells when its run started")
    left_out = {
        "twice": twice,
        "without a start": undated,
        "merged from others that are here": len(rows) - len(kept),
    }
    notes = [f"{text.counted(n, 'report')} left out: {why}" for why, n in left_out.items() if n]
    return str(next(iter(pipelines))), sorted(kept, key=lambda row: row.run.started), notes


def _row(report: RunReport) -> _Row:
    run = report.run
    ordered = stages_in_flow_order(report)
    kinds = [stage["name"] for stage in ordered]
    stages: dict[str, _Stage] = {}
    for stage in ordered:
        name = stage["name"]
        if kinds.count(name) > 1:
            name = f"{name} ({stage.get('kind')})"
        stages[name] = _Stage(
            calls=whole(stage, "count") or 0,
            items=stage_items(stage),
            p95_s=number(stage, "duration_s", "p95"),
            errors=whole(stage, "errors", "total") or 0,
        )
    found = TrendRun(
        id=run.get("id"),
        started=str(run.get("started") or ""),
        result=str(run.get("result") or "in progress"),
        merged_runs=runs_in(run),
    )
    ids = run.get("merged_from") or [run.get("id")]
    return _Row(found, tuple(map(str, ids)), number(run, "wall_s"), stages)


# --- figures --------------------------------------------------------------------------------


class _Rule(NamedTuple):
    """A figure that is read from every run."""

    name: str
    unit: Unit
    # None if neither is
    more_is_better: bool | None
    read: Callable[[_Row], float | None]


def _rules(rows: Sequence[_Row], names: Sequence[str], *, whole_run: bool) -> list[_Rule]:
    """Return the figures of a pipeline with these stages; one line each."""
    counted = _counting_stage(rows, names)
    rules = []
    if counted is not None:
        name, unit = counted
        rules.append(_Rule(f"throughput of {name}", unit, True, partial(_throughput, name, unit)))
    if whole_run:
        # with more work, more time is not worse
        judged = None if counted else False
        rules.append(_Rule("wall time", "s", judged, lambda row: row.wall_s))
    rules += [_Rule(f"p95 of {name}", "s", False, partial(_p95, name)) for name in names]
    title = "errors" if whole_run else f"errors of {names[0]}"
    return [*rules, _Rule(title, "1", False, partial(_error_share, names))]


def _figures(rows: Sequence[_Row], rules: Sequence[_Rule]) -> list[TrendFigure]:
    """Return the figures that a run has, each with its changes."""
    read = [(rule, [_kept(row, rule.unit, rule.read(row)) for row in rows]) for rule in rules]
    known = [one for one in read if any(value is not None for value in one[1])]
    calls = statistics.median(sum(s.calls for s in row.stages.values()) for row in rows)
    return [
        TrendFigure(
            name=rule.name,
            unit=rule.unit,
            more_is_better=rule.more_is_better,
            values=tuple(values),
            changes=tuple(_changes(values, rule.unit, _LEVEL / len(known), calls)),
        )
        for rule, values in known
    ]


def _kept(row: _Row, unit: Unit, value: float | None) -> float | None:
    """Return the value if it can be compared: a run that failed was shorter."""
    if unit == "1":
        return value
    return value if row.run.result == "success" and value and value > 0 else None


def _counting_stage(rows: Sequence[_Row], names: Sequence[str]) -> tuple[str, Unit] | None:
    """Return the last stage that counts the work, and what it counts."""
    latest = {name: stage for row in rows for name, stage in row.stages.items() if name in names}
    ordered = [name for name in rows[-1].stages if name in latest] or list(latest)
    for name in reversed(ordered):
        items = sum(1 for row in rows if name in row.stages and row.stages[name].items)
        if items * 2 > len(rows):
            return name, "items/s"
    most = max((latest[name].calls for name in ordered), default=0)
    for name in reversed(ordered):
        if latest[name].calls and latest[name].calls >= _OFTEN * most:
            return name, "calls/s"
    return None


def _throughput(name: str, unit: Unit, row: _Row) -> float | None:
    stage = row.stages.get(name)
    if stage is None:
        return None
    return ratio(stage.items if unit == "items/s" else stage.calls, row.wall_s)


def _p95(name: str, row: _Row) -> float | None:
    return row.stages[name].p95_s if name in row.stages else None


def _error_share(names: Sequence[str], row: _Row) -> float | None:
    found = [row.stages[name] for name in names if name in row.stages]
    return ratio(sum(s.errors for s in found), sum(s.calls for s in found))


def _changes(
    values: Sequence[float | None], unit: Unit, level: float, calls: float
) -> list[Change]:
    """Return the changes of a figure: of its logarithm, or of a share's arcsine.

    The latter has the same chance error for every share: half of one over the square root of the
    calls (Anscombe, "The transformation of Poisson, binomial and negative-binomial data",
    Biometrika 35, 1948).
    """
    at = [index for index, value in enumerate(values) if value is not None]
    known = [value for value in values if value is not None]
    if unit == "1":
        scaled = [math.asin(math.sqrt(min(1.0, value))) for value in known]
        floor, least = 0.5 / math.sqrt(max(1.0, calls)), 0.0
    else:
        scaled = [math.log(value) for value in known]
        floor, least = RESOLUTION / 2, _LEAST
    return [
        Change(at=at[one.at], before=_unscaled(one.before, unit), after=_unscaled(one.after, unit))
        for one in change_points(scaled, level=level, floor=floor, least=least)
    ]


def _unscaled(value: float, unit: Unit) -> float:
    return math.sin(value) ** 2 if unit == "1" else math.exp(value)
