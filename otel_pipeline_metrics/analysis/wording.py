"""The verdict's sentences. Plain words, with the numbers that led to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_pipeline_metrics.analysis.facts import Facts, StageGroup


_TOLD: Final = 0.1
"""A share from which on it is worth a word."""

NO_QUEUE: Final = (
    "Wrap the queues between the stages with wrap_queue(): only then can waiting be told from "
    "working."
)
MEASURED: Final = "The demand of a stage is its busy time over its workers, as this run had it."
SCALES: Final = (
    "The gain is that of another worker that is as fast as the others: right for awaited I/O "
    "that its far side bears, not for computing in Python, which the GIL keeps on one CPU."
)
BUFFERS: Final = (
    "The gain is the most to expect: it takes the queues to be large enough to even out "
    "slow and fast invocations."
)

TURNS: Final = (
    "That they take turns is inferred: their times add up to the run's, and none waited for "
    "another."
)


def percent(ratio: float) -> str:
    """Return a ratio in whole per cent."""
    return f"{ratio * 100:.0f} %"


def seconds(value: float) -> str:
    """Return a duration with about two digits, in the unit that suits it."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= factor:
            amount = value / factor
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"
    return "0 s" if value == 0 else f"{value * 1e9:.0f} ns"


def listed(names: Sequence[str]) -> str:
    """Return names as one would say them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def workers(amount: float) -> str:
    """Return a number of workers in words."""
    whole = round(amount)
    return "1 worker" if whole == 1 else f"{whole} workers"


def demand(station: StageGroup, facts: Facts) -> str:
    """Say how much of the run a station's work takes."""
    said = f"{seconds(station.demand)} of work"
    if round(station.workers) > 1:
        said += f" for each of its {workers(station.workers)}"
    return f"{said} in a run of {seconds(facts.wall_s)}"


def stage(top: StageGroup, facts: Facts) -> str:
    """Say why a stage limits the run."""
    parts = [f"{top.name} was busy {percent(top.share)} of the time: {demand(top, facts)}."]
    if len(top.names) > 1:
        parts.append(f"The same workers run {listed(top.names)}; {top.name} takes most of it.")
    if top.permits > top.busy:
        waited = top.permits / top.wall if top.wall else 0.0
        parts[0] = (
            f"{top.name} waited for permits or rate limits {percent(waited)} of the time "
            f"and was busy {percent(top.share)}: {demand(top, facts)}."
        )
    others = [station for station in facts.stations if station is not top]
    parts += _states(others)
    if others:
        following = others[0]
        parts.append(f"The next largest demand is {following.name}'s, {seconds(following.demand)}.")
    if facts.source_s is not None and top.demand < 1.1 * facts.source_s:
        parts.append(
            f"Whatever fills the first queue took {seconds(facts.source_s)} for it, "
            "so the source is about as slow."
        )
    if top.gets and top.inside is not None and top.between > 0.3 * top.busy:
        parts.append(
            f"{percent(top.between / top.busy)} of its busy time passed between its "
            "invocations, in the loop around it."
        )
    return " ".join(parts)


def _states(others: Sequence[StageGroup]) -> list[str]:
    """Say who waited for it: backpressure above, idleness below."""
    blocked = [s for s in others if s.blocked_share >= _TOLD and s.blocked >= s.idle]
    idle = [s for s in others if s.wall and s.idle / s.wall >= _TOLD and s.idle > s.blocked]
    said = []
    if blocked:
        each = [f"{s.name} {percent(s.blocked_share)}" for s in blocked]
        said.append(f"Blocked on what follows: {listed(each)}.")
    if idle:
        each = [f"{s.name} {percent(s.idle / s.wall)}" for s in idle]
        said.append(f"Waiting for input: {listed(each)}.")
    return said


def tie(tied: Sequence[StageGroup], facts: Facts) -> str:
    """Say that several limit it alike."""
    each = [f"{s.name} {seconds(s.demand)} ({percent(s.share)} busy)" for s in tied]
    return (
        f"{listed([s.name for s in tied])} ask about the same of each of their workers in a run "
        f"of {seconds(facts.wall_s)}: {listed(each)}. Relieving one alone gains little."
    )


