"""Limit how many distinct values a key may have: further ones become `_OTHER`.

Attribute values, pipelines and error types are limited to `max_values` of each key. The names of
stages, queues and caches are limited to `MAX_NAMES`: a program has as many of them as its author
wrote, unless they are made from data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.counter import Counter

if TYPE_CHECKING:
    from collections.abc import Mapping


OTHER: Final = "_OTHER"

# The SDK's own limit for the attribute sets of one metric.
MAX_NAMES: Final = 2000

DEFAULT_MAX_VALUES: Final = 200

# Set by `configure(max_attribute_values=)`.
max_values = DEFAULT_MAX_VALUES

# How often a value or a name became `_OTHER`.
others = Counter()


def limit(most: int) -> None:
    """Set how many values every key may have."""
    global max_values  # written here only
    max_values = most


class Distinct:
    """The distinct values of some keys.

    Args:
        most: how many each key may have; None: `max_values`.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._seen: dict[str, set[object]] = {}

    def limit(self, key: str, value: object, *, again: bool = False) -> object:
        """Return `value` if it is one of the first of `key`, else `_OTHER`.

        Args:
            key: the key that has the value.
            value: the value to limit.
            again: whether this occurrence is counted already.
        """
        seen = self._seen.get(key) or self._seen.setdefault(key, set())
        if value in seen or value == OTHER:
            return value
        most = max_values if self._most is None else self._most
        if len(seen) >= most:
            return OTHER if again else overflow(key if self._most else f"values of {key}", most)
        seen.add(value)
        return value

    def name(self, key: str, value: str, *, again: bool = False) -> str:
        """Return what `limit` does, as a string."""
        return str(self.limit(key, value, again=again))


def key_in(found: Mapping[str, object], key: str, what: str) -> str:
    """Return `key` if `found` has it or has room for it, else `_OTHER`."""
    if key in found or len(found) < max_values:
        return key
    return overflow(what, max_values)


def overflow(what: str, most: int) -> str:
    """Count a value above the limit, log that once, and return `_OTHER`."""
    others.add()
    errors.warn_once(
        f"cardinality of {what}",
        "there are more than %d different %s; further ones are counted together, as %s: "
        "they should be fixed words, not made from data",
        most,
        what,
        OTHER,
    )
    return OTHER


# The names of queues, caches and manual measurements, for the life of the process.
instrument_names = Distinct(MAX_NAMES)
