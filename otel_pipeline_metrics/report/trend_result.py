"""The result of following a pipeline over many runs."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics.report.comparison import Unit, written
from otel_pipeline_metrics.report.document import Chart, Document, Judged, Table
from otel_pipeline_metrics.report.stage_changes import rounded_percent

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["Change", "Trend", "TrendFigure", "TrendRun", "Unit"]

SCHEMA: Final = "otel_pipeline_metrics/trend/1"

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 40
# smaller differences do not fill the height of a line
_LEAST_RANGE: Final = 0.2


@dataclass(frozen=True)
class TrendRun:
    """One run of the series."""

    id: str | None
    # ISO 8601
    started: str
    result: str
    # of a report of several: how many
    merged_runs: int = 1


@dataclass(frozen=True)
class Change:
    """A point where a figure changed its level."""

    # the position of the first run of the new level, from 0
    at: int
    # the levels before and after, up to the changes next to this one
    before: float
    after: float


@dataclass(frozen=True)
class TrendFigure:
    """One figure of every run: a value is None if it is unknown, or its run did not succeed."""

    name: str
    # as in UCUM; a ratio is "1"
    unit: Unit
    # None if neither is
    more_is_better: bool | None
    values: tuple[float | None, ...]
    changes: tuple[Change, ...]

    @property
    def first(self) -> float | None:
        """The level of the first runs."""
        return self.changes[0].before if self.changes else self._typical

    @property
    def now(self) -> float | None:
        """The level of the latest runs."""
        return self.changes[-1].after if self.changes else self._typical

    @property
    def _typical(self) -> float | None:
        known = [value for value in self.values if value is not None]
        return statistics.median(known) if known else None

    def sentence(self, change: Change, run: TrendRun, runs: int) -> str:
        """Return what changed, and with which run."""
        named = f", {run.id}" if run.id else ""
        return (
            f"{self.name} {self._moved(change.before, change.after)} "
            f"with run {change.at + 1:,} of {runs:,} ({run.started}{named})"
        )

    def regression(self, fail_on: float) -> str | None:
        """Return a sentence if the latest level is worse than before it last became worse."""
        worse = [one for one in self.changes if self._is_worse(one.before, one.after, 0.0)]
        if not worse or self.now is None:
            return None
        before = worse[-1].before
        if not self._is_worse(before, self.now, fail_on):
            return None
        return f"{self.name} {self._moved(before, self.now)} since run {worse[-1].at + 1:,}"

    def _is_worse(self, before: float, after: float, by: float) -> bool:
        if self.more_is_better is None:
            return False
        if self.more_is_better:
            return after < before * (1 - by)
        return after > before * (1 + by)

    def _moved(self, before: float, after: float) -> str:
        verb = "rose" if after > before else "fell"
        if self.unit == "1":
            return f"{verb} from {text.percent(before)} to {text.percent(after)}"
        return f"{verb} by {rounded_percent(abs(after / before - 1))}"


@dataclass(frozen=True)
class Trend(Judged):
    """A pipeline over many runs."""

    pipeline: str
    # a ratio; None never fails
    fail_on: float | None
    # from first to last
    runs: tuple[TrendRun, ...]
    figures: tuple[TrendFigure, ...]
    # a sentence each; empty is good
    regressions: tuple[str, ...]
    # where figures changed, and what was left out
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: seconds, rates per second, ratios; unknown is None."""
        return {
            "schema": SCHEMA,
            "pipeline": self.pipeline,
            "fail_on": self.fail_on,
            "runs": [asdict(run) for run in self.runs],
            "figures": [
                {
                    **asdict(figure),
                    "values": list(figure.values),
                    "changes": [asdict(change) for change in figure.changes],
                    "first": figure.first,
                    "now": figure.now,
                }
                for figure in self.figures
            ],
            "regressions": list(self.regressions),
            "notes": list(self.notes),
            "exit_code": self.exit_code,
        }

    def _document(self, *, with_charts: bool) -> Document:
        head = ("figure", "runs", "first", "now", "change", "changed")
        limit = "" if self.fail_on is None else f", fail on {rounded_percent(self.fail_on)} worse"
        changed = sum(bool(figure.changes) for figure in self.figures)
        good = "no regression" if changed else "no change was found"
        if changed and self.fail_on is None:
            good = f"{text.counted(changed, 'figure')} changed"
        return Document(
            title=f"trend of {self.pipeline}",
            facts=(
                f"{text.counted(len(self.runs), 'run')} from {self.runs[0].started} to "
                f"{self.runs[-1].started}{limit}"
            ),
            tables=(Table(head, [self._row(figure) for figure in self.figures], left=2),),
            notes=self.notes,
            bad=tuple(f"REGRESSION: {line}" for line in self.regressions),
            good=good,
            data=self.to_dict(),
            charts=[_chart(figure) for figure in self.figures] if with_charts else (),
        )

    def _row(self, figure: TrendFigure) -> tuple[str, ...]:
        first, now = figure.first, figure.now
        grown = None if first is None else ratio(now, first)
        change = text.signed_percent(None if grown is None else grown - 1)
        if figure.unit == "1" and first is not None and now is not None:
            change = f"{(now - first) * 100:+.1f} points"
        return (
            figure.name,
            sparkline(figure.values),
            written(figure.unit, first),
            written(figure.unit, now),
            change,
            f"run {figure.changes[-1].at + 1:,}" if figure.changes else text.UNKNOWN,
        )


# --- lines ----------------------------------------------------------------------------------


def sparkline(values: Sequence[float | None]) -> str:
    """Return a line of blocks, at most forty; an unknown value is a space."""
    parts = min(len(values), _WIDTH)
    means: list[float | None] = []
    for part in range(parts):
        inside = values[part * len(values) // parts : (part + 1) * len(values) // parts]
        known = [value for value in inside if value is not None]
        means.append(sum(known) / len(known) if known else None)
    seen = [mean for mean in means if mean is not None]
    if not seen:
        return " " * parts
    low, high = min(seen), max(seen)
    middle, half = (low + high) / 2, max(high - low, _LEAST_RANGE * high) / 2 or 1.0
    return "".join(
        " " if mean is None else _BLOCKS[min(7, int(4 * (mean - middle) / half + 4))]
        for mean in means
    )


def _chart(figure: TrendFigure) -> Chart:
    known = [value for value in figure.values if value is not None]
    top = max(known) * 1.1 or 1.0
    last = max(1, len(figure.values) - 1)
    segments: list[list[str]] = [[]]
    for index, value in enumerate(figure.values):
        if value is None:
            segments.append([])
        else:
            segments[-1].append(f"{100 * index / last:.2f},{100 - 100 * value / top:.2f}")
    # a point alone is a line without length, whose round ends are a dot
    lines = [" ".join(points if len(points) > 1 else points * 2) for points in segments if points]
    low, high = (written(figure.unit, found) for found in (min(known), max(known)))
    return Chart(
        title=figure.name,
        text=f"{figure.name} over {text.counted(len(figure.values), 'run')}: {low} to {high}",
        lines=lines,
        y=[("100.00", "0"), (f"{100 - 100 / 1.1:.2f}", high)],
        marks=[f"{100 * (change.at - 0.5) / last:.2f}" for change in figure.changes],
    )
