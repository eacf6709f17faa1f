"""Which of its stages limits a run, or what else does.

The bottleneck law: the run cannot be shorter than the largest demand, that is the busy time
that it asks of each worker of a stage. The stage with that demand limits it. Unlike the busy
share, the demand does not care about queues that fill up first and empty last. Waiting
(backpressure above the stage, idleness below it) is the second witness: it tells a slow source
from queues too small to even out the stages' bursts.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Union

from otel_pipeline_metrics.analysis import _words
from otel_pipeline_metrics.analysis._facts import Facts, Station, facts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["stage", "source", "cpu", "event loop", "errors", "workers", "tie", "unknown"]
Confidence = Literal["high", "medium", "low"]

TIE: Final = 1.075
"""Demands closer than this factor tie: in the middle between what is surely one (5 %) and what
surely is none (10 %)."""
SATURATED: Final = 0.95
"""Demand over wall time from which on no source can be what is missing."""
BUSY: Final = 0.7
"""Demand over wall time below which a stage alone hardly limits the run."""
HELD: Final = 0.3
"""A blocked share from which on a stage was held back, and not by chance."""
CPU_FULL: Final = 0.9
CPU_ONE_CORE: Final = 1.25
"""CPUs busy from which on the GIL is not what limits."""
CPU_CROWDED: Final = 0.75
"""CPUs busy from which on the GIL limits workers that are busy at the same time: handing it on
costs the rest, the more so on a machine that has other things to do."""
CPU_COUNTS: Final = 0.3
"""CPUs busy from which on a gain may not be more than the CPU that is left allows."""
MORE: Final = 8
"""More workers than these are never suggested: nobody knows what they would meet."""
IDLE: Final = 0.3
"""An idle share of all workers from which on they really lacked input."""
ADDED_UP: Final = 0.85
"""Busy time of all stages over wall time from which on nothing else need be looked for."""
CPU_FREE: Final = 0.5
CROWD: Final = 1.5
"""Workers busy at a time that cannot all have computed on one CPU."""
LATE_LOOP_S: Final = 0.1
USUALLY_LATE_S: Final = 0.005
WASTE: Final = 0.2
WORTH: Final = 0.1
"""A gain worth naming a cause of its own."""
FAILED_COST: Final = "A failed attempt is taken to cost as much as any other."
PARTIAL: Final = "The run is not over or did not end well: this is how far it got."


class _Report(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


@dataclass
class Verdict:
    """What `analyze` returns, before it is a dict."""

    kind: Kind
    why: str
    confidence: Confidence | None
    stage: str | None = None
    ties: list[str] = field(default_factory=list)
    busy: float | None = None
    advice: list[str] = field(default_factory=list)
    what_if: dict[str, Any] | None = None
    assumptions: list[str] = field(default_factory=list)


def analyze(report: Union[_Report, Mapping[str, Any]]) -> dict[str, Any]:  # noqa: UP007 - as below
    """Return what holds a run back: the `bottleneck` part of its report.

    A pure function of the report's numbers, so a loaded or merged report will do. Keys:

    - `kind`: "stage"; "source" (items come too slowly); "cpu"; "event loop"; "errors" (a
      stage's errors and retries eat its time); "workers" (a stage has too few); "tie";
      "unknown".
    - `stage`: the one to look at, or None. `ties`: all that limit the run alike.
    - `busy`: that stage's busy share.
    - `confidence`: "high", "medium", "low", or None where nothing is claimed.
    - `why`: a few sentences with the numbers. `advice`, `assumptions`: sentences.
    - `what_if`: `{"more_workers": 1, "gain": 0.25, "next": stage}`, a quarter more throughput
      with one more worker of `stage`; then `next` limits, or the source where it is None.

    Args:
        report: a `RunReport`, or its `to_dict()`.
    """
    data: Any = report if isinstance(report, dict) else None
    if data is None:
        data = report.to_dict() if hasattr(report, "to_dict") else dict(report)
    return asdict(_verdict(facts_of(data)))


def _verdict(facts: Facts) -> Verdict:
    stations = facts.stations
    if not stations or not facts.wall_s or not stations[0].work:
        return _unknown(facts)
    top = stations[0]
    if _loop_is_late(facts) and not _computing(facts):
        return _event_loop(facts, top)
    if _cpu_limits(facts, top):
        return _cpu(facts, top)
    if not top.gets and top.between > 0.5 * top.work:
        return _loop_source(facts, top)
    return _who_limits(facts, top)


def _who_limits(facts: Facts, top: Station) -> Verdict:
    if facts.turns:
        return _turns(facts)
    if _source_limits(facts, top):
        return _source(facts, top)
    return _stage(facts, top)


# --- what else than a stage --------------------------------------------------------------------


def _unknown(facts: Facts) -> Verdict:
    if not facts.stations and facts.unseen:
        name, longest = max(facts.unseen.items(), key=lambda found: found[1])
        return Verdict(
            kind="unknown",
            confidence=None,
            why=(
                "No queue is instrumented, so waiting cannot be told from working. The most "
                f"time was spent in {name}: {_words.seconds(longest)} in all, in a run of "
                f"{_words.seconds(facts.wall_s)}."
            ),
            advice=[_words.NO_QUEUE],
        )
    why = "No stage ran." if not facts.stations else "No stage was busy for a time worth telling."
    return Verdict(kind="unknown", confidence=None, why=why)


def _computing(facts: Facts) -> bool:
    return facts.cores is not None and facts.cores >= CPU_FULL


def _cpu_limits(facts: Facts, top: Station) -> bool:
    if facts.cores is None or facts.utilization is None:
        return False
    if facts.utilization >= CPU_FULL:
        return True
    if not CPU_CROWDED <= facts.cores <= CPU_ONE_CORE:
        return False
    # one stage that computes is that stage's limit; several at once are the CPU's
    crowd = facts.concurrency >= CROWD
    if facts.cores >= CPU_FULL:
        return crowd or top.demand < BUSY * facts.wall_s
    return crowd and not (facts.source_s is not None and _source_limits(facts, top))


def _cpu(facts: Facts, top: Station) -> Verdict:
    full = facts.utilization is not None and facts.utilization >= CPU_FULL
    assumptions = [
        (
            "CPU time is known for the whole process only: which stage used it is inferred "
            "from busy times, which hold waits for the CPU."
        )
    ]
    if not full and not _computing(facts):
        assumptions.append(
            "That is less than one CPU: the rest is taken to be lost where the GIL is handed on, "
            "or to whatever else the machine did."
        )
    advice = [
        (
            f"Look at {top.name} with a profiler first: its busy time is the largest, "
            f"{_words.seconds(top.busy)} in all."
        ),
        (
            "Give computing to processes (multiprocessing, ProcessPoolExecutor), or to libraries "
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
        # that the CPU is used up is measured; which stage used it is not
        confidence="high" if full and facts.concurrency >= CROWD else "medium",
        why=_words.cpu(facts),
        advice=advice,
        assumptions=assumptions,
    )


def _loop_is_late(facts: Facts) -> bool:
    """Tell whether something holds the event loop up, now and then for long or all the time.

    A loop that only awaits comes round within a millisecond; half of all beats late by five
    mean that it is held up more often than not.
    """
    return (facts.loop_delay_s or 0.0) >= LATE_LOOP_S or (
        facts.loop_delay_usual_s or 0.0
    ) >= USUALLY_LATE_S


def _event_loop(facts: Facts, top: Station) -> Verdict:
    return Verdict(
        kind="event loop",
        stage=None,
        confidence="medium",
        why=_words.event_loop(facts),
        advice=[
            (
                "Look for blocking calls in coroutines (files, requests, time.sleep), first in "
                f"{top.name}, and move them to asyncio.to_thread()."
            ),
            "asyncio's debug mode (PYTHONASYNCIODEBUG=1) names the slow callbacks.",
        ],
        assumptions=["The loop's delay is measured once for all tasks: it names no stage."],
    )


def _source_limits(facts: Facts, top: Station) -> bool:
    used = top.demand / facts.wall_s
    if used >= SATURATED:
        return False
    if facts.source_s is not None:
        return facts.source_s > top.demand
    # nothing fills a queue from outside: then nobody was busy, and nobody in another's way
    held = any(station.blocked_share >= HELD for station in facts.stations)
    lacking = facts.idle_share >= IDLE or facts.concurrency < ADDED_UP
    return used < BUSY and not held and lacking


def _source(facts: Facts, top: Station) -> Verdict:
    used = top.demand / facts.wall_s
    seen = facts.source_s is not None
    confidence: Confidence = "high" if seen and used < BUSY else "medium" if seen else "low"
    advice = [
        "Make the source faster: fetch ahead, in parallel or in larger batches.",
        "More workers of any stage will not help; fewer may do.",
    ]
    if facts.partial:
        confidence = "medium" if confidence == "high" else confidence
    return Verdict(
        kind="source",
        confidence=confidence,
        why=_words.source(facts),
        advice=advice,
        assumptions=[
            (
                "What fills the first queue is no stage: that it was slow is inferred from its "
                "hardly ever having found the queue full, and from the stages' idleness."
            )
        ]
        if seen
        else ["Inferred: all stages had time left and none waited for another one's room."],
    )


def _loop_source(facts: Facts, top: Station) -> Verdict:
    clear = top.between > 0.8 * top.work and top.demand >= BUSY * facts.wall_s
    return Verdict(
        kind="source",
        stage=top.name,
        busy=top.share,
        confidence="high" if clear and not top.ephemeral else "medium",
        why=_words.loop_source(top, facts),
        advice=[
            (
                f"Look at what the loop around {top.name} awaits between two calls: fetch ahead, "
                "in parallel or in larger batches."
            ),
            "If that is work of yours, make it a stage, so that it shows here by name.",
        ],
        assumptions=["Time between two invocations counts as busy; what it is for is unknown."],
    )


def _turns(facts: Facts) -> Verdict:
    """Stages that the same workers run one after the other: the run takes as long as their sum."""
    ordered = sorted(facts.turns, key=lambda station: station.demand, reverse=True)
    top = ordered[0]
    tied = [station for station in ordered if top.demand < TIE * station.demand]
    together = sum(station.demand for station in facts.turns)
    saved = top.demand * _waste(top)
    verdict = Verdict(
        kind="stage",
        stage=top.name,
        busy=top.share,
        confidence="low" if facts.unseen else "medium",
        why=_words.turns(top, tied, facts),
        assumptions=[_words.MEASURED, _words.TURNS],
    )
    if _waste(top) >= WASTE and together / (together - saved) - 1 >= WORTH:
        verdict.kind = "errors"
        verdict.why += f" {_words.errors(top, _waste(top), facts)}"
        verdict.assumptions.append(FAILED_COST)
        verdict.advice.append(
            f"Find out why {top.name} fails: without that, about "
            f"{_words.percent(together / (together - saved) - 1)} more throughput."
        )
    elif len(tied) > 1:
        verdict.kind = "tie"
        verdict.ties = [station.name for station in tied]
    names = _words.listed([station.name for station in facts.turns])
    if _computing(facts):
        verdict.advice.append(
            f"Run {names} side by side, in processes, with a queue between: they compute "
            f"({facts.cores:.2f} CPUs busy), so threads or tasks will not help."
        )
    else:
        gain = _allowed(facts, together / top.demand - 1)
        verdict.advice.append(
            f"Run {names} side by side, each in a worker (thread or task) of its own with a queue "
            f"between: at most about {_words.percent(gain)} more throughput."
        )
    verdict.advice.append(
        f"Or make {top.name} faster. More workers of one stage cannot help while they take turns."
    )
    if facts.partial:
        verdict.assumptions.append(PARTIAL)
    return verdict


# --- a stage -----------------------------------------------------------------------------------


def _stage(facts: Facts, top: Station) -> Verdict:
    tied = [station for station in facts.stations if top.demand < TIE * station.demand]
    verdict = Verdict(
        kind="stage",
        stage=top.name,
        busy=top.share,
        confidence=_confidence(facts, top),
        why=_words.stage(top, facts),
        what_if=_one_more(facts, top),
        assumptions=_assumptions(facts, top),
    )
    rest = max(_others(facts, top).values(), default=0.0)
    waste = _waste(top)
    clean = max(top.demand * (1 - waste), rest)
    starved_by = _better_staffed(facts, top)
    if waste >= WASTE and (clean <= 0 or top.demand / clean - 1 >= WORTH):
        verdict.kind = "errors"
        verdict.why = _words.errors(top, waste, facts)
        verdict.confidence = "medium" if verdict.confidence == "high" else verdict.confidence
        verdict.assumptions.append(FAILED_COST)
        verdict.advice.append(
            f"Find out why {top.name} fails: without that, about "
            f"{_words.percent(top.demand / clean - 1 if clean else 1.0)} more throughput."
        )
    elif len(tied) > 1:
        verdict.kind = "tie"
        verdict.ties = [station.name for station in tied]
        verdict.why = _words.tie(tied, facts)
        verdict.advice.append(f"Relieve {_words.listed(verdict.ties)} together.")
    elif starved_by is not None:
        verdict.kind = "workers"
        verdict.why = _words.few_workers(top, starved_by, facts)
    verdict.advice += _advice(facts, top)
    return verdict


def _waste(station: Station) -> float:
    """Return which share of its attempts came to nothing."""
    return min(1.0, (station.errors + station.retries) / max(1, station.count + station.retries))


def _allowed(facts: Facts, gain: float) -> float:
    """Return a gain, or what the CPU that is left allows of it.

    More threads or tasks of this process share its GIL, and so one CPU; and all processes share
    the CPUs there are.
    """
    if facts.cores is None or not facts.utilization or facts.cores <= CPU_COUNTS:
        return gain
    return min(gain, max(0.0, 1 / max(facts.cores, facts.utilization) - 1))


def _others(facts: Facts, top: Station) -> dict[str | None, float]:
    """Return the other demands by name; the source's is under None."""
    found: dict[str | None, float] = {
        station.name: station.demand for station in facts.stations if station is not top
    }
    if facts.source_s is not None:
        found[None] = min(facts.source_s, top.demand)
    return found


def _one_more(facts: Facts, top: Station) -> dict[str, Any] | None:
    """Work out one more worker of `top`; None where that is not what would help."""
    if top.ephemeral or top.permits > top.busy or _computing(facts):
        return None
    demands = _others(facts, top)
    demands[top.name] = top.work / (top.workers + 1)
    following = max(demands, key=demands.__getitem__)
    gain = _allowed(facts, top.demand / demands[following] - 1)
    return {"more_workers": 1, "gain": gain, "next": following}


def _better_staffed(facts: Facts, top: Station) -> Station | None:
    """Return a station that has more work than `top` but enough workers for it."""
    if facts.cores is None or facts.cores >= CPU_FREE or top.ephemeral or top.permits > top.busy:
        return None
    for station in facts.stations[1:]:
        if station.workers > top.workers and station.work > top.work and not station.ephemeral:
            return station
    return None


def _confidence(facts: Facts, top: Station) -> Confidence:
    doubts = 0
    used = top.demand / facts.wall_s
    doubts += used < 0.85  # noqa: PLR2004 - queues too small, or a source that is half seen
    doubts += used < BUSY
    doubts += top.ephemeral
    doubts += _computing(facts)
    doubts += top.count < 10 and top.inside is not None  # noqa: PLR2004 - hardly a sample
    if len(facts.stations) > 1:
        second = facts.stations[1]
        lead = top.demand / second.demand - 1 if second.demand else math.inf
        doubts += TIE - 1 <= lead < 0.15  # noqa: PLR2004 - close to a tie
        doubts += lead > 0 and lead < 2 * math.hypot(top.noise, second.noise)
    doubts += facts.source_s is not None and top.demand < TIE * facts.source_s
    doubts += any(seconds > top.work for seconds in facts.unseen.values())
    return "high" if not doubts else "medium" if doubts == 1 else "low"


def _advice(facts: Facts, top: Station) -> list[str]:
    if top.permits > top.busy:
        return [f"Raise the rate limit or the number of permits that {top.name} waits for."]
    if _computing(facts):
        return [
            (
                f"{top.name} seems to compute ({facts.cores:.2f} CPUs busy): run it in processes, "
                "or make it cheaper; more tasks or threads will not help."
            )
        ]
    advice = [f"Make an invocation of {top.name} faster, or do more of them at a time."]
    if (needed := _enough(facts, top)) is not None:
        advice.append(needed)
    queue = facts.smallest_queue
    if top.demand < 0.85 * facts.wall_s and queue is not None:
        advice.append(
            f"No stage was busy all the time: bursts of one held up the others. A larger queue "
            f"evens them out; the smallest is {queue[0]}, with room for {queue[1]}."
        )
    return advice


def _enough(facts: Facts, top: Station) -> str | None:
    """Say how many more workers bring `top` down to the next one, and what that gains.

    No more of them than `MORE`, and than the CPU that is left can feed.
    """
    rest = {name: demand for name, demand in _others(facts, top).items() if demand > 0}
    if top.ephemeral or not rest:
        return None
    following = max(rest, key=rest.__getitem__)
    workers = round(top.workers)
    more = math.ceil(top.work / rest[following] - 1e-9) - workers
    then = following or "the source"
    if more > MORE:
        more, then = MORE, f"{top.name} itself"
    gain = min(top.demand / rest[following], (workers + more) / workers) - 1
    if (allowed := _allowed(facts, gain)) < gain:
        gain, then = allowed, "the CPU"
        more = min(more, math.ceil(gain * workers - 1e-9))
    if more < 2:  # noqa: PLR2004 - one more is what `what_if` tells
        return None
    return (
        f"With {more} more workers of {top.name}, {then} would limit the "
        f"run: about {_words.percent(gain)} more throughput."
    )


def _assumptions(facts: Facts, top: Station) -> list[str]:
    said = [_words.MEASURED]
    if not (top.ephemeral or top.permits > top.busy or _computing(facts)):
        said += [_words.SCALES, _words.BUFFERS]
        if facts.cores is None:
            said.append("CPU use was not sampled, so work is taken to be awaited I/O.")
        elif facts.cores > CPU_COUNTS:
            said.append(_words.cpu_left(facts))
    if top.ephemeral:
        said.append(
            f"{top.name} seems to run each item in a task or thread of its own: how many there "
            "can be at a time is taken from this run."
        )
    if len(top.names) > 1:
        said.append(f"{_words.listed(top.names)} are taken to be run by the same workers.")
    if facts.unseen:
        said.append(
            f"Left out, since its waits are not known: {_words.listed(list(facts.unseen))}."
        )
    if facts.partial:
        said.append(PARTIAL)
    return said
