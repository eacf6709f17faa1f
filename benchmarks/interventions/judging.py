"""Judge a verdict by what the interventions on its shape gained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from benchmarks.interventions.running import Trial

Outcome = Literal["right", "wrong", "unknown", "no answer"]

# Percentage points of throughput, as a fraction: gains that are closer count as equal.
POINTS: Final = 0.05

# What tests a kind of verdict, and what tests an entry of `what_if`, beside its own name.
_TESTED_BY: Final = {
    "stage": "faster",
    "serial": "faster",
    "event loop": "faster",
    "skew": "faster",
    "undecorated": "faster",
    "source": "faster",
    "workers": "workers",
    "limit": "limit",
    "errors": "errors",
}

# By how much the bench changes what it changes; an entry of `what_if` about more is not tested.
_BY: Final = {"faster": 2, "workers": 1, "limit": 2, "errors": None}


@dataclass(frozen=True)
class Range:
    """One told gain, and what was measured; None where the file has no such intervention."""

    change: str
    name: str | None
    low: float
    high: float
    measured: float | None

    @property
    def holds(self) -> bool | None:
        if self.measured is None:
            return None
        return self.low <= self.measured <= self.high

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclass(frozen=True)
class Judgement:
    """A verdict, and whether it is right."""

    trial: Trial
    outcome: Outcome
    best: str | None
    """The intervention that gains most; None where none gains 5 points."""
    told: str | None
    """The intervention that tests the verdict."""
    ranges: list[Range]

    @property
    def verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = self.trial.report["bottleneck"]
        return found

    @property
    def confidence(self) -> str | None:
        found: str | None = self.verdict["confidence"]
        return found


def judge(trial: Trial) -> Judgement:
    """Tell whether the verdict of the plain run names what gains most.

    It is right if one of the interventions that test it gains within 5 percentage points of the
    best one. A kind without an intervention is wrong. Where none gains 5 points, only the kinds
    that the file names are right, and without one there is no answer.
    """
    verdict, gains = trial.report["bottleneck"], _comparable(trial.gains)
    best = max(gains, key=gains.__getitem__, default=None)
    if best is not None and gains[best] < POINTS:
        best = None
    told = tested_by(verdict, gains)
    ranges = [_range(entry, verdict, trial.gains) for entry in what_if(verdict)]
    return Judgement(trial, _outcome(verdict, gains, best, told), best, told, ranges)


def _comparable(gains: Mapping[str, float]) -> dict[str, float]:
    """Leave a tie out where one of its stages alone gains: two changes outdo any single one."""
    alone = any(gain >= POINTS for key, gain in gains.items() if key.partition(":")[0] == "faster")
    return {key: gain for key, gain in gains.items() if not (alone and kind_of(key) == "tie")}


def kind_of(key: str) -> str:
    """Return the part of an intervention before its name."""
    return key.partition(":")[0]


def _outcome(
    verdict: Mapping[str, Any], gains: Mapping[str, float], best: str | None, told: str | None
) -> Outcome:
    kind = verdict["kind"]
    if best is None:
        named = {kind_of(key) for key in gains} - {"faster", "workers"}
        if not named or named == {"unknown"}:
            return "right" if named and kind == "unknown" else "no answer"
        if kind == "unknown":
            return "unknown"
        return "right" if told is not None and kind in named else "wrong"
    if kind == "unknown":
        return "unknown"
    return "right" if told is not None and gains[told] >= gains[best] - POINTS else "wrong"


def tested_by(verdict: Mapping[str, Any], gains: Mapping[str, float]) -> str | None:
    """Return the intervention that tests a verdict: of several, the one that gains most."""
    kind = verdict["kind"]
    if kind == "tie":
        return next((key for key in gains if _is_tie_of(key, verdict["ties"])), None)
    names = _names(verdict)
    keys = [f"{prefix}:{n}" for n in names for prefix in (_TESTED_BY.get(kind, kind), kind)]
    if kind in {"workers", "limit"}:
        keys = [f"{kind}:{name}" for name in names]
    found = [key for key in keys if key in gains] or ([kind] if kind in gains else [])
    return max(found, key=gains.__getitem__, default=None)


def _is_tie_of(key: str, ties: Iterable[str]) -> bool:
    """Tell whether an intervention is "tie", or "tie:A,B" with the same stages."""
    kind, _, names = key.partition(":")
    return kind == "tie" and (not names or set(names.split(",")) == set(ties))


def _names(verdict: Mapping[str, Any]) -> list[str]:
    """Return what a verdict names: a stage, a limit or a queue."""
    found = [verdict.get("name"), verdict.get("stage")]
    return [name for name in dict.fromkeys(found) if name is not None]


def what_if(verdict: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Return the told gains; schema 1 has one at most, of one more worker, as a number."""
    told: Any = verdict["what_if"] or []
    if isinstance(told, dict):
        gain = told["gain"]
        entry = {"change": "workers", "name": verdict["stage"], "stage": verdict["stage"]}
        return [{**entry, "by": told["more_workers"], "gain": [gain, gain], "next": told["next"]}]
    return list(told)


def _range(
    entry: Mapping[str, Any], verdict: Mapping[str, Any], gains: Mapping[str, float]
) -> Range:
    change, name = entry["change"], entry.get("name") or entry.get("stage")
    names = [n for n in (entry.get("name"), entry.get("stage")) if n is not None]
    keys = [f"{change}:{n}" for n in names] + [change]
    if (
        change == "faster"
        and name == verdict.get("name")
        and verdict["kind"] in {"source", "undecorated"}
    ):
        # what the file names by its kind; one of another kind changes something else
        keys.append(verdict["kind"])
    measured = next((gains[key] for key in keys if key in gains), None)
    if entry.get("by") != _BY.get(change):
        measured = None
    low, high = entry["gain"]
    return Range(change, name, low, high, measured)
