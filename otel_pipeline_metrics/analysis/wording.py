"""Write the verdict's sentences, with the numbers that led to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics.analysis.facts import Facts, StageGroup
    from otel_pipeline_metrics.analysis.gains import Bound


# shares below this are not mentioned
_MENTIONED: Final = 0.1

NO_QUEUE: Final = (
    "Wrap the queues between the stages with wrap_queue(): without that, waiting looks like "
    "working."
)
MEASURED: Final = "The demand of a stage is its busy time over its workers, as this run had it."
SCALES: Final = (
    "Another worker is assumed to be as fast as the others: right for awaited I/O while the other "
    "side can take more, wrong for computing in Python, which the GIL keeps on one CPU."
)
PARTIAL: Final = "The run has not finished or did not succeed: these are its numbers so far."


def workers(amount: float) -> str:
    """Return a number of workers, rounded, as text."""
    return text.counted(round(amount), "worker")


def demand(group: StageGroup, facts: Facts) -> str:
    """Return how much of the run a group's work takes."""
    each = f" for each of its {workers(group.workers)}" if round(group.workers) > 1 else ""
    work, wall = text.duration(group.demand), text.duration(facts.wall_s)
    waits = " and waits at limits" if group.permit_wait_s >= _MENTIONED * group.work else ""
    return f"{work} of work{waits}{each} in a run of {wall}"


def stage(bound: Bound, facts: Facts, name: str) -> str:
    """Explain why a stage limits the run."""
    if bound.kind == "limit":
        used = text.percent(bound.seconds / facts.wall_s)
        return (
            f"The permits of {bound.name} were in use {used} of the time, and {name} holds them "
            f"for {text.duration(bound.made_of[name])}."
        )
    group, others = bound.group, [each for each in facts.groups if each is not bound.group]
    if group is None:
        calls = text.counted(bound.workers or 1, "call")
        parts = [
            (
                f"{bound.name} had {calls} in progress "
                f"{text.percent(bound.seconds / facts.wall_s)} of the time, as many as there ever "
                f"were: {text.duration(bound.seconds)} of {text.duration(facts.wall_s)}."
            )
        ]
    else:
        share = text.percent(group.share)
        parts = [f"{group.name} was busy {share} of the time: {demand(group, facts)}."]
        if len(group.names) > 1:
            parts.append(f"The same workers run {text.listed(group.names)}.")
    inside = {n: s for n, s in bound.made_of.items() if n is not None}
    if len(inside) > 1 or name != bound.name:
        each = [
            f"{n} {text.duration(s)}"
            for n, s in sorted(inside.items(), key=lambda found: found[1], reverse=True)
        ]
        parts.append(f"Of that, each stage's own time is {text.listed(each)}.")
    parts += _states(others)
    if others:
        following = max(others, key=lambda each: each.demand)
        second = text.duration(following.demand)
        parts.append(f"The next largest demand is {following.name}'s, {second}.")
    if facts.source_s is not None and bound.seconds < 1.1 * facts.source_s:
        parts.append(
            f"The source took {text.duration(facts.source_s)} to fill the first queue, "
            "so it is about as slow."
        )
    if (
        group is not None
        and group.gets
        and group.inside is not None
        and group.between > 0.3 * group.busy
    ):
        parts.append(
            f"{text.percent(group.between / group.busy)} of its busy time passed between its "
            "calls, in the loop around it."
        )
    return " ".join(parts)


def _states(others: Sequence[StageGroup]) -> list[str]:
    """Return which stages waited: for room in a queue, at a limit, or without input."""
    blocked = [s for s in others if s.wall and s.blocked >= s.idle]
    waited = {
        "Blocked on the next stage": [(s, s.blocked - s.permit_wait_s) for s in blocked],
        "Waiting at a limit": [(s, s.permit_wait_s) for s in blocked],
        "Waiting for input": [(s, s.idle) for s in others if s.wall and s.idle > s.blocked],
    }
    sentences = []
    for how, found in waited.items():
        each = [
            f"{s.name} {text.percent(t / s.wall)}" for s, t in found if t >= _MENTIONED * s.wall
        ]
        if each:
            sentences.append(f"{how}: {text.listed(each)}.")
    return sentences


def tie(tied: Sequence[Bound], facts: Facts) -> str:
    """Explain that several stages limit the run equally."""
    each = [f"{bound.name} {text.duration(bound.seconds)}" for bound in tied]
    names, wall = text.listed([str(bound.name) for bound in tied]), text.duration(facts.wall_s)
    return (
        f"{names} have about the same work for each of their workers in a run of {wall}: "
        f"{text.listed(each)}. Relieving one alone gains little."
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


def errors(name: str, saved: tuple[float, float], counts: tuple[int, int, int]) -> str:
    """Explain that a stage's failed attempts take its time.

    Args:
        name: the stage's.
        saved: the part of its time that they cost, at least and at most.
        counts: its errors, retries and calls.
    """
    low, high = (text.percent(max(0.0, part)) for part in saved)
    cost = low if low == high else f"{low} to {high}"
    failed, retries, calls = (f"{count:,}" for count in counts)
    return (
        f"Failures cost {cost} of the time of {name}, which limits the run: {failed} errors and "
        f"{retries} retries in {calls} calls."
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
