"""What every renderer asks of a report: the stages in order, the verdict in words.

A report may come from a file, so nothing here relies on a key being there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics.report.run_report import RunReport


_KIND_ORDER: Final = {"fetch": 0, "write": 2}
_OTHER_KIND: Final = 1

_OF_STAGES: Final = frozenset({"stage", "tie", "errors", "workers"})
"""Kinds of verdict whose stage is to blame; elsewhere it is only one to look at."""


def dig(data: Mapping[str, Any] | None, *keys: str) -> Any:
    """Return what lies under the keys, or None where one of them is missing or null."""
    found: Any = data
    for key in keys:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def number(data: Mapping[str, Any] | None, *keys: str) -> float | None:
    """Return the number under the keys, or None."""
    found = dig(data, *keys)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return None
    return found


def whole(data: Mapping[str, Any] | None, *keys: str) -> int | None:
    """Return the count under the keys, or None."""
    found = number(data, *keys)
    return None if found is None else int(found)


def names(data: Mapping[str, Any], key: str) -> list[str]:
    """Return the strings listed under `key`."""
    found = dig(data, key)
    return [str(name) for name in found] if isinstance(found, list) else []


def error_total(report: RunReport) -> int:
    """Return the errors of all stages."""
    return sum(whole(stage, "errors", "total") or 0 for stage in report.stages)


def stages_in_flow_order(report: RunReport) -> list[dict[str, Any]]:
    """Return the stages as items flow through them.

    Queues tell who comes after whom. What they leave open is settled by kind (fetch first,
    write last), then by the report's own order; so are stages that feed each other.
    """
    stages = report.stages
    position = {
        str(stage.get("name")): (_KIND_ORDER.get(str(stage.get("kind")), _OTHER_KIND), index)
        for index, stage in enumerate(stages)
    }
    before: dict[str, set[str]] = {name: set() for name in position}
    for queue in report.queues:
        for consumer in names(queue, "consumers"):
            if consumer in before:
                producers = {name for name in names(queue, "producers") if name in position}
                before[consumer] |= producers - {consumer}
    done: list[str] = []
    left = sorted(position, key=position.__getitem__)
    while left:
        # of stages that feed each other in a circle, the first one goes first
        ready = next((name for name in left if before[name].issubset(done)), left[0])
        left.remove(ready)
        done.append(ready)
    place = {name: index for index, name in enumerate(done)}
    return sorted(stages, key=lambda stage: place[str(stage.get("name"))])


def queues_in_order(report: RunReport) -> list[dict[str, Any]]:
    """Return the queues as items flow through them."""
    after = queues_after(report, stages_in_flow_order(report))
    return [queue for index in sorted(after) for queue in after[index]]


def queues_after(report: RunReport, ordered: list[dict[str, Any]]) -> dict[int, list[Any]]:
    """Return, by the position of a stage, the queues to show after it; -1 is before all."""
    place = {str(stage.get("name")): index for index, stage in enumerate(ordered)}
    found: dict[int, list[Any]] = {}
    for queue in report.queues:
        producers = [place[name] for name in names(queue, "producers") if name in place]
        consumers = [place[name] for name in names(queue, "consumers") if name in place]
        last = max(producers, default=len(ordered) - 1)
        after = min(consumers) - 1 if consumers else last
        found.setdefault(after, []).append(queue)
    return found


def items_completed(report: RunReport) -> int | None:
    """Return how many items are through the run: those that its last stages took.

    Stages that share a queue share its items; of stages beside each other that do not, the
    one that is ahead counts.
    """
    ordered = stages_in_flow_order(report)
    if not ordered:
        return None
    producers = {name for queue in report.queues for name in names(queue, "producers")}
    consumed: dict[str, list[str]] = {}
    for queue in report.queues:
        for name in names(queue, "consumers"):
            consumed.setdefault(name, []).append(str(queue["name"]))
    last = [stage for stage in ordered if consumed.get(stage["name"])]
    last = [stage for stage in last if stage["name"] not in producers] or ordered[-1:]
    groups: dict[tuple[str, ...], int] = {}
    for stage in last:
        taken = next(
            (n for way in ("in", "out") if (n := whole(stage, "items", way)) is not None),
            whole(stage, "count") or 0,
        )
        group = tuple(sorted(consumed.get(stage["name"], ())))
        groups[group] = groups.get(group, 0) + taken
    return max(groups.values())


class VerdictText(NamedTuple):
    """What holds the run back, in sentences."""

    kind: str
    known: bool
    headline: str
    why: str
    what_if: str | None
    advice: list[str]
    assumptions: list[str]
    confidence: str | None
    stages: list[str]
    """The stages to mark."""


def verdict(report: RunReport) -> VerdictText:
    """Return the report's verdict in plain words."""
    found = report.bottleneck
    stage = dig(found, "stage")
    ties = names(found, "ties")
    kind = str(dig(found, "kind") or ("stage" if stage else "unknown"))
    marked = ([str(stage)] if stage is not None else []) + [t for t in ties if t != stage]
    busy = number(found, "busy")
    return VerdictText(
        kind=kind,
        known=kind != "unknown",
        headline=_headline(kind, marked, busy),
        why=str(dig(found, "why") or ""),
        what_if=_what_if(found, marked),
        advice=names(found, "advice"),
        assumptions=names(found, "assumptions"),
        confidence=dig(found, "confidence"),
        stages=marked if kind in _OF_STAGES else [],
    )


def _headline(kind: str, marked: list[str], busy: float | None) -> str:
    stage = marked[0] if marked else "a stage"
    said = f" ({busy:.0%} busy)".replace("%", " %") if busy is not None else ""
    if kind == "tie" and len(marked) > 1:
        return f"{', '.join(marked[:-1])} and {marked[-1]} hold the run back alike{said}"
    return {
        "stage": f"{stage} holds the run back{said}",
        "tie": f"{stage} holds the run back{said}",
        "source": "The source limits the run, not a stage",
        "cpu": "The CPU limits the run",
        "event loop": "The event loop limits the run",
        "errors": f"Errors and retries of {stage} hold the run back",
        "workers": f"{stage} has too few workers{said}",
    }.get(kind, "What limits the run is not known")


def _what_if(found: dict[str, Any], marked: list[str]) -> str | None:
    gain, more = number(found, "what_if", "gain"), whole(found, "what_if", "more_workers")
    if gain is None or more is None or not marked:
        return None
    workers = "1 more worker" if more == 1 else f"{more} more workers"
    following = dig(found, "what_if", "next")
    then = f"then {following or 'the source'} limits it"
    if following in marked:
        then = "it is the limit even then"
    return f"With {workers} of {marked[0]}, about {gain * 100:.0f} % more throughput; {then}."
