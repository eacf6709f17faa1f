"""Merge single values of several reports: sums, extremes, weighted averages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from otel_pipeline_metrics._core.lookup import number, ratio, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence


T = TypeVar("T")
Data = dict[str, Any]


def group_entries(
    parts: list[Data], section: str, key: Callable[[Data], Hashable]
) -> list[list[Data]]:
    """Group the entries of a section by key, in order of appearance."""
    groups: dict[Hashable, list[Data]] = {}
    for part in parts:
        for entry in part[section]:
            groups.setdefault(key(entry), []).append(entry)
    return list(groups.values())


def common(parts: Sequence[Data]) -> Data:
    """Return the keys whose values agree, those of later versions among them."""
    first, *others = parts
    return {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }


def same(values: Sequence[T | None]) -> T | None:
    """Return the value that all have in common, else None."""
    return values[0] if all(value == values[0] for value in values) else None


def add(values: Sequence[Any]) -> Any:
    """Return the sum; None if one of the values is unknown."""
    return None if None in values else sum(values)


def sum_all(entries: Sequence[Data], *keys: str) -> Any:
    """Return the sum of the numbers under the keys; None if one is unknown."""
    return add([number(entry, *keys) for entry in entries])


def sum_known(entries: Sequence[Data], *keys: str) -> Any:
    """Return the sum of the known numbers under the keys; None if all are unknown."""
    known = _known(entries, *keys)
    return sum(known) if known else None


def max_known(entries: Sequence[Data], *keys: str) -> float | None:
    """Return the largest known number under the keys; None if all are unknown."""
    return max(_known(entries, *keys), default=None)


def min_known(entries: Sequence[Data], *keys: str) -> float | None:
    """Return the smallest known number under the keys; None if all are unknown."""
    return min(_known(entries, *keys), default=None)


def _known(entries: Sequence[Data], *keys: str) -> list[float]:
    return [found for entry in entries if (found := number(entry, *keys)) is not None]


def product(left: float | None, right: float | None) -> float | None:
    """Return the total of an average and a count; None if one is unknown."""
    if right == 0:  # the average of nothing is unknown, its total is 0
        return 0.0
    return None if left is None or right is None else left * right


def weighted(entries: Sequence[Data], *keys: str) -> float | None:
    """Return the average of the numbers under the keys, weighted by the time observed."""
    areas = [product(number(e, *keys), number(e, "observed_s")) for e in entries]
    return ratio(add(areas), sum_all(entries, "observed_s"))


def sum_counts(found: Sequence[Any]) -> Data | None:
    """Return the sums of counts by key; None if none of them is known."""
    keys = dict.fromkeys(key for counts in found if isinstance(counts, dict) for key in counts)
    return {key: add([whole({"of": c}, "of", key) for c in found]) for key in keys} or None


def sum_types(found: Sequence[Any]) -> dict[str, int]:
    """Return the sums of counts by error type; a missing type counts as 0."""
    total: dict[str, int] = {}
    for counts in found:
        for key, value in (counts or {}).items():
            total[key] = total.get(key, 0) + int(value)
    return total


def rank(order: Sequence[str | None]) -> Callable[[str | None], int]:
    """Rank words by their place in `order`; words of later versions rank last."""
    return lambda value: order.index(value) if value in order else len(order)
