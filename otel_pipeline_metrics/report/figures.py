"""Compare what two runs came to as a whole: throughput, errors, memory, caches.

A run has one throughput, so its spread comes from the calls behind it (`_chance`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import number, ratio, whole
from otel_pipeline_metrics.report.comparison import Figure, FigureJudgement, Unit
from otel_pipeline_metrics.report.flow import error_total
from otel_pipeline_metrics.report.significance import (
    SURE_Z,
    calls_to_tell,
    more_often,
    normal_deviate,
    sample_of,
)
from otel_pipeline_metrics.report.stage_changes import (
    common_drift,
    rounded_percent,
    stages_of_both,
    would_tell,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_pipeline_metrics.report.run_report import RunReport
    from otel_pipeline_metrics.report.stage_changes import Pair, StageChange


# a stage that is called less often, such as one for a summary, does not count the work
_OFTEN: Final = 0.1
_MIN_CALLS: Final = 4
# the part of the wall time outside of stages from which on items wait for their source
_PACED: Final = 0.25
_MEMORY_MATTERS: Final = 16 * 2**20


class _Rule(NamedTuple):
    """A figure that is read from a report and compared, but not a reason to fail."""

    name: str
    unit: Unit
    read: Callable[[RunReport], float | None]


def _error_share(report: RunReport) -> float | None:
    return ratio(error_total(report), sum(whole(one, "count") or 0 for one in report.stages))


# one line a figure; a row is left out if the figure is unknown in both reports
_RULES: Final = (
    _Rule("wall time", "s", lambda report: number(report.run, "wall_s")),
    _Rule("outside of stages", "s", lambda report: number(report.run, "outside_s")),
    _Rule("share of errors", "1", _error_share),
    _Rule("peak memory", "By", lambda report: number(report.resources, "rss_bytes", "peak")),
    _Rule("CPU", "1", lambda report: number(report.resources, "cpu_utilization", "avg")),
)


def compare_figures(
    old: RunReport,
    new: RunReport,
    pairs: Sequence[Pair | StageChange],
    errors: Sequence[str],
    *,
    fail_on: float,
    fail_on_throughput: float,
) -> list[Figure]:
    """Return the figures of both runs; those that are judged have a reason.

    Args:
        old: the run to measure against.
        new: the run in question.
        pairs: the stages of both.
        errors: what `find_error_regressions` found.
        fail_on: by how much memory may grow.
        fail_on_throughput: by how much the throughput may fall.
    """
    throughput = _throughput(old, new, pairs, fail_on_throughput)
    rules = [Figure(rule.name, rule.unit, rule.read(old), rule.read(new)) for rule in _RULES]
    found = {figure.name: figure for figure in rules}
    if errors:
        found["share of errors"] = replace(found["share of errors"], judgement="worse")
    found["peak memory"] = _judged_memory(found["peak memory"], fail_on)
    every = [throughput, *found.values(), *_caches(old, new)]
    return [one for one in every if one is not None and not one.old is one.new is None]


# --- throughput -----------------------------------------------------------------------------


def _throughput(
    old: RunReport, new: RunReport, pairs: Sequence[Pair | StageChange], fail_on: float
) -> Figure | None:
    """Return items or calls a second of the last stage that counts the work of both runs."""
    walls = number(old.run, "wall_s"), number(new.run, "wall_s")
    found = _work(old, new)
    if found is None or not walls[0] or not walls[1]:
        return None
    name, unit, (before, after) = found
    figure = Figure(f"throughput of {name}", unit, before / walls[0], after / walls[1])
    calls = tuple(max(whole(one, "count") or 0 for one in report.stages) for report in (old, new))
    fall = -(figure.change or 0.0)
    why = f"{'fell' if fall > 0 else 'rose'} by {rounded_percent(abs(fall))}"
    judgement: FigureJudgement = "no change"
    chances = _chance(old, walls[0]), _chance(new, walls[1])
    error = math.hypot(*(chance.error for chance in chances))
    if abs(fall) >= min(fail_on, 1.0):
        shift = math.inf if fall >= 1 else -math.log1p(-fall)
        limit = math.inf if fail_on >= 1 else -math.log1p(-fail_on)
        drift = common_drift(pairs, limit) if fall > 0 else 0.0
        sure = _is_sure(shift - drift, error, chances) if drift < math.inf else False
        if drift and shift - drift < limit:
            judgement, why = "drift", f"{why}, as the calls of all stages did"
        elif sure and min(calls) >= _MIN_CALLS:
            judgement = "worse" if fall > 0 else "better"
        elif min(calls) < _MIN_CALLS:
            judgement, why = "noise", f"{why}; too few calls tell whether by chance"
        else:
            needed = calls_to_tell(error, (calls[0], calls[1]), limit)
            judgement = "noise"
            why += f", which chance explains; {would_tell(needed, 'call', fail_on)}"
    return replace(figure, judgement=judgement, why=why)


def _work(old: RunReport, new: RunReport) -> tuple[str, Unit, tuple[int, int]] | None:
    """Return the stage that counts the work of both runs, its unit and the counts."""
    both = stages_of_both(old, new)
    for way in ("out", "in"):
        for earlier, stage in reversed(both):
            items = whole(earlier, "items", way), whole(stage, "items", way)
            if items[0] and items[1] is not None:
                return stage["name"], "items/s", (items[0], items[1])
    calls = [(whole(a, "count") or 0, whole(b, "count") or 0, b["name"]) for a, b in both]
    most = max((first for first, _, _ in calls), default=0)
    for first, second, name in reversed(calls):
        if first and first >= _OFTEN * most:
            return name, "calls/s", (first, second)
    return None


class _Chance(NamedTuple):
    """By how much a run's wall time would differ if it ran again."""

    # the standard error of its logarithm, and its degrees of freedom
    error: float
    freedom: float


