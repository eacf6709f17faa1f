"""Read from a report what all renderers need: the flow of items, the verdict.

A report may come from a file, so any key may be missing.
"""

from __future__ import annotations

import re
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import text
from otel_pipeline_metrics._core.lookup import entries, get_path, get_strings, number, whole
from otel_pipeline_metrics._core.validation import check_trace_url

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from otel_pipeline_metrics.report.run_report import RunReport


_KIND_ORDER: Final = {"fetch": 0, "write": 2}
_OTHER_KIND: Final = 1

# A gain that is less counts as none.
_WORTH_TELLING: Final = 0.02

_TRACE_ID: Final = re.compile("[0-9a-f]{32}")

# of other kinds, the stage that a verdict names is not the limit, only the first to look at
_OF_STAGES: Final = frozenset(
    {"stage", "tie", "errors", "workers", "serial", "skew", "limit", "event loop"}
)


def error_total(report: RunReport) -> int:
    """Return the number of errors in all stages."""
    return sum(whole(stage, "errors", "total") or 0 for stage in report.stages)


def stages_in_flow_order(report: RunReport) -> list[dict[str, Any]]:
    """Return the stages in the order in which items flow through them.

    Queues decide first. What they leave open is decided by kind (fetch first, write last),
    then by the report's own order; so are stages that feed each other.
    """
    stages: list[Any] = list(report.stages)
    position = {
        str(stage.get("name")): (_KIND_ORDER.get(str(stage.get("kind")), _OTHER_KIND), index)
        for index, stage in enumerate(stages)
    }
    feeds = _Feeds(report, position)
    left = sorted(position, key=position.__getitem__)
    remaining = iter(left)
    ready = [(position[name], name) for name in left if feeds.ready(name)]
    done: dict[str, int] = {}
    while len(done) < len(left):
        # the first one that remains breaks a circle of stages that feed each other
        name = heappop(ready)[1] if ready else next(n for n in remaining if n not in done)
        if name not in done:
            done[name] = len(done)
            for following in feeds.complete(name):
                heappush(ready, (position[following], following))
    return sorted(stages, key=lambda stage: done[str(stage.get("name"))])


class _Feeds:
    """Which stages each stage still waits for, in time linear in the queues' lists of names.

    A stage waits for the other producers of the queues that it consumes.
    """

    def __init__(self, report: RunReport, names: Collection[str]) -> None:
        # by queue: its producers that are not complete, and its consumers
        self._queues: list[tuple[set[str], set[str]]] = []
        self._produced: dict[str, list[int]] = {name: [] for name in names}
        self._waits = dict.fromkeys(names, 0)
        for index, queue in enumerate(report.queues):
            producers = {name for name in get_strings(queue, "producers") if name in names}
            consumers = {name for name in get_strings(queue, "consumers") if name in names}
            self._queues.append((producers, consumers))
            for name in producers:
                self._produced[name].append(index)
            for name in consumers:
                self._waits[name] += len(producers) > (name in producers)

    def ready(self, name: str) -> bool:
        """Tell whether a stage waits for no other."""
        return not self._waits[name]

    def complete(self, name: str) -> Iterator[str]:
        """Complete a stage; yield those that wait for no other from now on."""
        for index in self._produced[name]:
            producers, consumers = self._queues[index]
            producers.remove(name)
            if len(producers) > 1:
                continue
            # the last producer that is left does not wait for itself
            freed = producers & consumers if producers else consumers - {name}
            for following in freed:
                self._waits[following] -= 1
                if not self._waits[following]:
                    yield following


def queues_in_order(report: RunReport) -> list[dict[str, Any]]:
    """Return the queues in the order in which items flow through them."""
    after = queues_after(report, stages_in_flow_order(report))
    return [queue for index in sorted(after) for queue in after[index]]


