"""Find what limits a run: one of its stages, or something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.analysis import caches, wording
from otel_pipeline_metrics.analysis.case import ALIKE, WORTH, make_case
from otel_pipeline_metrics.analysis.cpu_left import CPU_FULL
from otel_pipeline_metrics.analysis.findings import Verdict, at_most
from otel_pipeline_metrics.analysis.over_time import when
from otel_pipeline_metrics.analysis.reading import facts_of
from otel_pipeline_metrics.analysis.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics.analysis.case import Case
    from otel_pipeline_metrics.analysis.facts import Facts


# From these shares of moments without a CPU on, a verdict is one step and two steps less sure. On a
# machine with CPUs to spare it is a few hundredths.
LOADED: Final = (0.2, 0.4)


class _Report(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


def analyze(report: _Report | Mapping[str, Any]) -> dict[str, Any]:
    """Return what limits a run: the `bottleneck` part of its report.

    This depends on the report's numbers alone, so loaded and merged reports work too. Keys:

    - `kind`: "stage"; "source" (items arrive too slowly); "limit" (a lock, semaphore, pool or
      rate); "undecorated" (a step that is no stage); "serial" (nothing overlaps); "cpu"; "gil";
      "machine" (other programs have the CPUs); "event loop"; "errors" (a stage's failures and
      retries take its time); "workers" (a stage has too few); "skew" (one worker has most of the
      work); "tie"; "unknown".
    - `name`: the stage, limit or queue, or None. `stage`: the stage concerned, or None.
    - `ties`: all that limit the run equally. `busy`: the stage's busy share.
    - `confidence`: "high", "medium", "low", or None without a claim.
    - `why`: a few sentences with the numbers. `evidence`: witnesses, each with `name`, `value`,
      `line`, the line drawn, and `for`, whether it speaks for the verdict; None is unknown.
    - `when`: how that changed during the run, or None.
    - `what_if`: changes, each with `change` ("faster", "workers", "limit", "errors"), `name`,
      `stage`, `by` (2: half the service time, or twice the permits; 1: one more worker; None: no
      failures), `gain` ([0.2, 0.3] is 20 to 30 % more throughput), and `next`, what limits the
      run then, or None.
    - `advice`, `assumptions`: sentences. Caches that should be larger are part of the advice.

    Args:
        report: a `RunReport`, or its `to_dict()`.
    """
    data: Any = report if isinstance(report, dict) else None
    if data is None:
        data = report.to_dict() if hasattr(report, "to_dict") else dict(report)
    facts = facts_of(data)
    verdict = _verdict(facts)
    if verdict.kind != "unknown":
        verdict.when = when(data, facts)
    verdict.advice += caches.advise(data)
    return verdict.to_dict()


def _verdict(facts: Facts) -> Verdict:
    has_parts = any(part.own_s for part in facts.parts.values())
    if facts.wall_s and (has_parts or any(group.work for group in facts.groups)):
        case = make_case(facts)
        for unit in UNITS:
            found = unit.check(case)
            if found is not None and not found.is_vetoed:
                _doubt_if_starved(found, facts)
                _doubt_if_failures_may_cost_more(found, case)
                _doubt_if_all_calls_fail(found, case)
                return found
    return _unknown(facts)


def _doubt_if_starved(found: Verdict, facts: Facts) -> None:
    """Lower the confidence where threads had no CPU: all times include waits for one."""
    own = facts.utilization is not None and facts.utilization >= CPU_FULL
    if own or found.kind == "machine":
        return
    taken = at_most("CPUs of the host in use, by all programs", facts.machine, CPU_FULL)
    if taken.for_it is False:
        found.evidence.append(taken)
        found.doubt(1)
        found.assumptions.append(
            f"All CPUs of the host were busy, {text.percent(facts.utilization)} of them in this "
            "program: a stage may wait for a CPU, or for another program that does."
        )
    if facts.starved is None:
        return
    witness = at_most("moments at which a ready thread had no CPU", facts.starved, LOADED[0])
    if witness.for_it:
        return
    found.evidence.append(witness)
    found.doubt(1 if facts.starved < LOADED[1] else 2)
    found.assumptions.append(
        f"At {text.percent(facts.starved)} of the moments, a thread that was ready to run had no "
        "CPU: the machine was busy, and the times of all stages include waits for it."
    )


def _doubt_if_failures_may_cost_more(found: Verdict, case: Case) -> None:
    """Lower the confidence where calls fail, and may have been tried again."""
    change = next((c for c in case.changes if c.change == "errors" and c is not case.best), None)
    best = case.best
    if found.kind == "errors" or change is None or best is None:
        return
    if change.low < WORTH and change.middle > best.middle + ALIKE:
        found.doubt(1)
        found.assumptions.append(
            f"If each failed call of {change.name} was tried again, no failures would gain up to "
            f"{text.percent(change.high)} more throughput; if it was given up, nothing."
        )


def _doubt_if_all_calls_fail(found: Verdict, case: Case) -> None:
    """Lower the confidence where what the failures of the verdict's stage cost is unknown."""
    errors, _, calls = case.facts.failures.get(str(found.stage), (0, 0, 0))
    if errors and errors >= calls and case.best is not None and case.best.stage == found.stage:
        found.doubt(1)
        found.assumptions.append(
            f"Every call of {found.stage} failed, so how long a good one takes is unknown."
        )


def _unknown(facts: Facts) -> Verdict:
    if not facts.groups and facts.unseen:
        name, longest = max(facts.unseen.items(), key=lambda found: found[1])
        return Verdict(
            kind="unknown",
            confidence=None,
            why=(
                "No queue is instrumented, so waiting looks like working. The most "
                f"time was spent in {name}: {text.duration(longest)} in all, in a run of "
                f"{text.duration(facts.wall_s)}."
            ),
            advice=[wording.NO_QUEUE],
        )
    ran = facts.groups or facts.parts
    why = "No stage was busy for long enough." if ran else "No stage ran."
    return Verdict(kind="unknown", confidence=None, why=why)
