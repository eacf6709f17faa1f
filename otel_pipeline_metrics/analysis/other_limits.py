"""Verdicts about limits other than a stage: CPU, event loop, source, taking turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.analysis import wording
from otel_pipeline_metrics.analysis.thresholds import (
    BUSY,
    CPU_FULL,
    CROWD,
    FAILED_COST,
    PARTIAL,
    TIE,
    WASTE,
    WORTH,
    Verdict,
    cap_by_cpu,
    is_cpu_bound,
    waste,
)

if TYPE_CHECKING:
    from otel_pipeline_metrics.analysis.facts import Facts, StageGroup
    from otel_pipeline_metrics.analysis.thresholds import Confidence


def cpu(facts: Facts, top: StageGroup) -> Verdict:
    """Return the verdict that the CPUs are used up, or the one that the GIL allows."""
    full = facts.utilization is not None and facts.utilization >= CPU_FULL
    assumptions = [
        (
            "CPU time is known for the whole process only: which stage used it is inferred "
            "from busy times, which include waits for the CPU."
        )
    ]
    if not full and not is_cpu_bound(facts):
        assumptions.append(
            "That is less than one CPU: the rest is assumed to be lost in switches of the GIL, "
            "or to other programs on the machine."
        )
    advice = [
        (
            f"Look at {top.name} with a profiler first: its busy time is the largest, "
            f"{text.duration(top.busy)} in all."
        ),
        (
            "Compute in processes (multiprocessing, ProcessPoolExecutor), or with libraries "
            "that release the GIL; more tasks or threads will not help."
        ),
    ]
    if full:
        where = "Raise the quota" if facts.quota else "Use more or faster CPUs"
        advice[1] = f"{where}, or compute less: more workers will not help."
    return Verdict(
        kind="cpu",
        stage=top.name,
        busy=top.share,
        # measured: the CPU is used up; inferred: which stage used it
        confidence="high" if full and facts.concurrency >= CROWD else "medium",
        why=wording.cpu(facts),
        advice=advice,
        assumptions=assumptions,
    )


def event_loop(facts: Facts, top: StageGroup) -> Verdict:
    """Return the verdict that something blocks the event loop."""
    return Verdict(
        kind="event loop",
        stage=None,
        confidence="medium",
        why=wording.event_loop(facts),
        advice=[
            (
                "Look for blocking calls in coroutines (files, requests, time.sleep), first in "
                f"{top.name}, and move them to asyncio.to_thread()."
            ),
            "asyncio's debug mode (PYTHONASYNCIODEBUG=1) names the slow callbacks.",
        ],
        assumptions=[
            "The loop's delay is measured for all tasks together, so the stage is unknown."
        ],
    )


def source(facts: Facts, top: StageGroup) -> Verdict:
    """Return the verdict that items arrive too slowly in the first queue."""
    used = top.demand / facts.wall_s
    seen = facts.source_s is not None
    confidence: Confidence = "high" if seen and used < BUSY else "medium" if seen else "low"
    advice = [
        "Make the source faster: fetch ahead, in parallel or in larger batches.",
        "More workers of any stage will not help; fewer may be enough.",
    ]
    if facts.partial:
        confidence = "medium" if confidence == "high" else confidence
    return Verdict(
        kind="source",
        confidence=confidence,
        why=wording.source(facts),
        advice=advice,
        assumptions=[
            (
                "The source is not a stage: that it was slow is inferred because it hardly ever "
                "found the queue full, and because the stages were idle."
            )
        ]
        if seen
        else ["Inferred: all stages had time left, and none waited for room in a queue."],
    )


def find_loop_source(facts: Facts, top: StageGroup) -> Verdict:
    """Return the verdict that items arrive too slowly in the loop around a stage."""
    clear = top.between > 0.8 * top.work and top.demand >= BUSY * facts.wall_s
    return Verdict(
        kind="source",
        stage=top.name,
        busy=top.share,
        confidence="high" if clear and not top.ephemeral else "medium",
        why=wording.explain_loop_source(top, facts),
        advice=[
            (
                f"Look at what the loop around {top.name} awaits between two calls: fetch ahead, "
                "in parallel or in larger batches."
            ),
            "If that is work of its own, make it a stage, so that it has a name here.",
        ],
        assumptions=["Time between two calls counts as busy; its purpose is unknown."],
    )


def round_robin(facts: Facts) -> Verdict:
    """Return the verdict on stages that the same workers run one after the other."""
    ordered = sorted(facts.round_robin, key=lambda group: group.demand, reverse=True)
    top = ordered[0]
    tied = [group for group in ordered if top.demand < TIE * group.demand]
    together = sum(group.demand for group in facts.round_robin)
    saved = top.demand * waste(top)
    verdict = Verdict(
        kind="stage",
        stage=top.name,
        busy=top.share,
        confidence="low" if facts.unseen else "medium",
        why=wording.explain_turns(top, tied, facts),
        assumptions=[wording.MEASURED, wording.TURNS],
    )
    if waste(top) >= WASTE and together / (together - saved) - 1 >= WORTH:
        verdict.kind = "errors"
        verdict.why += f" {wording.errors(top, waste(top), facts)}"
        verdict.assumptions.append(FAILED_COST)
        verdict.advice.append(
            f"Find out why {top.name} fails: without that, about "
            f"{text.percent(together / (together - saved) - 1)} more throughput."
        )
    elif len(tied) > 1:
        verdict.kind = "tie"
        verdict.ties = [group.name for group in tied]
    names = text.listed([group.name for group in facts.round_robin])
    if is_cpu_bound(facts):
        verdict.advice.append(
            f"Run {names} in parallel, in processes, with a queue between: they compute "
            f"({facts.cores:.2f} CPUs busy), so threads or tasks will not help."
        )
    else:
        gain = cap_by_cpu(facts, together / top.demand - 1)
        verdict.advice.append(
            f"Run {names} in parallel, each in a worker (thread or task) of its own with a queue "
            f"between: at most about {text.percent(gain)} more throughput."
        )
    verdict.advice.append(
        f"Or make {top.name} faster. More workers of one stage cannot help while they take turns."
    )
    if facts.partial:
        verdict.assumptions.append(PARTIAL)
    return verdict
