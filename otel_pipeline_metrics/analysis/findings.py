"""What a verdict consists of: a kind, its witnesses, and what a change would gain."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Kind = Literal[
    "stage", "source", "limit", "undecorated", "serial", "cpu", "gil", "machine", "event loop",
    "errors", "workers", "skew", "tie", "unknown",
]  # fmt: skip
Confidence = Literal["high", "medium", "low"]
ChangeKind = Literal["faster", "workers", "limit", "errors"]

CONFIDENCES: Final[tuple[Confidence, ...]] = ("high", "medium", "low")


@dataclass(frozen=True)
class Witness:
    """A number that speaks for a verdict, or against it.

    Attributes:
        name: what it is, with its unit.
        value: None if it is unknown.
        line: where the line is drawn.
        for_it: whether it speaks for the verdict; None if it is unknown.
        vetoes: whether the verdict cannot stand if this speaks against it.
    """

    name: str
    value: float | None
    line: float
    for_it: bool | None
    vetoes: bool = False

    @property
    def is_veto(self) -> bool:
        """Whether it rules the verdict out."""
        return self.vetoes and self.for_it is False

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "value": _finite(self.value),
            "line": self.line,
            "for": self.for_it,
        }


def at_least(name: str, value: float | None, line: float, *, vetoes: bool = False) -> Witness:
    """Return a witness that speaks for the verdict from a line on."""
    return Witness(name, value, line, None if value is None else value >= line, vetoes)


def at_most(name: str, value: float | None, line: float, *, vetoes: bool = False) -> Witness:
    """Return a witness that speaks for the verdict up to a line."""
    return Witness(name, value, line, None if value is None else value <= line, vetoes)


@dataclass(frozen=True)
class Change:
    """A change to the pipeline, and the throughput that it gains.

    Attributes:
        change: what is changed.
        name: of which stage, limit or queue; None if it has none.
        stage: the stage concerned, or None.
        by: 2 for half the service time or twice the permits, 1 for one more worker, None for no
            failures.
        low: the least that it gains, as a fraction of the throughput.
        high: the most that it gains.
        next: what limits the run then, or None.
    """

    change: ChangeKind
    name: str | None
    stage: str | None
    by: int | None
    low: float
    high: float
    next: str | None = None

    @property
    def middle(self) -> float:
        """The middle of the range."""
        return (self.low + self.high) / 2

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "change": self.change,
            "name": self.name,
            "stage": self.stage,
            "by": self.by,
            "gain": [_finite(round(self.low, 3)), _finite(round(self.high, 3))],
            "next": self.next,
        }


@dataclass
class Verdict:
    """The verdict, before `analyze` returns it as a dict."""

    kind: Kind
    why: str
    confidence: Confidence | None
    name: str | None = None
    stage: str | None = None
    ties: list[str] = field(default_factory=list)
    busy: float | None = None
    evidence: list[Witness] = field(default_factory=list)
    when: str | None = None
    advice: list[str] = field(default_factory=list)
    what_if: list[Change] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    @property
    def is_vetoed(self) -> bool:
        """Whether a witness rules it out."""
        return any(witness.is_veto for witness in self.evidence)

    def doubt(self, doubts: int) -> None:
        """Lower the confidence by so many steps."""
        if self.confidence is not None and doubts:
            steps = CONFIDENCES.index(self.confidence) + doubts
            self.confidence = CONFIDENCES[min(steps, len(CONFIDENCES) - 1)]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "kind": self.kind,
            "name": self.name,
            "stage": self.stage,
            "ties": self.ties,
            "busy": _finite(self.busy),
            "confidence": self.confidence,
            "why": self.why,
            "evidence": [witness.to_dict() for witness in self.evidence],
            "when": self.when,
            "what_if": [change.to_dict() for change in self.what_if],
            "advice": self.advice,
            "assumptions": self.assumptions,
        }


def _finite(value: float | None) -> float | None:
    """Return a number that JSON has; None for one of a report with impossible values."""
    return value if value is not None and math.isfinite(value) else None
