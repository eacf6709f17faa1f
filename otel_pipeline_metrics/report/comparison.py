"""The result of comparing two reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from otel_pipeline_metrics.report import console
from otel_pipeline_metrics.report.flow import number, stages_in_flow_order, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics.report.run_report import RunReport


Judgement = Literal[
    "slower", "slower tail", "faster", "no change", "noise", "drift", "minor", "too few",
    "not known", "new", "gone",
]  # fmt: skip


_RATE_P: Final = 0.001
_RATE_Z: Final = 3.09
"""The same as a normal deviate."""


@dataclass(frozen=True)
class StageChange:
    """One stage in both runs. Times are seconds for one item, or invocation (`unit`)."""

    name: str
    judgement: Judgement
    why: str
    unit: Literal["item", "invocation"] = "invocation"
    old_s: float | None = None
    new_s: float | None = None
    shift: float | None = None
    """By how much a typical call is slower: 0.3 is 30 %. Unlike `new_s / old_s` it leaves out
    the quickest and the slowest calls."""

    @property
    def change(self) -> float | None:
        """By how much the average is longer: 0.3 is 30 %."""
        if self.old_s is None or self.new_s is None or not self.old_s:
            return None
        return self.new_s / self.old_s - 1


@dataclass(frozen=True)
class Comparison:
    """Two runs of a pipeline side by side."""

    pipeline: str
    fail_on: float
    stages: tuple[StageChange, ...]
    figures: tuple[tuple[str, ...], ...]
    """(what, old, new, change) of the run: wall time, throughput, caches."""
    regressions: tuple[str, ...]
    """A sentence each; empty is good."""
    notes: tuple[str, ...]
    """What is worth a look but no reason to fail."""

    @property
    def exit_code(self) -> int:
        """1 with a regression, else 0."""
        return 1 if self.regressions else 0

    def render(self) -> str:
        """Return the comparison as text for a terminal."""
        parts = [f"compare {self.pipeline}: old with new, fail on {_per_cent(self.fail_on)} slower"]
        if self.stages:
            head = ("stage", "verdict", "old", "new", "change", "typical", "")
            parts.append(console.table(head, [_row(stage) for stage in self.stages], left=2))
        if self.figures:
            columns = ("run", "old", "new", "change")
            parts.append(console.table(columns, self.figures, left=1))
        parts += ["\n".join(f"note: {note}" for note in self.notes)]
        parts += ["\n".join(f"REGRESSION: {text}" for text in self.regressions) or "no regression"]
        return "\n\n".join(part for part in parts if part)


# --- errors, caches, the run ----------------------------------------------------------------


def _error_regressions(old: RunReport, new: RunReport, fail_on: float) -> list[str]:
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
                f"({console.percent(rates[1])}), before {errors[0]:,} of {counts[0]:,} "
                f"({console.percent(rates[0])})"
            )
    return found


def _more_often(hits: Sequence[int], counts: Sequence[int]) -> bool:
    """Tell whether the second rate is higher by more than chance, one in a thousand.

    With few hits, exactly: of all hits, so many fall on the second run by the binomial
    distribution. With many, by the normal one.
    """
    total = sum(hits)
    part = counts[1] / sum(counts)
    if total <= 1000:  # the sum below has so many terms
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
    return bool(error) and (hits[1] / counts[1] - hits[0] / counts[0]) / error >= _RATE_Z


def _figures(old: RunReport, new: RunReport) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    walls = [number(report.run, "wall_s") for report in (old, new)]
    rows.append(("wall time", *map(console.seconds, walls), _change(*walls)))
    rates = [_items_per_s(report) for report in (old, new)]
    if all(rate is not None for rate in rates):
        rows.append(("items per second", *map(console.rate, rates), _change(*rates)))
    peaks = [number(report.resources, "rss_bytes", "peak") for report in (old, new)]
    if all(peak is not None for peak in peaks):
        rows.append(("peak memory", *map(console.size, peaks), _change(*peaks)))
    before = {cache["name"]: cache for cache in old.caches}
    for cache in new.caches:
        ratios = [number(one, "hit_ratio") for one in (before.get(cache["name"]), cache)]
        if all(ratio is not None for ratio in ratios):
            points = (ratios[1] or 0.0) - (ratios[0] or 0.0)
            label = f"hit ratio of {cache['name']}"
            rows.append((label, *map(console.percent, ratios), f"{points * 100:+.1f} points"))
    return rows


def _items_per_s(report: RunReport) -> float | None:
    """Return the throughput of the last stage."""
    ordered = stages_in_flow_order(report)
    return number(ordered[-1], "throughput", "items_per_s") if ordered else None


def _notes(old: RunReport, new: RunReport, stages: Sequence[StageChange]) -> list[str]:
    notes = [f"{s.name} {s.why}" for s in stages if s.judgement in {"new", "gone"}]
    if not any(stage.old_s is not None for stage in stages):
        notes.append("the runs have no stage in common that could be compared")
    if any(stage.judgement == "drift" for stage in stages):
        notes.append("several stages are slower alike: the machine, or something they all use")
    before = {cache["name"]: cache for cache in old.caches}
    for cache in new.caches:
        earlier = before.get(cache["name"])
        misses = [whole(one, "misses") or 0 for one in (earlier, cache)]
        lookups = [(whole(one, "hits") or 0) + m for one, m in zip((earlier, cache), misses)]  # noqa: B905 - two and two
        if all(lookups) and _more_often(misses, lookups):
            notes.append(f"cache {cache['name']} misses more often")
    if any(report.run.get("partial") for report in (old, new)):
        notes.append("a partial report is compared")
    return notes


def _row(stage: StageChange) -> tuple[str, ...]:
    unit = f"per {stage.unit}" if stage.old_s is not None else ""
    change, shift = stage.change, stage.shift
    return (
        stage.name,
        stage.judgement,
        console.seconds(stage.old_s),
        console.seconds(stage.new_s),
        console.UNKNOWN if change is None else _signed(change),
        console.UNKNOWN if shift is None else _signed(shift),
        unit,
    )


def _change(old: float | None, new: float | None) -> str:
    return _signed(new / old - 1) if old and new is not None else console.UNKNOWN


def _signed(ratio: float) -> str:
    return f"{ratio * 100:+.1f} %"


def _per_cent(ratio: float) -> str:
    return f"{ratio * 100:.3g} %" if ratio < 1 else f"{ratio * 100:,.0f} %"
