"""Find what limits a run: one of its stages, or something else.

The bottleneck law: the run cannot be shorter than the largest demand, the busy time of each
worker of a stage. The stage with that demand limits the run. Unlike the busy share, the demand
does not depend on queues filling up at the start and emptying at the end. Waiting (backpressure
before the stage, idleness after it) is the second witness: it distinguishes a slow source from
queues that are too small to even out the stages' bursts.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics.analysis import caches, other_limits, wording
from otel_pipeline_metrics.analysis.reading import facts_of
from otel_pipeline_metrics.analysis.thresholds import (
    BUSY,
    CPU_COUNTS,
    CPU_FREE,
    FAILED_COST,
    MORE,
    PARTIAL,
    TIE,
    WASTE,
    WORTH,
    Verdict,
    cap_by_cpu,
    cpu_limits,
    is_cpu_bound,
    loop_is_late,
    source_limits,
    waste,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics.analysis.facts import Facts, StageGroup
    from otel_pipeline_metrics.analysis.thresholds import Confidence


class _Report(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


def analyze(report: _Report | Mapping[str, Any]) -> dict[str, Any]:
    """Return what limits a run: the `bottleneck` part of its report.

    This depends on the report's numbers alone, so loaded and merged reports work too. Keys:

    - `kind`: "stage"; "source" (items arrive too slowly); "cpu"; "event loop"; "errors" (a
      stage's errors and retries take its time); "workers" (a stage has too few); "tie";
      "unknown".
    - `stage`: the one to look at, or None. `ties`: all that limit the run equally.
    - `busy`: that stage's busy share.
    - `confidence`: "high", "medium", "low", or None without a claim.
    - `why`: a few sentences with the numbers. `advice`, `assumptions`: sentences. Caches that
      should be larger are part of the advice.
    - `what_if`: `{"more_workers": 1, "gain": 0.25, "next": stage}`, a quarter more throughput
      with one more worker of `stage`; then `next` limits the run, or the source if it is None.

    Args:
        report: a `RunReport`, or its `to_dict()`.
    """
    data: Any = report if isinstance(report, dict) else None
    if data is None:
        data = report.to_dict() if hasattr(report, "to_dict") else dict(report)
    verdict = _verdict(facts_of(data))
    verdict.advice += caches.advise(data)
    return asdict(verdict)


def _verdict(facts: Facts) -> Verdict:
    groups = facts.groups
    if not groups or not facts.wall_s or not groups[0].work:
        return _unknown(facts)
    top = groups[0]
    if loop_is_late(facts) and not is_cpu_bound(facts):
        return other_limits.event_loop(facts, top)
    if cpu_limits(facts, top):
        return other_limits.cpu(facts, top)
    if not top.gets and top.between > 0.5 * top.work:
        return other_limits.find_loop_source(facts, top)
    return _who_limits(facts, top)


def _who_limits(facts: Facts, top: StageGroup) -> Verdict:
    if facts.round_robin:
        return other_limits.round_robin(facts)
    if source_limits(facts, top):
        return other_limits.source(facts, top)
    return _stage(facts, top)


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
    why = "No stage ran." if not facts.groups else "No stage was busy for long enough."
    return Verdict(kind="unknown", confidence=None, why=why)


def _stage(facts: Facts, top: StageGroup) -> Verdict:
    tied = [group for group in facts.groups if top.demand < TIE * group.demand]
    verdict = Verdict(
        kind="stage",
        stage=top.name,
        busy=top.share,
        confidence=_confidence(facts, top),
        why=wording.stage(top, facts),
        what_if=_one_more(facts, top),
        assumptions=_assumptions(facts, top),
    )
    rest = max(_others(facts, top).values(), default=0.0)
    wasted = waste(top)
    clean = max(top.demand * (1 - wasted), rest)
    starved_by = _better_staffed(facts, top)
    if wasted >= WASTE and (clean <= 0 or top.demand / clean - 1 >= WORTH):
        verdict.kind = "errors"
        verdict.why = wording.errors(top, wasted, facts)
        verdict.confidence = "medium" if verdict.confidence == "high" else verdict.confidence
        verdict.assumptions.append(FAILED_COST)
        verdict.advice.append(
            f"Find out why {top.name} fails: without that, about "
            f"{text.percent(top.demand / clean - 1 if clean else 1.0)} more throughput."
        )
    elif len(tied) > 1:
        verdict.kind = "tie"
        verdict.ties = [group.name for group in tied]
        verdict.why = wording.tie(tied, facts)
        verdict.advice.append(f"Relieve {text.listed(verdict.ties)} together.")
    elif starved_by is not None:
        verdict.kind = "workers"
        verdict.why = wording.explain_few_workers(top, starved_by, facts)
    verdict.advice += _advice(facts, top)
    return verdict


def _others(facts: Facts, top: StageGroup) -> dict[str | None, float]:
    """Return the other demands by name; None is the source."""
    found: dict[str | None, float] = {
        group.name: group.demand for group in facts.groups if group is not top
    }
    if facts.source_s is not None:
        found[None] = min(facts.source_s, top.demand)
    return found


def _one_more(facts: Facts, top: StageGroup) -> dict[str, Any] | None:
    """Return the effect of one more worker of `top`; None if that would not help."""
    if top.ephemeral or top.permit_wait_s > top.busy or is_cpu_bound(facts):
        return None
    demands = _others(facts, top)
    demands[top.name] = top.work / (top.workers + 1)
    following = max(demands, key=demands.__getitem__)
    gain = cap_by_cpu(facts, top.demand / demands[following] - 1)
    return {"more_workers": 1, "gain": gain, "next": following}


def _better_staffed(facts: Facts, top: StageGroup) -> StageGroup | None:
    """Return a group with more work than `top`, but enough workers for it."""
    if (
        facts.cores is None
        or facts.cores >= CPU_FREE
        or top.ephemeral
        or top.permit_wait_s > top.busy
    ):
        return None
    for group in facts.groups[1:]:
        if group.workers > top.workers and group.work > top.work and not group.ephemeral:
            return group
    return None


def _confidence(facts: Facts, top: StageGroup) -> Confidence:
    doubts = 0
    used = top.demand / facts.wall_s
    doubts += used < 0.85  # queues may be too small, or the source partly unseen
    doubts += used < BUSY
    doubts += top.ephemeral
    doubts += is_cpu_bound(facts)
    doubts += top.count < 10 and top.inside is not None  # a small sample
    if len(facts.groups) > 1:
        second = facts.groups[1]
        lead = top.demand / second.demand - 1 if second.demand else math.inf
        doubts += TIE - 1 <= lead < 0.15  # close to a tie
        doubts += lead > 0 and lead < 2 * math.hypot(top.noise, second.noise)
    doubts += facts.source_s is not None and top.demand < TIE * facts.source_s
    doubts += any(seconds > top.work for seconds in facts.unseen.values())
    return "high" if not doubts else "medium" if doubts == 1 else "low"


def _advice(facts: Facts, top: StageGroup) -> list[str]:
    if top.permit_wait_s > top.busy:
        return [f"Raise the rate limit or the number of permits that {top.name} waits for."]
    if is_cpu_bound(facts):
        return [
            (
                f"{top.name} seems to compute ({facts.cores:.2f} CPUs busy): run it in processes, "
                "or make it cheaper; more tasks or threads will not help."
            )
        ]
    advice = [f"Make a call of {top.name} faster, or make more of them at a time."]
    if (needed := _enough(facts, top)) is not None:
        advice.append(needed)
    queue = facts.smallest_queue
    if top.demand < 0.85 * facts.wall_s and queue is not None:
        advice.append(
            f"No stage was busy all the time: bursts of one delayed the others. A larger queue "
            f"evens them out; the smallest is {queue[0]}, with room for {queue[1]}."
        )
    return advice


def _enough(facts: Facts, top: StageGroup) -> str | None:
    """Advise how many more workers bring `top` down to the next limit, and the gain.

    The number is limited by `MORE` and by the remaining CPU time.
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
    if (possible := cap_by_cpu(facts, gain)) < gain:
        gain, then = possible, "the CPU"
        more = min(more, math.ceil(gain * workers - 1e-9))
    if more < 2:  # `what_if` covers one more
        return None
    return (
        f"With {more} more workers of {top.name}, {then} would limit the "
        f"run: about {text.percent(gain)} more throughput."
    )


def _assumptions(facts: Facts, top: StageGroup) -> list[str]:
    assumptions = [wording.MEASURED]
    if not (top.ephemeral or top.permit_wait_s > top.busy or is_cpu_bound(facts)):
        assumptions += [wording.SCALES, wording.BUFFERS]
        if facts.cores is None:
            assumptions.append("CPU use was not sampled, so work is assumed to be awaited I/O.")
        elif facts.cores > CPU_COUNTS:
            assumptions.append(wording.cpu_left(facts))
    if top.ephemeral:
        assumptions.append(
            f"{top.name} seems to run each item in a task or thread of its own: the number at a "
            "time is taken from this run."
        )
    if len(top.names) > 1:
        assumptions.append(f"{text.listed(top.names)} are assumed to have the same workers.")
    if facts.unseen:
        assumptions.append(
            f"Left out, since their waits are unknown: {text.listed(list(facts.unseen))}."
        )
    if facts.partial:
        assumptions.append(PARTIAL)
    return assumptions
