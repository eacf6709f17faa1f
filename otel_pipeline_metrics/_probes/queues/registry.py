"""The instrumented queues that are alive: their depths and capacities, by name."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final, Protocol

from otel_pipeline_metrics._core import metric_definitions

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeGuard

    from otel_pipeline_metrics._core.records import Point
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


class Sized(Protocol):
    """An instrumented queue, as far as this room needs to know it."""

    def depth(self) -> int | None:
        """Return how many items are in it; None where the platform cannot tell."""

    def capacity(self) -> int | None:
        """Return how many items it holds at most; None if that is unbounded."""


REMEMBERED: Final = 1000
"""Names whose capacity is known when their queues are gone."""

_queues: dict[str, weakref.WeakSet[Sized]] = {}
_remembered: dict[str, int] = {}


def register(queue: Sized, name: str) -> None:
    """Let a queue be reported for as long as it lives."""
    _queues.setdefault(name, weakref.WeakSet()).add(queue)
    _remembered.pop(name, None)
    bounds = [alive.capacity() for alive in list(_queues[name])]
    if _all_known(bounds):
        _remembered[name] = sum(bounds)
        if len(_remembered) > REMEMBERED:
            _remembered.pop(next(iter(_remembered)), None)


def sizes() -> dict[str, int]:
    """Return the depth now of the queues of each name."""
    depths = {name: [queue.depth() for queue in alive] for name, alive in _alive()}
    return {name: sum(known) for name, known in depths.items() if _all_known(known)}


def capacities() -> dict[str, int]:
    """Return the capacity of the queues of each name, where all of them are bounded."""
    bounds = {name: [queue.capacity() for queue in alive] for name, alive in _alive()}
    return {name: sum(known) for name, known in bounds.items() if _all_known(known)}


def known_sizes() -> dict[str, int]:
    """Return `sizes()`, and 0 for queues that are gone, as the last collection of a job wants."""
    return {**{name: 0 for name, alive in _alive() if not alive}, **sizes()}


def known_capacities() -> dict[str, int]:
    """Return `capacities()`, and those of queues that are gone, as a report at the end wants."""
    return {**_remembered, **capacities()}


def _all_known(values: list[int | None]) -> TypeGuard[list[int]]:
    """Tell whether there are values, and none of them unknown."""
    return bool(values) and None not in values


def _alive() -> list[tuple[str, list[Sized]]]:
    return [(name, list(queues)) for name, queues in list(_queues.items())]


def install_queues(instruments: InstrumentSet) -> None:
    """Report the depth and capacity of every instrumented queue, later ones included."""

    def points(read: Callable[[], dict[str, int]]) -> Callable[[], list[Point]]:
        return lambda: [(n, {metric_definitions.QUEUE_NAME: name}) for name, n in read().items()]

    instruments.observable_up_down_counter(metric_definitions.QUEUE_SIZE, points(known_sizes))
    instruments.observable_up_down_counter(
        metric_definitions.QUEUE_CAPACITY, points(known_capacities)
    )
