"""Write the verdict's sentences, with the numbers that led to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics.analysis.facts import Facts, StageGroup


# shares below this are not mentioned
_MENTIONED: Final = 0.1

NO_QUEUE: Final = (
    "Wrap the queues between the stages with wrap_queue(): without that, waiting looks like "
    "working."
)
MEASURED: Final = "The demand of a stage is its busy time over its workers, as this run had it."
SCALES: Final = (
    "The gain assumes that another worker is as fast as the others: right for awaited I/O while "
    "the other side can take more, wrong for computing in Python, which the GIL keeps on one CPU."
)
BUFFERS: Final = (
    "The gain is an upper bound: it assumes queues that are large enough to even out slow and "
    "fast calls."
)

TURNS: Final = (
    "That they take turns is inferred: their times add up to the run's, and none of them waited "
    "for another."
)


def workers(amount: float) -> str:
    """Return a number of workers, rounded, as text."""
    return text.counted(round(amount), "worker")


def demand(group: StageGroup, facts: Facts) -> str:
    """Return how much of the run a group's work takes."""
    each = f" for each of its {workers(group.workers)}" if round(group.workers) > 1 else ""
    work, wall = text.duration(group.demand), text.duration(facts.wall_s)
    return f"{work} of work{each} in a run of {wall}"


def stage(top: StageGroup, facts: Facts) -> str:
    """Explain why a stage limits the run."""
    parts = [f"{top.name} was busy {text.percent(top.share)} of the time: {demand(top, facts)}."]
    if len(top.names) > 1:
        parts.append(f"The same workers run {text.listed(top.names)}; {top.name} takes most of it.")
    if top.permit_wait_s > top.busy:
        waited = top.permit_wait_s / top.wall if top.wall else 0.0
        parts[0] = (
            f"{top.name} waited for permits or rate limits {text.percent(waited)} of the time "
            f"and was busy {text.percent(top.share)}: {demand(top, facts)}."
        )
    others = [group for group in facts.groups if group is not top]
    parts += _states(others)
    if others:
        following = others[0]
        second = text.duration(following.demand)
        parts.append(f"The next largest demand is {following.name}'s, {second}.")
    if facts.source_s is not None and top.demand < 1.1 * facts.source_s:
        parts.append(
            f"The source took {text.duration(facts.source_s)} to fill the first queue, "
            "so it is about as slow."
        )
    if top.gets and top.inside is not None and top.between > 0.3 * top.busy:
        parts.append(
            f"{text.percent(top.between / top.busy)} of its busy time passed between its "
            "calls, in the loop around it."
        )
    return " ".join(parts)


def _states(others: Sequence[StageGroup]) -> list[str]:
    """Return which stages waited: blocked by backpressure, or idle without input."""
    blocked = [s for s in others if s.blocked_share >= _MENTIONED and s.blocked >= s.idle]
    idle = [s for s in others if s.wall and s.idle / s.wall >= _MENTIONED and s.idle > s.blocked]
    sentences = []
    if blocked:
        each = [f"{s.name} {text.percent(s.blocked_share)}" for s in blocked]
        sentences.append(f"Blocked on the next stage: {text.listed(each)}.")
    if idle:
        each = [f"{s.name} {text.percent(s.idle / s.wall)}" for s in idle]
        sentences.append(f"Waiting for input: {text.listed(each)}.")
    return sentences


def tie(tied: Sequence[StageGroup], facts: Facts) -> str:
    """Explain that several stages limit the run equally."""
    each = [f"{s.name} {text.duration(s.demand)} ({text.percent(s.share)} busy)" for s in tied]
    names, wall = text.listed([s.name for s in tied]), text.duration(facts.wall_s)
    return (
        f"{names} have about the same work for each of their workers in a run of {wall}: "
        f"{text.listed(each)}. Relieving one alone gains little."
    )