def queues_after(report: RunReport, ordered: list[dict[str, Any]]) -> dict[int, list[Any]]:
    """Map positions of stages to the queues shown after them; -1 is the start."""
    place = {str(stage.get("name")): index for index, stage in enumerate(ordered)}
    found: dict[int, list[Any]] = {}
    for queue in report.queues:
        producers = [place[name] for name in get_strings(queue, "producers") if name in place]
        consumers = [place[name] for name in get_strings(queue, "consumers") if name in place]
        last = max(producers, default=len(ordered) - 1)
        after = min(consumers) - 1 if consumers else last
        found.setdefault(after, []).append(queue)
    return found


def items_completed(report: RunReport, *, count_calls: bool = True) -> int | None:
    """Return how many items have passed the run: those that its last stages took.

    Last stages that share a queue share its items, so theirs are added. Of others, the largest
    count is taken. Of a stage that tells no number of items, each call counts as one, or none does.
    """
    ordered = stages_in_flow_order(report)
    producers = {name for queue in report.queues for name in get_strings(queue, "producers")}
    consumed: dict[str, list[str]] = {}
    for queue in report.queues:
        for name in get_strings(queue, "consumers"):
            consumed.setdefault(name, []).append(str(queue["name"]))
    last = [s for s in ordered if s["name"] in consumed and s["name"] not in producers]
    groups: dict[tuple[str, ...], int] = {}
    for stage in last or ordered[-1:]:
        told = (n for way in ("in", "out") if (n := whole(stage, "items", way)) is not None)
        taken = next(told, (whole(stage, "count") or 0) if count_calls else None)
        if taken is not None:
            group = tuple(sorted(consumed.get(stage["name"], ())))
            groups[group] = groups.get(group, 0) + taken
    return max(groups.values(), default=None)


def in_turn(report: RunReport) -> bool:
    """Tell whether the stages ran one after the other, as far as the report knows."""
    known = [number(stage, "self_s") for stage in report.stages]
    wall_s = number(report.run, "observed_s") or number(report.run, "wall_s")
    if not known or None in known or not wall_s or report.queues:
        return False
    return sum(filter(None, known)) <= 1.02 * wall_s


def trace_link(report: RunReport, trace_id: object) -> str | None:
    """Return the address of a trace; None unless the report tells a proper one.

    A report may come from a file, so its address is checked like an argument.
    """
    template = report.run.get("trace_url")
    if not isinstance(trace_id, str) or not _TRACE_ID.fullmatch(trace_id):
        return None
    try:
        return check_trace_url(template, "trace_url").replace("{trace_id}", trace_id)
    except (TypeError, ValueError):
        return None


class VerdictText(NamedTuple):
    """The verdict in sentences."""

    kind: str
    known: bool
    headline: str
    why: str
    what_if: str | None
    # what its run's experiments have shown
    experiments: str | None
    advice: list[str]
    assumptions: list[str]
    confidence: str | None
    # to be marked
    stages: list[str]


def verdict(report: RunReport) -> VerdictText:
    """Return the report's verdict in plain words."""
    slowed = number(get_path(report.run, "experiment"), "slowed")
    return verdict_in_words(report.bottleneck, slowed)


def verdict_in_words(found: Mapping[str, Any], slowed: float | None = None) -> VerdictText:
    """Return a verdict, a report's part `bottleneck`, in plain words.

    Args:
        found: the verdict.
        slowed: by which part of its time experiments made the run longer, if it had any.
    """
    stage = get_path(found, "stage")
    ties = get_strings(found, "ties")
    kind = str(get_path(found, "kind") or ("stage" if stage else "unknown"))
    marked = ([str(stage)] if stage is not None else []) + [t for t in ties if t != stage]
    return VerdictText(
        kind=kind,
        known=kind != "unknown",
        headline=_headline(kind, marked, found),
        why=" ".join(str(found[key]) for key in ("why", "when") if found.get(key)),
        what_if=_what_if(found),
        experiments=_experiments(found, slowed),
        advice=get_strings(found, "advice"),
        assumptions=get_strings(found, "assumptions"),
        confidence=get_path(found, "confidence"),
        stages=marked if kind in _OF_STAGES else [],
    )


