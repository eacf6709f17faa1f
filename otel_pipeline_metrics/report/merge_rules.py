"""Rules for merging the values of several reports; a rule takes the values, in order."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_pipeline_metrics._core.lookup import get_path, number, ratio, stage_items, whole
from otel_pipeline_metrics._core.quantile_sketch import REL_ERROR, Sketch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


T = TypeVar("T")
Data = dict[str, Any]

# a merged sketch has at most twice the buckets of the largest, but so many always
_MIN_BUCKETS: Final = 100
# while merging, a sketch tells the size of the largest
_LARGEST: Final = "largest"


def merge_dicts(found: Sequence[Data], rules: Mapping[str, Any]) -> Data:
    """Return the keys with a rule, and others whose values agree.

    Args:
        found: the dicts to merge.
        rules: a rule by key, or a table of rules for the dicts under that key. A key that is
            missing everywhere stays so: each version of a report keeps its own keys.
    """
    merged = common(found)
    for key, rule in rules.items():
        if not any(key in one for one in found):
            continue
        values = [one.get(key) for one in found]
        if callable(rule):
            merged[key] = rule(values)
        else:
            merged[key] = merge_dicts([v if isinstance(v, dict) else {} for v in values], rule)
    return merged


def merge_numbers_or_dicts(found: Sequence[Any], rules: Mapping[str, Any]) -> Any:
    """Return the sum of numbers, or merge dicts by their rules."""
    if not any(isinstance(value, dict) for value in found):
        return sum_all(found)
    return merge_dicts([value if isinstance(value, dict) else {} for value in found], rules)


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


def sum_all(values: Sequence[Any]) -> Any:
    """Return the sum of numbers; None if one of them is unknown."""
    known = _known(values)
    return sum(known) if len(known) == len(values) else None


def sum_known(values: Sequence[Any]) -> Any:
    """Return the sum of the known numbers; None if all are unknown."""
    known = _known(values)
    return sum(known) if known else None


def sum_errors(values: Sequence[Any]) -> float | None:
    """Return the standard error of a sum: of independent ones, the squares add up."""
    known = _known(values)
    return math.hypot(*known) if len(known) == len(values) else None


def count(values: Sequence[Any]) -> int:
    """Return the sum of counts; an unknown one counts as 0."""
    return int(sum(_known(values)))


def max_known(values: Sequence[Any]) -> float | None:
    """Return the largest known number; None if all are unknown."""
    return max(_known(values), default=None)


def min_known(values: Sequence[Any]) -> float | None:
    """Return the smallest known number; None if all are unknown."""
    return min(_known(values), default=None)


def largest_limit(values: Sequence[Any]) -> float | None:
    """Return the largest number; None, which is no limit, if one is None."""
    known = _known(values)
    return max(known, default=None) if len(known) == len(values) else None


def counts_by_key(values: Sequence[Any]) -> dict[str, int]:
    """Return the sums of counts by key; a missing key counts as 0."""
    total: dict[str, int] = {}
    for counts in values:
        for key, value in (counts or {}).items():
            total[key] = total.get(key, 0) + int(value)
    return total


def names(values: Sequence[Any]) -> list[str]:
    """Return every name once, in order of appearance."""
    lists = [value for value in values if isinstance(value, list)]
    return list(dict.fromkeys(str(name) for found in lists for name in found))


def forgotten(values: Sequence[Any]) -> None:
    """Return None: the value is computed at the end, or has no meaning for several runs."""


def sums_by_key(values: Sequence[Any]) -> Data | None:
    """Return the sums of counts by key, None if one is unknown; None without any counts."""
    found = [value for value in values if isinstance(value, dict)]
    keys = dict.fromkeys(key for counts in found for key in counts)
    return {key: sum_all([counts.get(key) for counts in found]) for key in keys} or None


def product(left: float | None, right: float | None) -> float | None:
    """Return the total of an average and a count; None if one is unknown."""
    if right == 0:  # the average of nothing is unknown, its total is 0
        return 0.0
    return None if left is None or right is None else left * right


def all_elsewhere(queue: Data) -> bool:
    """Tell whether all items of a queue were got in another process, which has their time."""
    return bool(queue.get("put")) and not queue.get("got") and not queue.get("depth")


def merge_means(found: Sequence[Any], by: str, mean: str) -> list[Data]:
    """Return lists of means with their `count` as one, in the order of the key `by`."""
    groups: dict[Any, list[Data]] = {}
    for entries in found:
        for entry in entries or ():
            groups.setdefault(entry.get(by), []).append(entry)
    merged = []
    for key, group in sorted(groups.items()):
        number_of = count([entry.get("count") for entry in group])
        totals = [product(number(entry, mean), number(entry, "count")) for entry in group]
        merged.append({by: key, "count": number_of, mean: ratio(sum_all(totals), number_of)})
    return merged


def largest_of(by: str, most: int) -> Callable[[Sequence[Any]], list[Data]]:
    """Return the rule for lists of entries of which those with the largest `by` are kept."""

    def rule(found: Sequence[Any]) -> list[Data]:
        every = [entry for entries in found for entry in entries or () if isinstance(entry, dict)]
        every.sort(key=lambda entry: -(number(entry, by) or 0.0))
        return every[:most]

    return rule


def share_of_moments(parts: Sequence[Data], *keys: str) -> Data:
    """Return shares of random moments, and their numbers: of the reports that know them."""
    merged: Data = {}
    for key in keys:
        samples = f"{key}_samples"
        if not any(key in part for part in parts):
            continue
        known = [part for part in parts if None not in (number(part, key), number(part, samples))]
        taken = sum_known([part.get(samples) for part in known or parts])
        held = sum_all([product(number(part, key), number(part, samples)) for part in known])
        merged |= {key: ratio(held, taken) if known else None, samples: taken}
    return merged


def rank(order: Sequence[str | None]) -> Callable[[Sequence[Any]], Any]:
    """Return the rule for the word that is last in `order`; later versions' are last of all."""

    def place(value: str | None) -> int:
        return order.index(value) if value in order else len(order)

    return lambda values: max(values, key=place)


