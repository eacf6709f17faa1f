"""Find stages and queues in which nothing moves although something is in flight."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import clock, drain, errors, series, settings, text
from otel_pipeline_metrics._core import metric_definitions as defs
from otel_pipeline_metrics._core.process import forking
from otel_pipeline_metrics._core.records import StageKey
from otel_pipeline_metrics._probes.queues import registry
from otel_pipeline_metrics._probes.resources import ticker
from otel_pipeline_metrics._telemetry import sink
from otel_pipeline_metrics._telemetry.attributes import stage_attributes
from otel_pipeline_metrics.service import process_stages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics._core.records import Point
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


# A stage may take this many times its p99 before it counts as stalled.
P99_TIMES: Final = 10

# How often it is looked, beside each collection and each `health()`.
INTERVAL_S: Final = 30.0

# A stage, or the name of a queue.
Place = StageKey | str


class Flight(NamedTuple):
    """How many calls or items are in flight at one place, and what changes when one moves."""

    items: int
    moved: Any


class _Since(NamedTuple):
    """When a place was first seen as it still is."""

    flight: Flight
    at: float


class StallDetector:
    """Remembers since when nothing has moved; `detector` is the only one."""

    def __init__(self) -> None:
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Forget the parent's stages."""
        self._lock = threading.RLock()
        self._since: dict[Place, _Since] = {}
        self._told: set[Place] = set()

    def check(self) -> dict[Place, float | None]:
        """Return the seconds since which each place is stalled; None if it is not.

        A place that stalls is logged once, until it moves again.
        """
        drain.drain()  # so that the p99 is known
        with self._lock:
            now = clock.now()
            flights = in_flight()
            found = {place: self._check(place, flight, now) for place, flight in flights.items()}
            for place in [place for place in self._since if place not in found]:
                del self._since[place]
                self._told.discard(place)
            return found

    def _check(self, place: Place, flight: Flight, now: float) -> float | None:
        before = self._since.get(place)
        if before is None or not flight.items or before.flight != flight:
            self._since[place] = _Since(flight, now)
            self._told.discard(place)
            return None
        seconds = now - before.at
        if seconds < _limit(place):
            return None
        if place not in self._told:
            self._told.add(place)
            self._log(place, flight.items, seconds)
        return seconds

    def _log(self, place: Place, count: int, seconds: float) -> None:
        errors.logger.warning(
            "%s is stalled: it has %s in flight, and nothing has moved for %s",
            called(place),
            text.counted(count, "item" if isinstance(place, str) else "call"),
            text.duration(seconds),
        )

    def points(self) -> list[Point]:
        """Return 1 for each place that is stalled, and 0 for the others."""
        return [
            (
                int(seconds is not None),
                {defs.QUEUE_NAME: place} if isinstance(place, str) else stage_attributes(place),
            )
            for place, seconds in self.check().items()
        ]

    def install(self, instruments: InstrumentSet) -> None:
        """Report `pipeline.stalled` on one set of instruments."""
        instruments.observable_gauge(defs.STALLED, self.points)


def _limit(place: Place) -> float:
    """Return after how many seconds without a movement a place is stalled."""
    least = settings.settings().stalled_after_s
    p99 = None if isinstance(place, str) else process_stages.p99(place)
    return least if p99 is None else max(least, P99_TIMES * p99)


def called(place: Place) -> str:
    """Return what messages call a place."""
    return f"the queue {place!r}" if isinstance(place, str) else f"the stage {place.stage!r}"


def in_flight() -> dict[Place, Flight]:
    """Return what is in flight in every stage and every wrapped queue.

    A call that waits for its input is not in flight: the source has nothing for it. A stage moves
    with the stages that are called inside of it. They are not known to be inside if another thread
    or task calls them, so while no call of a stage has ended yet, any movement of its scope counts
    as its own. A queue counts while no stage has a call in flight that could take from it:
    otherwise that stage tells.
    """
    found: dict[Place, Flight] = {}
    moved_in: dict[str, int] = {}
    for scope in list(series.scopes):
        for queue in list(scope.queues.values()):
            moved_in[queue.name] = moved_in.get(queue.name, 0) + queue.put + queue.got
        for key, flight in _stages_of(scope).items():
            before = found.get(key, Flight(0, ()))
            found[key] = Flight(before.items + flight.items, (*before.moved, flight.moved))
    working = any(flight.items for flight in found.values())
    for name, depth in registry.sizes().items():
        if name in moved_in:  # a queue that is not wrapped shows no movement
            found[name] = Flight(0 if working else depth, (depth, moved_in[name]))
    return found


def _stages_of(scope: series.RunScope) -> dict[StageKey, Flight]:
    """Return what is in flight in each stage of one scope."""
    waiting = _waiting_for_input(scope)
    items: dict[StageKey, int] = {}
    active: dict[StageKey, int] = {}
    inside: dict[StageKey, set[StageKey]] = {}
    for each in list(scope.series.values()):
        key, now = each.key, each.active
        active[key] = active.get(key, 0) + now
        items[key] = items.get(key, 0) + max(0, now - waiting.get(each, 0))
        if each.caller is not None:
            caller = StageKey(scope.pipeline, each.caller.name, each.caller.kind)
            inside.setdefault(caller, set()).add(key)
    queues: dict[str, int] = {}
    for queue in list(scope.queues.values()):
        for name in {*queue.producers, *queue.consumers}:
            queues[name] = queues.get(name, 0) + queue.put + queue.got
    own = {
        key: (active[key], process_stages.finished(key), queues.get(key.stage, 0)) for key in active
    }
    everything = (tuple(own.values()), sum(q.put + q.got for q in list(scope.queues.values())))
    return {
        key: Flight(
            count,
            everything
            if not process_stages.finished(key)
            else tuple(own[each] for each in _with_those_inside(key, inside) if each in own),
        )
        for key, count in items.items()
    }


def _with_those_inside(stage: StageKey, inside: Mapping[StageKey, set[StageKey]]) -> list[StageKey]:
    """Return a stage and all that are called inside of it, directly or not, in a fixed order."""
    found = [stage]
    for each in found:  # it grows meanwhile
        found += sorted(inside.get(each, set()) - {*found}, key=str)
    return found


def _waiting_for_input(scope: series.RunScope) -> dict[Any, int]:
    """Return how many calls of each series wait for an item of a queue."""
    found: dict[Any, int] = {}
    for worker in list(scope.workers.values()):
        waits = list(worker.waits)
        if waits and waits[-1].state == "idle":
            # of a step, the series that counts the generator as active
            for each in {cell[0].whole or cell[0] for cell in list(worker.stack)}:
                found[each] = found.get(each, 0) + 1
    return found


detector: Final = StallDetector()


def watch() -> None:
    """Look for stalled stages from now on: at collections, and in a thread."""
    sink.add_probe("stalled", detector.install)
    with errors.suppress_errors("watching for stalled stages"):
        _ticker.add(detector, _look)


def _look() -> None:
    detector.check()


_ticker: Final = ticker.shared(INTERVAL_S)
