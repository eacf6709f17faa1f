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


class _Named:
    """The queues of one name that are alive, and the sum of their capacities.

    The sum is kept up to date as queues come and go: asking all of them whenever one comes would
    make a queue for each request cost more the more requests there are.
    """

    def __init__(self) -> None:
        self._bounds: dict[weakref.ref[Sized], int | None] = {}
        self._sum = 0
        self._unbounded = 0

    def add(self, queue: Sized) -> int | None:
        """Add a queue; return the capacity of all of them, if each has one."""
        bound = queue.capacity()
        self._bounds[weakref.ref(queue, self._gone)] = bound
        if bound is None:
            self._unbounded += 1
        else:
            self._sum += bound
        return None if self._unbounded else self._sum

    def _gone(self, ref: weakref.ref[Sized]) -> None:
        bound = self._bounds.pop(ref)
        if bound is None:
            self._unbounded -= 1
        else:
            self._sum -= bound

    def alive(self) -> list[Sized]:
        """Return the queues."""
        return [queue for ref in list(self._bounds) if (queue := ref()) is not None]


_queues: dict[str, _Named] = {}
_remembered: dict[str, int] = {}


def register(queue: Sized, name: str) -> None:
    """Let a queue be reported for as long as it lives."""
    # removed and set again, so that the names used last are the last to be forgotten
    _remembered.pop(name, None)
    capacity = _queues.setdefault(name, _Named()).add(queue)
    if capacity is not None:
        _remembered[name] = capacity
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
    return [(name, queues.alive()) for name, queues in list(_queues.items())]


def install_queues(instruments: InstrumentSet) -> None:
    """Report the depth and capacity of every instrumented queue, later ones included."""

    def points(read: Callable[[], dict[str, int]]) -> Callable[[], list[Point]]:
        return lambda: [(n, {metric_definitions.QUEUE_NAME: name}) for name, n in read().items()]

    instruments.observable_up_down_counter(metric_definitions.QUEUE_SIZE, points(known_sizes))
    instruments.observable_up_down_counter(
        metric_definitions.QUEUE_CAPACITY, points(known_capacities)
    )
