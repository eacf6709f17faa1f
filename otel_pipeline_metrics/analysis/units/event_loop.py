"""`event loop`: one stage, or something that is none, computes or blocks in the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.analysis.bounds import FULL
from otel_pipeline_metrics.analysis.findings import Change, Verdict, Witness, at_least, at_most
from otel_pipeline_metrics.analysis.loop_waits import held_by, late_share

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.case import Case
    from otel_pipeline_metrics.analysis.facts import Facts
    from otel_pipeline_metrics.analysis.parts import Part


# A loop that only awaits runs its callbacks within a millisecond. One that is late by this, one
# time in twenty, is blocked; so is one that is late by the other more often than not.
LATE_S: Final = 0.1
USUALLY_LATE_S: Final = 0.005
# From this part of the run on, what coroutines compute holds the loop.
HELD: Final = 0.6
# From this part of the stages' time on, their waits for the loop may cost more than any stage.
WAITED: Final = 0.25
# From this part of the moments on, a ready thread has no CPU because of other programs.
STARVED: Final = 0.5


def is_late(facts: Facts) -> bool:
    """Tell whether the event loop ran its callbacks late."""
    return (facts.loop_delay_s or 0.0) >= LATE_S or (
        facts.loop_delay_usual_s or 0.0
    ) >= USUALLY_LATE_S


def check(case: Case) -> Verdict | None:
    """Coroutines wait for their turn, because others compute or block between two awaits."""
    facts = case.facts
    waited = late_share(facts)
    if waited >= WAITED:
        return _measured(case, waited)
    awaiting, holder = _awaiting(facts), _holder(facts)
    held = sum(part.running_s or 0.0 for part in facts.parts.values()) / facts.wall_s
    late = facts.loop_delay_s
    if late is None and facts.loop_delay_usual_s is None:
        return _inferred(case, holder, awaiting)
    if not is_late(facts):
        return None
    known = holder is not None and held >= HELD
    starved = facts.run_delay is not None and facts.run_delay >= STARVED
    evidence = [
        at_least("event loop late one time in twenty, seconds", late, LATE_S),
        at_least(
            "event loop late every second time, seconds", facts.loop_delay_usual_s, USUALLY_LATE_S
        ),
        at_least("part of the run that stages ran, not awaited", held, HELD),
        at_most("moments at which a ready thread has no CPU", facts.run_delay, STARVED),
    ]
    if not known and (starved or (facts.parts and not awaiting)):
        return None
    if not known and facts.run_delay is None and (late or 0.0) < LATE_S:
        # on a busy machine, a loop that nothing blocks is as late
        return None
    used = "" if facts.cores is None else f" while {facts.cores:.2f} CPUs were busy"
    why = (
        f"One time in twenty, the event loop ran {text.duration(late or 0.0)} late or more{used}: "
        "something blocks it, and every task waits meanwhile."
    )
    return _verdict(case, holder if known else None, why, evidence, sure=known and awaiting > 0)


def _measured(case: Case, waited: float) -> Verdict | None:
    """Return the verdict if the stages' waits for the event loop cost more than anything else."""
    facts, best, holders = case.facts, case.best, held_by(case.facts)
    longest = max(holders, key=holders.__getitem__, default=None)
    if best is None or best.change != "faster" or longest is None or best.name != longest:
        return None
    holder, held = facts.parts[longest], sum(holders.values()) / facts.wall_s
    evidence = [
        at_least("part of the stages' time that was a wait for the event loop", waited, WAITED),
        at_least("part of the run that stages held the event loop", held, HELD),
    ]
    why = (
        f"Stages held the event loop {text.percent(held)} of the run, {holder.name} for "
        f"{text.percent(holder.held_s / facts.wall_s)} of it, and up to {text.percent(waited)} of "
        "the time of all stages was a wait for their turn meanwhile."
    )
    verdict = _verdict(case, holder, why, evidence, sure=held >= HELD)
    verdict.what_if = case.listed(best)
    return verdict


def _inferred(case: Case, holder: Part | None, awaiting: int) -> Verdict | None:
    """Return the verdict without a measured delay of the loop.

    One stage runs nearly all the time, and others that only await take as long as it does.
    """
    facts = case.facts
    if holder is None or not awaiting:
        return None
    running = (holder.running_s or 0.0) / facts.wall_s
    slow = [
        bound
        for bound in case.bounds.together
        if (part := facts.parts.get(str(bound.name))) is not None
        and part is not holder
        and (part.awaiting_s or 0.0) >= 0.9 * part.own_s
        and bound.seconds >= 0.9 * facts.wall_s
    ]
    if running < FULL or (holder.awaiting_s or 0.0) > 0.1 * holder.own_s or not slow:
        return None
    names = text.listed([str(bound.name) for bound in slow])
    evidence = [
        at_least(f"part of the run that {holder.name} ran", running, FULL),
        at_least("stages that only await, and were busy all the time", len(slow), 1),
    ]
    why = (
        f"{holder.name} ran {text.percent(running)} of the time without awaiting, and {names} "
        "were never idle meanwhile: they wait for the event loop."
    )
    return _verdict(case, holder, why, evidence, sure=False)


def _verdict(
    case: Case, holder: Part | None, why: str, evidence: list[Witness], *, sure: bool
) -> Verdict:
    facts = case.facts
    name = None if holder is None else holder.name
    changes = []
    if holder is not None:
        running = min(holder.running_s or 0.0, 0.98 * facts.wall_s)
        most = facts.wall_s / (facts.wall_s - running / 2) - 1
        # other stages wait for the loop too, so what limits the run then is not known
        changes.append(Change("faster", name, name, 2, most / 2, 1.2 * most))
    where = f"first in {name}" if name else "in stages and beside them"
    return Verdict(
        kind="event loop",
        name=name,
        stage=name,
        confidence="high" if sure else "medium",
        evidence=evidence,
        why=why + (f" {name} holds it most." if name and name not in why else ""),
        what_if=changes,
        advice=[
            (
                f"Look for computing and for blocking calls in coroutines (files, requests, "
                f"time.sleep), {where}, and move them to a process or to asyncio.to_thread()."
            ),
            "asyncio's debug mode (PYTHONASYNCIODEBUG=1) names the slow callbacks.",
        ],
        assumptions=[]
        if name
        else ["The loop's delay is measured for all tasks together, so the stage is unknown."],
    )


def _awaiting(facts: Facts) -> int:
    """Return the number of stages that await for some of their time."""
    return sum((part.awaiting_s or 0.0) > 0.1 * part.own_s > 0 for part in facts.parts.values())


def _holder(facts: Facts) -> Part | None:
    """Return the stage that ran for longest."""
    known = [part for part in facts.parts.values() if part.running_s]
    return max(known, key=lambda part: part.running_s or 0.0, default=None)