def explain_turns(top: StageGroup, tied: Sequence[StageGroup], facts: Facts) -> str:
    """Say that the stages ran one after the other."""
    count = round(top.workers / facts.runs)
    where, in_each = (
        ("one worker", "") if count <= 1 else (f"the same {workers(count)}", " in each")
    )
    each = listed([f"{s.name} {seconds(s.demand)}" for s in facts.turns])
    together = seconds(sum(station.demand for station in facts.turns))
    most = f"{top.name} takes the most, {percent(top.demand / facts.wall_s)} of the run."
    if len(tied) > 1:
        most = f"{listed([s.name for s in tied])} take about the same."
    return (
        f"{listed([s.name for s in facts.turns])} take turns in {where}: only one of them runs at "
        f"a time{in_each}, and none waits for another. Their busy times ({each}) add up to "
        f"{together} in a run of {seconds(facts.wall_s)}. {most}"
    )


def cpu_left(facts: Facts) -> str:
    """Say that gains are capped."""
    return (
        f"{facts.cores or 0.0:.2f} CPUs were busy already, and more threads or tasks share one: "
        "no gain is told beyond what is left of it."
    )


def source(facts: Facts) -> str:
    """Say that items do not come fast enough."""
    said = "Items come more slowly than the stages could take them."
    if facts.stations:
        top = facts.stations[0]
        said += f" The busiest stage, {top.name}, has {demand(top, facts)}"
        said += f" ({percent(top.demand / facts.wall_s)})." if facts.wall_s else "."
        said = " ".join([said, *_states(facts.stations)])
    return said


def explain_loop_source(top: StageGroup, facts: Facts) -> str:
    """Say that the loop around the first stage waits for something outside of it."""
    per_cent = percent(top.between / top.busy)
    return " ".join(
        [
            (
                f"{top.name} takes from no queue, and {per_cent} of its workers' busy time passed "
                "between its invocations: the loop around it waits for its source."
            ),
            *_states([station for station in facts.stations if station is not top]),
        ]
    )


def cpu(facts: Facts) -> str:
    """Say that the CPU is used up."""
    cores, cpus = facts.cores or 0.0, facts.cpus or 0.0
    if facts.utilization is not None and facts.utilization >= 0.9:
        limit = "the cgroup's quota of" if facts.quota else "all of"
        said = f"The run used {percent(facts.utilization)} of {limit} {cpus:g} CPUs."
    else:
        said = (
            f"The process kept {cores:.2f} of {cpus:g} CPUs busy. One thread at a time runs "
            "Python (the GIL, or one event loop), so about one CPU is all that it can use."
        )
    return (
        f"{said} {facts.concurrency:.1f} workers were busy at a time on average: they shared "
        "the CPU, so their busy time holds waits for each other that nobody can see."
    )


def event_loop(facts: Facts) -> str:
    """Say that something keeps the event loop from coming round."""
    late, cores = facts.loop_delay_s or 0.0, facts.cores
    used = "" if cores is None else f" while only {cores:.2f} CPUs were busy"
    return (
        f"The event loop came round {seconds(late)} late or more one time in twenty{used}: "
        "something blocks it, and every task waits meanwhile."
    )


def errors(top: StageGroup, waste: float, facts: Facts) -> str:
    """Say that a stage's failures eat its time."""
    return (
        f"{top.name} limits the run ({percent(top.share)} busy: {demand(top, facts)}), and "
        f"{percent(waste)} of its attempts came to nothing: {top.errors:,} errors and "
        f"{top.retries:,} retries with {top.count:,} invocations."
    )


def explain_few_workers(top: StageGroup, other: StageGroup, facts: Facts) -> str:
    """Say that a stage limits only because it has fewer workers than another."""
    return (
        f"{top.name} was busy {percent(top.share)} of the time with {workers(top.workers)}: "
        f"{demand(top, facts)}. {other.name} has more to do in all "
        f"({seconds(other.work)} against {seconds(top.work)}), but {workers(other.workers)} "
        f"for it. The CPU was mostly free ({facts.cores or 0.0:.2f} busy), so what {top.name} "
        "does is awaiting others."
    )