def explain_turns(top: StageGroup, tied: Sequence[StageGroup], facts: Facts) -> str:
    """Explain that the same workers ran the stages one after the other."""
    count = round(top.workers / facts.runs)
    where, in_each = (
        ("one worker", "") if count <= 1 else (f"the same {workers(count)}", " in each")
    )
    each = text.listed([f"{s.name} {text.duration(s.demand)}" for s in facts.round_robin])
    together = text.duration(sum(group.demand for group in facts.round_robin))
    names = text.listed([s.name for s in facts.round_robin])
    most = f"{top.name} takes the most, {text.percent(top.demand / facts.wall_s)} of the run."
    if len(tied) > 1:
        most = f"{text.listed([s.name for s in tied])} take about the same."
    return (
        f"{names} take turns in {where}: only one of them runs at "
        f"a time{in_each}, and none waits for another. Their busy times ({each}) add up to "
        f"{together} in a run of {text.duration(facts.wall_s)}. {most}"
    )


def cpu_left(facts: Facts) -> str:
    """Explain that the CPU caps the gain."""
    return (
        f"{facts.cores or 0.0:.2f} CPUs were busy already, and more threads or tasks share one: "
        "the gain is limited to what is left of it."
    )


def source(facts: Facts) -> str:
    """Explain that items arrive too slowly."""
    sentences = ["Items arrive more slowly than the stages could take them."]
    if facts.groups:
        top = facts.groups[0]
        share = f" ({text.percent(top.demand / facts.wall_s)})" if facts.wall_s else ""
        sentences.append(f"The busiest stage, {top.name}, has {demand(top, facts)}{share}.")
        sentences += _states(facts.groups)
    return " ".join(sentences)


def explain_loop_source(top: StageGroup, facts: Facts) -> str:
    """Explain that the loop around the first stage waits for its source."""
    per_cent = text.percent(top.between / top.busy)
    return " ".join(
        [
            (
                f"{top.name} takes from no queue, and {per_cent} of its workers' busy time passed "
                "between its calls: the loop around it waits for its source."
            ),
            *_states([group for group in facts.groups if group is not top]),
        ]
    )


def cpu(facts: Facts) -> str:
    """Explain that the CPU is used up."""
    cores, cpus = facts.cores or 0.0, facts.cpus or 0.0
    if facts.utilization is not None and facts.utilization >= 0.9:
        limit = "the cgroup's quota of" if facts.quota else "all of"
        used = f"The run used {text.percent(facts.utilization)} of {limit} {cpus:g} CPUs."
    else:
        used = (
            f"The process kept {cores:.2f} of {cpus:g} CPUs busy. One thread at a time runs "
            "Python (the GIL, or one event loop), so about one CPU is all that it can use."
        )
    return (
        f"{used} {facts.concurrency:.1f} workers were busy at a time on average: they shared "
        "the CPU, so their busy times include invisible waits for each other."
    )


def event_loop(facts: Facts) -> str:
    """Explain that something blocks the event loop."""
    late, cores = facts.loop_delay_s or 0.0, facts.cores
    used = "" if cores is None else f" while only {cores:.2f} CPUs were busy"
    return (
        f"One time in twenty, the event loop ran {text.duration(late)} late or more{used}: "
        "something blocks it, and every task waits meanwhile."
    )


def errors(top: StageGroup, waste: float, facts: Facts) -> str:
    """Explain that a stage's failed attempts take its time."""
    return (
        f"{top.name} limits the run ({text.percent(top.share)} busy: {demand(top, facts)}), and "
        f"{text.percent(waste)} of its attempts failed: {top.errors:,} errors and "
        f"{top.retries:,} retries in {top.count:,} calls."
    )


def explain_few_workers(top: StageGroup, other: StageGroup, facts: Facts) -> str:
    """Explain that a stage limits the run because it has fewer workers than another."""
    more, less = text.duration(other.work), text.duration(top.work)
    return (
        f"{top.name} was busy {text.percent(top.share)} of the time with {workers(top.workers)}: "
        f"{demand(top, facts)}. {other.name} has more work in all ({more} against {less}), but "
        f"{workers(other.workers)} for it. The CPU was mostly free ({facts.cores or 0.0:.2f} "
        f"busy), so {top.name} mostly awaits something else."
    )
