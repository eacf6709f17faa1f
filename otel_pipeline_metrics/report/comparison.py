"""The result of comparing two reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import number, ratio, whole
from otel_pipeline_metrics.report.flow import stages_in_flow_order
from otel_pipeline_metrics.report.significance import SURE_Z

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


Judgement = Literal[
    "slower", "slower tail", "faster", "no change", "noise", "drift", "minor", "too few",
    "not known", "new", "gone",
]  # fmt: skip


# one chance in a thousand; as a normal deviate it is SURE_Z
_RATE_P: Final = 0.001


@dataclass(frozen=True)
class StageChange:
    """One stage in both runs; times are seconds for one item or one call (`unit`)."""

    name: str
    judgement: Judgement
    why: str
    unit: Literal["item", "invocation"] = "invocation"
    old_s: float | None = None
    new_s: float | None = None
    # by how much a typical call is slower: 0.3 is 30 %; unlike `new_s / old_s`, this leaves out
    # the quickest and the slowest calls
    shift: float | None = None

    @property
    def change(self) -> float | None:
        """The growth of the average: 0.3 is 30 % slower."""
        return _growth(self.old_s, self.new_s)


@dataclass(frozen=True)
class Comparison:
    """Two runs of a pipeline side by side."""

    pipeline: str
    fail_on: float
    stages: tuple[StageChange, ...]
    # (what, old, new, change) of the run: wall time, throughput, caches
    figures: tuple[tuple[str, ...], ...]
    # a sentence each; empty is good
    regressions: tuple[str, ...]
    # worth a look, but not a reason to fail
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """The exit code of the command: 1 with a regression, else 0."""
        return 1 if self.regressions else 0

    def render(self) -> str:
        """Return the comparison as text for a terminal."""
        limit = rounded_percent(self.fail_on)
        pipeline = text.printable(self.pipeline)
        parts = [f"compare {pipeline}: old with new, fail on {limit} slower"]
        if self.stages:
            head = ("stage", "verdict", "old", "new", "change", "typical", "")
            parts.append(text.table(head, [_row(stage) for stage in self.stages], left=2))
        if self.figures:
            columns = ("run", "old", "new", "change")
            parts.append(text.table(columns, self.figures, left=1))
        parts.append("\n".join(f"note: {text.printable(note)}" for note in self.notes))
        lines = [f"REGRESSION: {text.printable(line)}" for line in self.regressions]
        parts.append("\n".join(lines) or "no regression")
        return "\n\n".join(part for part in parts if part)


# --- errors, caches, the run ----------------------------------------------------------------


def find_error_regressions(old: RunReport, new: RunReport, fail_on: float) -> list[str]:
    """Return a sentence for each stage that fails more often than chance explains."""
    before = {(s["name"], s.get("kind")): s for s in old.stages}
    found = []
    for stage in stages_in_flow_order(new):
        earlier = before.get((stage["name"], stage.get("kind")))
        if earlier is None:
            continue
        errors = [whole(one, "errors", "total") or 0 for one in (earlier, stage)]
        counts = [whole(one, "count") or 0 for one in (earlier, stage)]
        if not all(counts):
            continue
        rates = [e / c for e, c in zip(errors, counts, strict=True)]
        if rates[1] > rates[0] * (1 + fail_on) and _more_often(errors, counts):
            found.append(
                f"{stage['name']} fails more often: {errors[1]:,} of {counts[1]:,} "
                f"({text.percent(rates[1])}), before {errors[0]:,} of {counts[0]:,} "
                f"({text.percent(rates[0])})"
            )
    return found


def _more_often(hits: Sequence[int], counts: Sequence[int]) -> bool:
    """Tell whether the second rate is higher by more than one chance in a thousand.

    Few hits are tested exactly, by the binomial distribution of all hits over both runs; many
    by the normal distribution.
    """
    total = sum(hits)
    part = counts[1] / sum(counts)
    if total <= 1000:  # the number of terms in the sum
        tail = sum(
            math.exp(
                math.lgamma(total + 1)
                - math.lgamma(k + 1)
                - math.lgamma(total - k + 1)
                + k * math.log(part)
                + (total - k) * math.log1p(-part)
            )
            for k in range(hits[1], total + 1)
        )
        return tail < _RATE_P
    overall = total / sum(counts)
    error = math.sqrt(overall * (1 / counts[0] + 1 / counts[1]))
    return bool(error) and (hits[1] / counts[1] - hits[0] / counts[0]) / error >= SURE_Z


def compare_figures(old: RunReport, new: RunReport) -> list[tuple[str, ...]]:
    """Return rows of (what, old, new, change): wall time, throughput, memory, caches."""
    both = (old, new)
    walls = [number(report.run, "wall_s") for report in both]
    rows = [_figure("wall time", walls, text.duration)]
    rates = [_items_per_s(report) for report in both]
    if None not in rates:
        rows.append(_figure("items per second", rates, text.number))
    peaks = [number(report.resources, "rss_bytes", "peak") for report in both]
    if None not in peaks:
        rows.append(_figure("peak memory", peaks, text.size))
    before = {cache["name"]: cache for cache in old.caches}
    for cache in new.caches:
        first, second = (number(one, "hit_ratio") for one in (before.get(cache["name"]), cache))
        if first is not None and second is not None:
            values = (text.percent(first), text.percent(second))
            points = f"{(second - first) * 100:+.1f} points"
            rows.append((f"hit ratio of {cache['name']}", *values, points))
    return rows


def _figure(
    what: str, values: Sequence[float | None], written: Callable[[float | None], str]
) -> tuple[str, ...]:
    return (what, *map(written, values), text.signed_percent(_growth(*values)))


def _items_per_s(report: RunReport) -> float | None:
    """Return the throughput of the last stage, in items per second."""
    ordered = stages_in_flow_order(report)
    return number(ordered[-1], "throughput", "items_per_s") if ordered else None


def write_notes(old: RunReport, new: RunReport, stages: Sequence[StageChange]) -> list[str]:
    """Return a sentence for each change that is worth a look but not a reason to fail."""
    notes = [f"{s.name} {s.why}" for s in stages if s.judgement in {"new", "gone"}]
    if not any(stage.old_s is not None for stage in stages):
        notes.append("the runs have no stage in common that could be compared")
    if any(stage.judgement == "drift" for stage in stages):
        notes.append(
            "several stages slowed down alike: so did the machine, or something they all use"
        )
    before = {cache["name"]: cache for cache in old.caches}
    for cache in new.caches:
        earlier = before.get(cache["name"])
        pair = (earlier, cache)
        misses = [whole(one, "misses") or 0 for one in pair]
        lookups = [(whole(one, "hits") or 0) + m for one, m in zip(pair, misses, strict=True)]
        if all(lookups) and _more_often(misses, lookups):
            notes.append(f"cache {cache['name']} misses more often")
    if any(report.run.get("partial") for report in (old, new)):
        notes.append("a partial report is compared")
    return notes


def _row(stage: StageChange) -> tuple[str, ...]:
    return (
        stage.name,
        stage.judgement,
        text.duration(stage.old_s),
        text.duration(stage.new_s),
        text.signed_percent(stage.change),
        text.signed_percent(stage.shift),
        f"per {stage.unit}" if stage.old_s is not None else "",
    )


def _growth(old: float | None, new: float | None) -> float | None:
    found = ratio(new, old)
    return None if found is None else found - 1


def rounded_percent(ratio: float) -> str:
    """Return a change in per cent with three significant digits, without its sign."""
    return f"{ratio * 100:.3g} %" if ratio < 1 else f"{ratio * 100:,.0f} %"