def _headline(kind: str, marked: list[str], found: Mapping[str, Any]) -> str:
    busy, name = number(found, "busy"), get_path(found, "name")
    stage = marked[0] if marked else "a stage"
    share = f" ({text.percent(busy)} busy)" if busy is not None else ""
    if kind == "tie" and len(marked) > 1:
        return f"{text.listed(marked)} hold the run back alike{share}"
    inside = f"something inside of {stage}" if name in (None, stage) else f"{name}"
    step = f"A step at the queue {name}" if name else "A step"
    return {
        "stage": f"{stage} holds the run back{share}",
        "tie": f"{stage} holds the run back{share}",
        "source": "The source limits the run, not a stage",
        "limit": f"The limit of {inside} holds the run back",
        "undecorated": f"{step} that is no stage holds the run back",
        "serial": f"{stage} takes the largest part of a run in which little overlaps",
        "cpu": "The CPU limits the run",
        "gil": "The GIL limits the run: one thread at a time runs Python",
        "machine": "The machine is busy with other programs, which slows the run",
        "event loop": f"{stage} holds up the event loop" if marked else "The event loop is held up",
        "errors": f"Errors and retries of {stage} hold the run back",
        "workers": f"{stage} has too few workers{share}",
        "skew": f"One worker of {stage} has most of its work",
    }.get(kind, "What limits the run is not known")


def changes(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what changes would gain; a report of schema 1 has one of them at most.

    There, `what_if` was `{"more_workers": 1, "gain": 0.25, "next": stage}`, or null.
    """
    told = found.get("what_if")
    if not isinstance(told, dict):
        return entries(found, "what_if")
    gain, stage = number(told, "gain"), get_path(found, "stage")
    if gain is None or stage is None:
        return []
    change = {"change": "workers", "name": stage, "stage": stage, "by": whole(told, "more_workers")}
    return [{**change, "gain": [gain, gain], "next": told.get("next")}]


def _range(found: object) -> tuple[float | None, float | None]:
    """Return the ends of a range; None if they are unknown."""
    low, high = found if isinstance(found, list) and len(found) == 2 else (None, None)
    return number(low), number(high)


def _what_if(found: Mapping[str, Any]) -> str | None:
    """Return the first change, and what it gains."""
    for change in changes(found):
        low, high = _range(change.get("gain"))
        if low is None or high is None:
            continue
        name, by = change.get("name") or "it", whole(change, "by") or 1
        with_it = {
            "faster": f"With {name} twice as fast",
            "workers": f"With {text.counted(by, 'more worker')} of {name}",
            "limit": f"With twice what {name} allows",
            "errors": f"Without failures of {name}",
        }.get(str(change.get("change")))
        if with_it is None:
            continue
        low_text, high_text = text.percent(low), text.percent(high)
        gained = (
            f"about {high_text}" if low_text == high_text else f"{round(low * 100)} to {high_text}"
        )
        following = change.get("next")
        then = ""
        if following is not None:
            then = (
                "; it is the limit even then"
                if following == name
                else f"; then {following} is next"
            )
        return f"{with_it}, {gained} more throughput{then}."
    return None


def _experiments(found: Mapping[str, Any], slowed: float | None) -> str | None:
    """Return what each stage would gain if it were twice as fast, and what that cost."""
    rows = entries(found, "experiments")
    if not rows:
        return None
    gains: list[str] = []
    nothing: list[str] = []
    unknown: list[str] = []
    for row in rows:
        name, predicted = str(get_path(row, "name")), number(row, "predicted")
        low, high = _range(row.get("interval"))
        if predicted is None or low is None or high is None:
            unknown.append(name)
        elif predicted < _WORTH_TELLING:
            nothing.append(name)
        else:
            gains.append(f"{name} {round(low * 100)} to {text.percent(high)}")
    said = [text.listed(gains)] if gains else []
    said += [f"{text.listed(nothing)} next to nothing"] if nothing else []
    said += [f"of {text.listed(unknown)} that is not known"] if unknown else []
    confirmed = get_path(found, "confirmed")
    bears = {True: " That bears the verdict out.", False: " That contradicts the verdict."}
    cost = f" They slowed the run by about {text.percent(slowed)}." if slowed is not None else ""
    return f"Experiments: twice as fast, {'; '.join(said)}.{bears.get(confirmed, '')}{cost}"
