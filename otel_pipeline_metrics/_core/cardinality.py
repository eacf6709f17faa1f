"""How many distinct values a key may have: past that they are one, `_OTHER`, and memory is flat.

Attribute values, pipelines and error types may be `max_values` of each key. Names that make
the shape of a pipeline, those of stages, queues and caches, may be `MAX_NAMES`: a program has
as many of them as its author wrote, unless they are made from data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.counter import Counter

if TYPE_CHECKING:
    from collections.abc import Mapping


OTHER: Final = "_OTHER"

MAX_NAMES: Final = 2000
"""As many as the SDK of today keeps attribute sets of one metric."""

DEFAULT_MAX_VALUES: Final = 200

max_values = DEFAULT_MAX_VALUES
"""What `configure(max_attribute_values=)` said."""

others = Counter()
"""How often a value or a name was taken for `_OTHER`."""


def limit(most: int) -> None:
    """Let every key have so many values from now on."""
    global max_values  # the one place that holds it
    max_values = most


class Distinct:
    """The distinct values of some keys.

    Args:
        most: how many of each; None: `max_values`.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._seen: dict[str, set[object]] = {}

    def limit(self, key: str, value: object, *, again: bool = False) -> object:
        """Return `value` if it is one of the first of `key`, else `_OTHER`, which is said once.

        Args:
            key: whose value it is.
            value: to be bound.
            again: whether this occurrence has been counted.
        """
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen.setdefault(key, set())
        if value in seen or value == OTHER:
            return value
        most = max_values if self._most is None else self._most
        if len(seen) >= most:
            return OTHER if again else overflow(key if self._most else f"values of {key}", most)
        seen.add(value)
        return value

    def name(self, key: str, value: str, *, again: bool = False) -> str:
        """Return `bound` of a string."""
        return str(self.limit(key, value, again=again))


def key_in(found: Mapping[str, object], key: str, what: str) -> str:
    """Return `key` if `found` has it or has room for it, else `_OTHER`."""
    if key in found or len(found) < max_values:
        return key
    return overflow(what, max_values)


def overflow(what: str, most: int) -> str:
    """Count one that is one too many, such as of "stage names"; say so once; return `_OTHER`."""
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


instrument_names = Distinct(MAX_NAMES)
"""Those of queues and caches, and of what is recorded by hand, as long as the process lives."""
