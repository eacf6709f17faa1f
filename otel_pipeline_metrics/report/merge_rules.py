"""How each value of two reports is merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from otel_pipeline_metrics.report.flow import number, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence


T = TypeVar("T")
Data = dict[str, Any]


def _added(found: Sequence[Any]) -> Data | None:
    """Return the sums of counts by key; None where nobody gave any."""
    keys = dict.fromkeys(key for counts in found if isinstance(counts, dict) for key in counts)
    return {key: _sum([whole({"of": c}, "of", key) for c in found]) for key in keys} or None


def _grouped(parts: list[Data], section: str, key: Callable[[Data], Hashable]) -> list[list[Data]]:
    """Return the entries of a section, those of one key together, in order of appearance."""
    groups: dict[Hashable, list[Data]] = {}
    for part in parts:
        for entry in part[section]:
            groups.setdefault(key(entry), []).append(entry)
    return list(groups.values())


def _common(parts: Sequence[Data]) -> Data:
    """Return what all parts say alike; it carries keys over that this version does not know."""
    first, *others = parts
    return {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }


def _same(values: Sequence[T | None]) -> T | None:
    return values[0] if all(value == values[0] for value in values) else None


def _sum(values: Sequence[Any]) -> Any:
    """Return the sum; None as soon as one is unknown."""
    return None if any(value is None for value in values) else sum(values)


def _plus(values: Sequence[Any]) -> Any:
    """Return the sum of those that somebody gave; None where nobody did, as in one run."""
    given = [value for value in values if value is not None]
    return sum(given) if given else None


def _max_known(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _min_known(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _times(left: float | None, right: float | None) -> float | None:
    if right == 0:  # nothing came out of the queue, so there is no average to lack
        return 0.0
    return None if left is None or right is None else left * right


def _ratio(part: float | None, of: float | None) -> float | None:
    return part / of if part is not None and of else None


def _weighted(entries: list[Data], *keys: str) -> float | None:
    """Return the average over the time observed."""
    areas = [_times(number(e, *keys), number(e, "observed_s")) for e in entries]
    return _ratio(_sum(areas), _sum([number(entry, "observed_s") for entry in entries]))


def _counts(found: Sequence[Any]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counts in found:
        for key, value in (counts or {}).items():
            total[key] = total.get(key, 0) + int(value)
    return total


def _rank(order: Sequence[str | None]) -> Callable[[str | None], int]:
    """Rank what is in `order`; what is not, a word of a later version, counts as worst."""
    return lambda value: order.index(value) if value in order else len(order)
