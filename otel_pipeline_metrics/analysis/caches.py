"""Advise a larger size for caches whose report tells that it would bring something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.lookup import entries, number

if TYPE_CHECKING:
    from collections.abc import Mapping


# The ratios of other sizes are right within two points.
WORTH: Final = 0.02
# Fewer look-ups are hardly what the program does all day.
LOOK_UPS: Final = 100
# The caches that are mentioned, those with the most avoidable misses first.
MENTIONED: Final = 3


def advise(data: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each cache of a report that should be larger."""
    found = [gain for cache in entries(data, "caches") if (gain := _advise(cache)) is not None]
    return [sentence for _, sentence in sorted(found, reverse=True)[:MENTIONED]]


def _advise(cache: Mapping[str, Any]) -> tuple[float, str] | None:
    """Return the look-ups that would hit, and the advice."""
    hits, misses = number(cache, "hits"), number(cache, "misses")
    if hits is None or misses is None or hits + misses < LOOK_UPS:
        return None
    now = best = hits / (hits + misses)
    sizes: list[str] = []
    for key, words in (("twice", "twice"), ("four_times", "four times")):
        ratio = number(cache, "what_if", key)
        if ratio is not None and ratio >= best + WORTH:
            best = ratio
            instead = "" if sizes else f" the entries: {ratio:.2f} instead of {now:.2f}"
            sizes.append(words + (instead or f": {ratio:.2f}"))
    if not sizes:
        return None
    sentence = f"Cache {cache.get('name')} would hit more often, with {', '.join(sizes)}."
    return (best - now) * (hits + misses), sentence
