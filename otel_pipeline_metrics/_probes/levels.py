"""Report the levels and bounds of things that exist, by name: of queues, and of limits."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeGuard

    from otel_pipeline_metrics._core.metric_definitions import Metric
    from otel_pipeline_metrics._core.records import Point
    from otel_pipeline_metrics._telemetry.instruments import InstrumentSet


class Sized(Protocol):
    """A thing that holds a number of others, such as a queue its items."""

    def depth(self) -> int | None:
        """Return the number of them; None if it is not known."""

    def capacity(self) -> int | None:
        """Return the maximum number of them; None if it is unbounded or unknown."""


T = TypeVar("T", bound=Sized)

# Names whose bound is kept after their things are gone.
REMEMBERED: Final = 1000


class _Named(Generic[T]):
    """The things of one name that exist, and the sum of their bounds.

    The sum is updated as things come and go. Reading all bounds for each new thing would make a
    queue for each request cost more the more requests there are.
    """

    def __init__(self) -> None:
        self._bounds: dict[weakref.ref[T], int | None] = {}
        self._sum = 0
        self._unbounded = 0

    def add(self, thing: T) -> int | None:
        """Add a thing; return the bound of all of them, or None if one has none."""
        bound = thing.capacity()
        self._bounds[weakref.ref(thing, self._gone)] = bound
        if bound is None:
            self._unbounded += 1
        else:
            self._sum += bound
        return None if self._unbounded else self._sum

    def __len__(self) -> int:
        return len(self._bounds)

    def _gone(self, ref: weakref.ref[T]) -> None:
        bound = self._bounds.pop(ref)
        if bound is None:
            self._unbounded -= 1
        else:
            self._sum -= bound

    def alive(self) -> list[T]:
        """Return the things that exist."""
        return [thing for ref in list(self._bounds) if (thing := ref()) is not None]


class Levels(Generic[T]):
    """The things of one kind that exist, by name."""

    def __init__(self) -> None:
        self._named: dict[str, _Named[T]] = {}
        self.remembered: dict[str, int] = {}

    def reset(self) -> None:
        """Forget everything; for tests."""
        self._named.clear()
        self.remembered.clear()

    def register(self, thing: T, name: str) -> None:
        """Report a thing for as long as it exists."""
        # removed and set again, so that the names used last are the last to be forgotten
        self.remembered.pop(name, None)
        bound = self._named.setdefault(name, _Named()).add(thing)
        if bound is not None:
            self.remembered[name] = bound
            if len(self.remembered) > REMEMBERED:
                self.remembered.pop(next(iter(self.remembered)), None)

    def names(self) -> list[str]:
        """Return the names of which there were things."""
        return list(self._named)

    def number(self, name: str) -> int:
        """Return how many things of a name exist."""
        named = self._named.get(name)
        return 0 if named is None else len(named)

    def alive(self, name: str) -> list[T]:
        """Return the things of a name that exist."""
        named = self._named.get(name)
        return [] if named is None else named.alive()

    def sizes(self) -> dict[str, int]:
        """Return the present level of the things of each name."""
        depths = {name: [thing.depth() for thing in alive] for name, alive in self._alive()}
        return {name: sum(known) for name, known in depths.items() if _all_known(known)}

    def capacities(self) -> dict[str, int]:
        """Return the bound of the things of each name that are all bounded."""
        bounds = {name: [thing.capacity() for thing in alive] for name, alive in self._alive()}
        return {name: sum(known) for name, known in bounds.items() if _all_known(known)}

    def known_sizes(self) -> dict[str, int]:
        """Return `sizes()`, with 0 for things that are gone: for a job's last collection."""
        return {**{name: 0 for name, alive in self._alive() if not alive}, **self.sizes()}

    def known_capacities(self) -> dict[str, int]:
        """Return `capacities()`, with those of things that are gone: for a last report."""
        return {**self.remembered, **self.capacities()}

    def install(
        self, instruments: InstrumentSet, size: Metric, capacity: Metric, attribute: str
    ) -> None:
        """Report the level and the bound of every thing, including later ones."""

        def points(read: Callable[[], dict[str, int]]) -> Callable[[], list[Point]]:
            return lambda: [(n, {attribute: name}) for name, n in read().items()]

        instruments.observable_up_down_counter(size, points(self.known_sizes))
        instruments.observable_up_down_counter(capacity, points(self.known_capacities))

    def _alive(self) -> list[tuple[str, list[T]]]:
        return [(name, named.alive()) for name, named in list(self._named.items())]


def _all_known(values: list[int | None]) -> TypeGuard[list[int]]:
    """Tell whether there are values, all of them known."""
    return bool(values) and None not in values
