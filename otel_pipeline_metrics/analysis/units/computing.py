"""`cpu`, `gil`, `machine`: the CPUs are used up, Python runs one thread at a time, others run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.analysis.cpu_left import CPU_FULL
from otel_pipeline_metrics.analysis.findings import Verdict, at_least, at_most

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.case import Case
    from otel_pipeline_metrics.analysis.facts import Facts
    from otel_pipeline_metrics.analysis.findings import Change


# Between so many busy CPUs, one thread at a time runs Python; switching costs the rest.
CPU_ONE: Final = (0.75, 1.25)
# So many workers that are busy at a time cannot all have computed on one CPU.
CROWD: Final = 1.5
# Facts: one thread that computes in Python holds the GIL 96 % of the time, one that computes half
# of it 36 %, threads that wait 1 %.
GIL_HELD: Final = 0.8
# A thread that is ready to run hardly ever waits on a machine with CPUs to spare.
STARVED: Final = 0.5
# From this part of its time on, a stage computes some of it, and from the other one on most of it.
SOME: Final = 0.3
MOST: Final = 0.7
# Below this one it only waits, and a busy machine makes it hardly slower.
A_LITTLE: Final = 0.02
# Of a run, from which part on it matters that a stage computes.
COMPUTES: Final = 0.5


def check_machine(case: Case) -> Verdict | None:
    """Other programs, or a quota, keep threads that are ready to run from a CPU."""
    facts = case.facts
    full = facts.machine is not None and facts.machine >= CPU_FULL
    # two numbers that tell the same need fewer moments
    delay = facts.starved if full else facts.run_delay
    starved = delay is not None and delay >= STARVED
    computes, waits = _computing_share(facts)
    if facts.utilization is None or not (starved or (full and (computes or 0.0) >= SOME)):
        return None
    if waits is None and delay is not None:
        waits = delay * (1 - facts.utilization)
    evidence = [
        at_least("moments at which a ready thread has no CPU", delay, STARVED),
        at_least("CPUs of the host in use, by all programs", facts.machine, CPU_FULL),
        at_most("CPUs used, of those that there are", facts.utilization, CPU_FULL, vetoes=True),
        at_least("wait for a CPU, of the run", waits, 0.3, vetoes=True),
        at_least("part of its time that its stage computed", computes, A_LITTLE, vetoes=True),
    ]
    how = (
        f"At {text.percent(delay)} of the moments, a thread that was ready to run had no CPU"
        if starved
        else f"{_computing(facts)} computed for only a part of the time that it ran, all CPUs of "
        "the host were busy"
    )
    return Verdict(
        kind="machine",
        stage=_computing(facts),
        confidence="medium" if starved else "low",
        evidence=evidence,
        what_if=_faster(case),
        why=(
            f"{how}, and this process used only {facts.cores or 0.0:.2f} CPUs: other programs had "
            "the rest."
        ),
        advice=["Run it where fewer programs compete for the CPUs, and measure again."],
        assumptions=["Times of all stages include waits for a CPU, so they say little."],
    )


def _computing_share(facts: Facts) -> tuple[float | None, float | None]:
    """Return for which part of its time the stage that computes most had a CPU.

    Also return which part of the run it ran without one; None is unknown.
    """
    part = facts.parts.get(str(_computing(facts)))
    if part is None or part.cpu_s is None:
        return None, None
    ran = part.own_s if part.running_s is None else part.running_s
    return part.cpu_s / ran if ran else None, min(1.0, (ran - part.cpu_s) / facts.wall_s)


def check_cpu(case: Case) -> Verdict | None:
    """All CPUs, or all that a quota allows, are used up."""
    facts = case.facts
    if facts.utilization is None or facts.utilization < CPU_FULL:
        return None
    cpus = facts.cpus or 0.0
    where = "Raise the quota" if facts.quota else "Use more or faster CPUs"
    limit = "the cgroup's quota of" if facts.quota else "all of"
    busy, children = _concurrency(facts), facts.children or 0.0
    inside = "" if children < SOME else f", {children:.1f} of them in child processes,"
    return Verdict(
        kind="cpu",
        stage=_computing(facts),
        confidence="high" if max(busy, children) >= CROWD else "medium",
        evidence=[
            at_least("CPUs used, of those that there are", facts.utilization, CPU_FULL),
            at_least("stages busy at a time", busy, CROWD),
            at_least("CPUs busy in child processes", facts.children, CROWD),
        ],
        what_if=_faster(case),
        why=(
            f"The run used {text.percent(facts.utilization)} of {limit} {cpus:g} CPUs{inside} with "
            f"{busy:.1f} workers busy at a time on average."
        ),
        advice=[_profile(facts), f"{where}, or compute less."],
        assumptions=[
            (
                "CPU time of the whole process is measured; the stage is the one with most of it, "
                "as far as that is known."
            )
        ],
    )


def check_gil(case: Case) -> Verdict | None:
    """Several threads compute in Python, which runs one of them at a time."""
    facts = case.facts
    if facts.cores is None:
        return None
    busy, held = _computing_at_a_time(facts), facts.gil_held
    evidence = [
        at_least("stages that compute at a time", busy, CROWD, vetoes=True),
        at_least("time in which a thread held the GIL", held, GIL_HELD, vetoes=True),
        at_least("CPUs busy", facts.cores, CPU_ONE[0], vetoes=True),
        at_most("CPUs busy", facts.cores, CPU_ONE[1], vetoes=True),
        at_most("part of the run that the source took", _source_share(case), 1.0, vetoes=True),
    ]
    if held is None and facts.cores < CPU_FULL and _waits(facts):
        # as many workers that await beside one that computes look the same
        return None
    less = facts.cores < CPU_FULL
    return Verdict(
        kind="gil",
        stage=_computing(facts),
        confidence="high" if held is not None and held >= GIL_HELD and not less else "medium",
        evidence=evidence,
        what_if=_faster(case),
        why=(
            f"The process kept {facts.cores:.2f} of {facts.cpus or 0.0:g} CPUs busy with "
            f"{busy:.1f} workers busy at a time on average. One thread at a time runs Python (the "
            "GIL, or one event loop), so they shared about one CPU, and their busy times include "
            "waits for each other."
        ),
        advice=[
            _profile(facts),
            (
                "Compute in processes (multiprocessing, ProcessPoolExecutor), or with libraries "
                "that release the GIL."
            ),
        ],
        assumptions=[
            (
                "That is less than one CPU: the rest is assumed to be lost in switches of the "
                "GIL, or to other programs on the machine."
            )
        ]
        if less
        else [],
    )


def _faster(case: Case) -> list[Change]:
    """Return what less work gains; more workers or permits get no more of the CPU."""
    return [change for change in case.listed() if change.change == "faster"]


def _source_share(case: Case) -> float | None:
    """Return how long the source took, by what the largest group of workers needed."""
    facts = case.facts
    if facts.source_s is None or not facts.groups or not facts.groups[0].demand:
        return None
    return facts.source_s / facts.groups[0].demand


def _concurrency(facts: Facts) -> float:
    """Return the number of workers that were busy at a time on average."""
    own = sum(part.own_s for part in facts.parts.values()) / facts.wall_s if facts.wall_s else 0.0
    return max(own, facts.concurrency)


def _computing_at_a_time(facts: Facts) -> float:
    """Return how many workers that compute were busy at a time, as far as that is known."""
    used = (facts.cores or 0.0) * facts.wall_s
    found = [part for part in facts.parts.values() if (part.cpu_s or 0.0) >= SOME * used / 2]
    if not used or sum(part.cpu_s or 0.0 for part in found) < MOST * used:
        # computed elsewhere, such as in threads that coroutines await
        return _concurrency(facts)
    ran = sum(p.own_s if p.running_s is None else p.running_s for p in found)
    return ran / facts.wall_s


def _waits(facts: Facts) -> bool:
    """Tell whether stages are known to await for most of their time."""
    known = [p for p in facts.parts.values() if p.awaiting_s is not None]
    own = sum(part.own_s for part in known)
    return bool(own) and sum(part.awaiting_s or 0.0 for part in known) > COMPUTES * own


def _computing(facts: Facts) -> str | None:
    """Return the stage that used most CPU time; without that, the one with most busy time."""
    used = {name: part.cpu_s for name, part in facts.parts.items() if part.cpu_s}
    if used:
        return max(used, key=lambda name: used[name] or 0.0)
    return facts.groups[0].name if facts.groups else None


def _profile(facts: Facts) -> str:
    name = _computing(facts)
    return f"Look at {name} with a profiler first." if name else "Look at it with a profiler."