def _chance(report: RunReport, wall_s: float) -> _Chance:
    """Estimate the error of the wall time from the spread of the calls.

    A stage that runs several calls at a time adds to the wall time only that part of its total.
    One call more than there were stands for the last ones, for which the others wait. What the
    stages leave of the wall time is taken for one wait a call, as random as those between
    customers (exponential): a report knows no spread of it. If it is much, the items' arrival
    sets the pace, and all of the wall time is as random. Degrees of freedom add up as in Welch's
    test.
    """
    parts: list[tuple[float, float]] = []
    busiest, together, workers_known = 0.0, 0.0, False
    calls = 1
    for stage in report.stages:
        sample = sample_of(stage)
        if sample is None:
            continue
        total = sample.mean * sample.calls
        width = max(1.0, total / wall_s)
        # one call has no spread: it may have been any
        variance = sample.mean**2 if sample.variance is None else sample.variance
        parts.append(((sample.calls + 1) * variance / width**2, max(1, sample.calls - 1)))
        workers = whole(stage, "workers")
        workers_known |= workers is not None
        busiest = max(busiest, total / max(workers or 1, width))
        together += total
        calls = max(calls, sample.calls)
    # Stages without workers of their own take turns, or run inside each other. With several workers
    # some call is open nearly always, though each of them waits for items much of the time.
    left = wall_s - (busiest if workers_known else together)
    outside = max(0.0, left, number(report.run, "outside_s") or 0.0)
    if outside > _PACED * wall_s:
        outside = wall_s
    parts.append((outside**2 / calls, max(1, calls - 1)))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / f for part, f in parts) if variance else 1e9
    return _Chance(math.sqrt(variance) / wall_s, freedom)


def _is_sure(shift: float, error: float, chances: tuple[_Chance, _Chance]) -> bool:
    if not error:
        return True
    squares = [chance.error**4 / chance.freedom for chance in chances]
    freedom = error**4 / sum(squares)
    return shift == math.inf or normal_deviate(shift / error, freedom) >= SURE_Z


# --- errors, memory, caches -----------------------------------------------------------------


def find_error_regressions(old: RunReport, new: RunReport, fail_on: float) -> list[str]:
    """Return a sentence for each stage that fails more often than chance explains."""
    found = []
    for earlier, stage in stages_of_both(old, new):
        errors = [whole(one, "errors", "total") or 0 for one in (earlier, stage)]
        counts = [whole(one, "count") or 0 for one in (earlier, stage)]
        if not all(counts):
            continue
        rates = [e / c for e, c in zip(errors, counts, strict=True)]
        if rates[1] > rates[0] * (1 + fail_on) and more_often(errors, counts):
            found.append(
                f"{stage['name']} fails more often: {errors[1]:,} of {counts[1]:,} "
                f"({text.percent(rates[1])}), before {errors[0]:,} of {counts[0]:,} "
                f"({text.percent(rates[0])})"
            )
    return found


def _judged_memory(figure: Figure, fail_on: float) -> Figure:
    """Judge the peak of the memory; samples miss a few MiB of it now and then."""
    if figure.old is None or figure.new is None:
        return figure
    grown = figure.new - figure.old
    if abs(grown) < _MEMORY_MATTERS or abs(grown) < fail_on * figure.old:
        return replace(figure, judgement="no change")
    if grown < 0:
        return replace(figure, judgement="better", why="is smaller")
    return replace(figure, judgement="worse", why=f"grew by {text.size(grown)}")


def _caches(old: RunReport, new: RunReport) -> list[Figure]:
    before = {cache["name"]: cache for cache in old.caches}
    return [_cache(before.get(cache["name"], {}), cache) for cache in new.caches]


def _cache(old: Mapping[str, Any], new: Mapping[str, Any]) -> Figure:
    name = f"hit ratio of {new['name']}"
    figure = Figure(name, "1", number(old, "hit_ratio"), number(new, "hit_ratio"))
    misses = [whole(one, "misses") or 0 for one in (old, new)]
    hits = [whole(one, "hits") or 0 for one in (old, new)]
    lookups = [h + m for h, m in zip(hits, misses, strict=True)]
    if not all(lookups):
        return figure
    if more_often(misses, lookups):
        return replace(figure, judgement="worse", why="is lower: it misses more often")
    if more_often(hits, lookups):
        return replace(figure, judgement="better", why="is higher")
    return replace(figure, judgement="no change")
