"""Report depth and capacity of the instrumented queues that exist, by name."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final, Protocol

from otel_pipeline_metrics._core import metric_definitions as defs

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeGuard

    from otel_pipeline_metrics._core.records import Point
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


class Sized(Protocol):
    """The part of an instrumented queue that is read here."""

    def depth(self) -> int | None:
        """Return the number of items; None if the queue does not tell."""

    def capacity(self) -> int | None:
        """Return the maximum number of items; None if it is unbounded or unknown."""


# Names whose capacity is kept after their queues are gone.
REMEMBERED: Final = 1000


class _Named:
    """The queues of one name that exist, and the sum of their capacities.

    The sum is updated as queues come and go. Reading all capacities for each new queue would make
    a queue for each request cost more the more requests there are.
    """

    def __init__(self) -> None:
        self._bounds: dict[weakref.ref[Sized], int | None] = {}
        self._sum = 0
        self._unbounded = 0

    def add(self, queue: Sized) -> int | None:
        """Add a queue; return the capacity of all of them, or None if one has none."""
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
        """Return the queues that exist."""
        return [queue for ref in list(self._bounds) if (queue := ref()) is not None]


_queues: dict[str, _Named] = {}
_remembered: dict[str, int] = {}


def register(queue: Sized, name: str) -> None:
    """Report a queue for as long as it exists."""
    # removed and set again, so that the names used last are the last to be forgotten
    _remembered.pop(name, None)
    capacity = _queues.setdefault(name, _Named()).add(queue)
    if capacity is not None:
        _remembered[name] = capacity
        if len(_remembered) > REMEMBERED:
            _remembered.pop(next(iter(_remembered)), None)


def sizes() -> dict[str, int]:
    """Return the present depth of the queues of each name."""
    depths = {name: [queue.depth() for queue in alive] for name, alive in _alive()}
    return {name: sum(known) for name, known in depths.items() if _all_known(known)}


def capacities() -> dict[str, int]:
    """Return the capacity of the queues of each name whose queues are all bounded."""
    bounds = {name: [queue.capacity() for queue in alive] for name, alive in _alive()}
    return {name: sum(known) for name, known in bounds.items() if _all_known(known)}


def known_sizes() -> dict[str, int]:
    """Return `sizes()`, with 0 for queues that are gone: for a job's last collection."""
    return {**{name: 0 for name, alive in _alive() if not alive}, **sizes()}


def known_capacities() -> dict[str, int]:
    """Return `capacities()`, with those of queues that are gone: for a last report."""
    return {**_remembered, **capacities()}


def _all_known(values: list[int | None]) -> TypeGuard[list[int]]:
    """Tell whether there are values, all of them known."""
    return bool(values) and None not in values


def _alive() -> list[tuple[str, list[Sized]]]:
    return [(name, queues.alive()) for name, queues in list(_queues.items())]


def install_queues(instruments: InstrumentSet) -> None:
    """Report the depth and capacity of every instrumented queue, including later ones."""

    def points(read: Callable[[], dict[str, int]]) -> Callable[[], list[Point]]:
        return lambda: [(n, {defs.QUEUE_NAME: name}) for name, n in read().items()]

    instruments.observable_up_down_counter(defs.QUEUE_SIZE, points(known_sizes))
    instruments.observable_up_down_counter(defs.QUEUE_CAPACITY, points(known_capacities))
