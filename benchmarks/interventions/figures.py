"""Sum up what was judged: a table, the rates by family, and each failure as plain data."""

from __future__ import annotations

import statistics
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.interventions.judging import Judgement, Outcome, Range

SCHEMA: Final = "otel_pipeline_metrics/intervention-failures/1"


@dataclass
class Bench:
    """All shapes with one seed."""

    title: str
    judged: list[Judgement] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Names of the shapes that raised an error."""

    @property
    def answerable(self) -> list[Judgement]:
        return [found for found in self.judged if found.outcome != "no answer"]

    def of(self, outcome: Outcome) -> list[Judgement]:
        return [found for found in self.judged if found.outcome == outcome]

    @property
    def ranges(self) -> list[Range]:
        return [told for found in self.judged for told in found.ranges]


def holds(found: Bench) -> bool:
    """Tell whether the rates are what docs/verdict.md promises."""
    count, ranges = len(found.answerable), found.ranges
    right, known = found.of("right"), [told.holds for told in ranges if told.holds is not None]
    return (
        not found.failed
        and len(right) >= 0.95 * count
        and len(found.of("unknown")) <= 0.05 * count
        and not any(one.confidence == "high" for one in found.of("wrong"))
        and 2 * sum(one.confidence == "high" for one in right) >= len(right)
        and sum(known) >= 0.85 * len(known)
        and _width(ranges, 0.5) <= 0.30
        and _width(ranges, 0.9) <= 0.60
    )


def line(found: Judgement) -> str:
    """Return one line about a shape."""
    verdict, trial = found.verdict, found.trial
    named = " ".join(dict.fromkeys(n for n in (verdict.get("name"), verdict["stage"]) if n))
    gains = ", ".join(f"{key} {_points(gain)}" for key, gain in trial.gains.items())
    told = ", ".join(
        f"{t.change} {t.name} {100 * t.low:+.0f} to {_points(t.high)}"
        f"{'' if t.holds is not False else ' (off)'}"
        for t in found.ranges
    )
    return (
        f"{found.outcome:9} {trial.shape.family}/{trial.shape.name}: {verdict['kind']}"
        f"{' ' + named if named else ''} ({verdict['confidence']}); {gains}; told: {told or '-'}"
    )


def figures(benches: Sequence[Bench]) -> str:
    """Return the tables in Markdown."""
    rows = [
        ["", *(b.title for b in benches)],
        ["---"] * (len(benches) + 1),
        ["shapes, of these in real time", *(_shapes(b) for b in benches)],
        ["with an answer", *(f"{len(b.answerable)}" for b in benches)],
        ["right", *(_part(len(b.of("right")), len(b.answerable)) for b in benches)],
        ["`unknown`", *(_part(len(b.of("unknown")), len(b.answerable)) for b in benches)],
        ["wrong", *(_part(len(b.of("wrong")), len(b.answerable)) for b in benches)],
        ["wrong with high confidence", *(f"{_high(b.of('wrong'))}" for b in benches)],
        [
            "right ones with high confidence",
            *(_part(_high(b.of("right")), len(b.of("right"))) for b in benches),
        ],
        ["told ranges that hold the measured gain", *map(_held, benches)],
        ["width of told ranges, points: median", *(_wide(b, 0.5) for b in benches)],
        ["the same, 90th percentile", *(_wide(b, 0.9) for b in benches)],
    ]
    return f"{_table(rows)}\n\n{_families(benches)}"


def failures(benches: Sequence[Bench]) -> dict[str, Any]:
    """Return every single failure as plain data; docs/verdict-benches.md describes the fields."""
    return {
        "schema": SCHEMA,
        "verdicts": [
            {
                **_which(one),
                "outcome": one.outcome,
                "verdict": {
                    key: one.verdict.get(key) for key in ("kind", "name", "stage", "confidence")
                },
                "best": one.best,
                "gains": {key: round(gain, 3) for key, gain in one.trial.gains.items()},
            }
            for bench in benches
            for one in bench.judged
            if one.outcome in {"wrong", "unknown"}
        ],
        "ranges": [
            {
                **_which(one),
                "change": told.change,
                "name": told.name,
                "gain": [round(told.low, 3), round(told.high, 3)],
                "measured": round(told.measured, 3),
            }
            for bench in benches
            for one in bench.judged
            for told in one.ranges
            if told.measured is not None and not told.holds
        ],
        "failed": [{"title": b.title, "shape": name} for b in benches for name in b.failed],
    }


def _which(one: Judgement) -> dict[str, Any]:
    trial = one.trial
    return {
        "seed": trial.seed,
        "family": trial.shape.family,
        "shape": trial.shape.name,
        "real_time": trial.real_time,
    }


def _families(benches: Sequence[Bench]) -> str:
    """Return a sentence with the rates by family, those that are not all right in bold."""
    judged = [one for bench in benches for one in bench.answerable]
    told = []
    for family in sorted({one.trial.shape.family for one in judged}):
        outcomes = [one.outcome for one in judged if one.trial.shape.family == family]
        right = outcomes.count("right")
        rate = f"{family} {right} of {len(outcomes)}"
        told.append(rate if right == len(outcomes) else f"**{rate}**")
    return "\n".join(textwrap.wrap(f"Right by family: {', '.join(told)}.", 110))


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shapes(found: Bench) -> str:
    return f"{len(found.judged)}, {sum(one.trial.real_time for one in found.judged)}"


def _high(found: Sequence[Judgement]) -> int:
    return sum(one.confidence == "high" for one in found)


def _held(found: Bench) -> str:
    known = [told.holds for told in found.ranges if told.holds is not None]
    return _part(sum(known), len(known))


def _part(count: int, of: int) -> str:
    return f"{count} of {of} ({100 * count / of:.0f} %)" if of else "-"


def _points(gain: float) -> str:
    return f"{100 * gain:+.0f} %"


def _wide(found: Bench, quantile: float) -> str:
    return f"{100 * _width(found.ranges, quantile):.0f}"


def _width(ranges: Sequence[Range], quantile: float) -> float:
    widths = sorted(told.width for told in ranges)
    if quantile == 0.5:
        return statistics.median(widths) if widths else 0.0
    return widths[round((len(widths) - 1) * quantile)] if widths else 0.0
