"""Move many values into an aggregation of the SDK, in one statement.

A signal handler may raise at any call. So each function computes the aggregation's new state
first, and sets it in the statement that removes the values from their list, where nothing is
called: a value is either still pending, or recorded, and never both.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence


Add = Callable[[Any, list[float], float], None]


def add_to_several(
    found: Sequence[tuple[Add, Any]], values: list[float], total: float, changes: list[partial[Any]]
) -> None:
    """Add values to any number of aggregations, and make `changes`, all at once.

    Args:
        found: how to add, and to what.
        values: sorted values; they stay in this list.
        total: their sum.
        changes: calls of functions of C that return None.
    """
    if not found:
        # one call that stays in C, where Python handles no signal
        any(map(partial.__call__, changes))
        return
    (add, aggregation), *others = found
    with aggregation._lock:
        twin = _twin(aggregation)
        add(twin, values[:], total)
        changes.append(partial(setattr, aggregation, "__dict__", _state(twin, aggregation)))
        add_to_several(others, values, total, changes)


def _twin(aggregation: Any) -> Any:
    """Return a copy with a lock of its own."""
    twin = copy(aggregation)
    twin._lock = threading.Lock()
    return twin


def _state(twin: Any, aggregation: Any) -> dict[str, Any]:
    return {**vars(twin), "_lock": aggregation._lock}


def _add_to_explicit(aggregation: Any, values: list[float], total: float) -> None:
    with aggregation._lock:
        counts, bounds = aggregation._value, aggregation._boundaries
        counts = [0] * (len(bounds) + 1) if counts is None else counts[:]
        least, largest = aggregation._min, aggregation._max
        if aggregation._record_min_max:
            if values[0] < least:  # noqa: PLR1730 - a call costs more
                least = values[0]
            if values[-1] > largest:  # noqa: PLR1730 - a call costs more
                largest = values[-1]
        done, n = 0, len(values)
        while done < n:
            # a bucket holds the values up to its bound, inclusive
            index = bisect_left(bounds, values[done])
            upto = bisect_right(values, bounds[index], done) if index < len(bounds) else n
            counts[index] += upto - done
            done = upto
        state = counts, aggregation._sum + total, least, largest, ()
        # at once: a signal handler raises before or after this, as nothing is called there
        aggregation._value, aggregation._sum, aggregation._min, aggregation._max, values[:n] = state


class _Measurement:
    """A measurement as far as an aggregation reads it for a value without an exemplar."""

    __slots__ = ("value",)

    def __init__(self, value: float) -> None:
        self.value = value


def _add_to_exponential(aggregation: Any, values: list[float], _: float) -> None:
    with aggregation._lock:
        twin = _twin(aggregation)
        for name in ("_value_positive", "_value_negative"):
            buckets = copy(getattr(twin, name))
            if buckets is not None:
                buckets._counts = buckets._counts[:]
                setattr(twin, name, buckets)
        _add_to_twin(twin, values)
        # at once, as in `_add_to_explicit`
        state = _state(twin, aggregation)
        aggregation.__dict__, values[:] = state, ()


def _add_to_twin(twin: Any, values: list[float]) -> None:
    zeros = bisect_right(values, 0)
    if len(values) - zeros <= 2:  # only the least and the largest
        for value in values:
            twin.aggregate(_Measurement(value), False)
        return
    # the least and the largest value set the scale for all values between them
    twin.aggregate(_Measurement(values[-1]), False)
    twin.aggregate(_Measurement(values[zeros]), False)
    between = values[zeros + 1 : -1]
    twin._sum += sum(between)
    twin._count += len(between) + zeros
    twin._zero_count += zeros
    twin._min = min(twin._min, values[0])
    buckets = twin._value_positive
    index_of, base = twin._mapping.map_to_index, buckets.index_base
    for value in between:
        buckets.increment_bucket(index_of(value) - base)


def add_to_sum(aggregation: Any, values: list[float], total: float) -> None:
    with aggregation._lock:
        aggregation._value, values[:] = (aggregation._value or 0) + total, ()


def _add_to_last_value(aggregation: Any, values: list[float], _: float) -> None:
    with aggregation._lock:
        aggregation._value, values[:] = values[-1], ()


def _add_to_dropped(_: Any, values: list[float], __: float) -> None:
    """Remove the values only: a view drops this instrument."""
    values.clear()


ADD_BY_CLASS: Final[dict[str, Add]] = {
    "_ExplicitBucketHistogramAggregation": _add_to_explicit,
    "_ExponentialBucketHistogramAggregation": _add_to_exponential,
    "_SumAggregation": add_to_sum,
    "_LastValueAggregation": _add_to_last_value,
    "_DropAggregation": _add_to_dropped,
}
