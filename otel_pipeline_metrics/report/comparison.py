"""The result of comparing two reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import ratio
from otel_pipeline_metrics.report.document import Document, Judged, Table
from otel_pipeline_metrics.report.stage_changes import rounded_percent

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_pipeline_metrics.report.stage_changes import StageChange


SCHEMA: Final = "otel_pipeline_metrics/comparison/1"

Unit = Literal["s", "By", "items/s", "calls/s", "1"]
FigureJudgement = Literal["worse", "better", "no change", "noise", "drift", "not judged"]

_WRITTEN: Final[dict[str, Callable[[float | None], str]]] = {
    "s": text.duration,
    "By": text.size,
    "items/s": lambda value: _rate(value, "items"),
    "calls/s": lambda value: _rate(value, "calls"),
    "1": text.percent,
}


def _rate(value: float | None, noun: str) -> str:
    return text.UNKNOWN if value is None else f"{text.number(value)} {noun}/s"


def written(unit: Unit, value: float | None) -> str:
    """Return a value with its unit, as people read it."""
    return _WRITTEN[unit](value)


@dataclass(frozen=True)
class Figure:
    """One number of the whole run, in both runs."""

    name: str
    # as in UCUM; a ratio is "1"
    unit: Unit
    old: float | None
    new: float | None
    judgement: FigureJudgement = "not judged"
    # a sentence without its subject; "" without a judgement
    why: str = ""

    @property
    def change(self) -> float | None:
        """The growth, 0.3 is 30 % more; of a ratio the difference, 0.3 is 30 points."""
        if self.unit == "1":
            return None if self.old is None or self.new is None else self.new - self.old
        found = ratio(self.new, self.old)
        return None if found is None else found - 1


@dataclass(frozen=True)
class Comparison(Judged):
    """Two runs of a pipeline side by side."""

    pipeline: str
    # ratios: by how much a stage may get slower, and the throughput fall
    fail_on: float
    fail_on_throughput: float
    stages: tuple[StageChange, ...]
    figures: tuple[Figure, ...]
    # a sentence each; empty is good
    regressions: tuple[str, ...]
    # worth a look, but not a reason to fail
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: seconds, bytes, rates per second, ratios; unknown is None."""
        return {
            "schema": SCHEMA,
            **asdict(self),
            "stages": [{**asdict(one), "change": one.change} for one in self.stages],
            "figures": [{**asdict(one), "change": one.change} for one in self.figures],
            "regressions": list(self.regressions),
            "notes": list(self.notes),
            "exit_code": self.exit_code,
        }

    def _document(self, *, with_charts: bool) -> Document:
        head = ("stage", "verdict", "old", "new", "change", "typical", "")
        columns = ("run", "verdict", "old", "new", "change")
        limits = f"{rounded_percent(self.fail_on)} slower"
        if self.fail_on_throughput < 1:
            limits += f" or {rounded_percent(self.fail_on_throughput)} less throughput"
        return Document(
            title=f"compare {self.pipeline}",
            facts=f"old with new, fail on {limits}",
            tables=(
                Table(head, [_row(stage) for stage in self.stages], left=2),
                Table(columns, [_figure_row(figure) for figure in self.figures], left=2),
            ),
            notes=self.notes,
            bad=tuple(f"REGRESSION: {line}" for line in self.regressions),
            good="no regression",
            data=self.to_dict(),
        )


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


def _figure_row(figure: Figure) -> tuple[str, ...]:
    change = text.signed_percent(figure.change)
    if figure.unit == "1" and figure.change is not None:
        change = f"{figure.change * 100:+.1f} points"
    judgement = "" if figure.judgement == "not judged" else figure.judgement
    old, new = written(figure.unit, figure.old), written(figure.unit, figure.new)
    return (figure.name, judgement, old, new, change)