def _known(values: Sequence[Any]) -> list[float]:
    return [found for value in values if (found := number(value)) is not None]


# --- percentiles ----------------------------------------------------------------------------


def sketch(values: Sequence[Any]) -> Data | None:
    """Return the merged sketch; None if one is missing or malformed."""
    merged, largest = Sketch(), 0
    for value in values:
        try:
            one = Sketch.from_dict(value)
        except (ValueError, TypeError, AttributeError):
            return None
        largest = max(largest, value.get(_LARGEST) or len(one))
        merged.merge(one)
    return merged.to_dict() | {_LARGEST: largest}


def percentiles(entry: Data) -> Data:
    """Return the percentiles of a merged sketch, within what was really seen, and the sketch."""
    data = get_path(entry, "sketch")
    if data is None:
        return {**dict.fromkeys(("p50", "p95", "p99")), "rel_error": REL_ERROR, "sketch": None}
    found = Sketch.from_dict(data)
    # thousands of runs would need more room than any of them
    found.limit(max(_MIN_BUCKETS, 2 * data[_LARGEST]))
    known = found.percentiles(number(entry, "min"), number(entry, "max"))
    return {**known, "rel_error": found.rel_error, "sketch": found.to_dict()}


# --- rates and shares -----------------------------------------------------------------------


def derive(stage: Data, wall_s: float | None) -> None:
    """Add the rates and shares that follow from the sums."""
    calls, total = whole(stage, "count"), number(stage, "duration_s", "total")
    if isinstance(stage.get("duration_s"), dict):
        stage["duration_s"]["avg"] = ratio(total, calls)
    stage["throughput"] = {
        "wall_per_s": ratio(calls, wall_s),
        "busy_per_s": ratio(calls, total),
        "items_per_s": ratio(stage_items(stage), wall_s),
    }
    if isinstance(stage.get("share"), dict):
        wall = number(stage, "time_s", "wall")
        shares = {state: ratio(number(stage, "time_s", state), wall) for state in stage["share"]}
        stage["share"] = shares
