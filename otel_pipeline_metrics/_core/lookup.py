"""Read values from plain data that may lack them: a report may come from a file."""

from __future__ import annotations

import math
from typing import Any


def get_path(data: object, *keys: str) -> Any:
    """Return the value under nested keys; None if one of them is missing or null."""
    for key in keys:
        if not isinstance(data, dict):
            return None
        data = data.get(key)
    return data


def number(data: object, *keys: str) -> float | None:
    """Return the finite number under nested keys, else None."""
    # not `get_path`: a verdict reads some thousand numbers every few seconds
    found: Any = data
    for key in keys:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    if isinstance(found, float):
        return found if math.isfinite(found) else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def whole(data: object, *keys: str) -> int | None:
    """Return the number under nested keys without its fraction, else None."""
    found = number(data, *keys)
    return None if found is None else int(found)


def get_strings(data: object, key: str) -> list[str]:
    """Return the list under a key as strings; an empty one if it is missing."""
    found = get_path(data, key)
    return [str(name) for name in found] if isinstance(found, list) else []


def entries(data: object, key: str) -> list[dict[str, Any]]:
    """Return the objects in the list under a key; an empty list if it is missing."""
    found = get_path(data, key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def stage_items(stage: object) -> int | None:
    """Return the items that a report's stage produced or, if it only takes items, took."""
    produced = whole(stage, "items", "out")
    return whole(stage, "items", "in") if produced is None else produced


def ratio(part: float | None, of: float | None) -> float | None:
    """Return `part / of`; None if one is unknown, `of` is 0 or the result is not finite."""
    if part is None or not of:
        return None
    try:
        found = part / of
    except OverflowError:  # an integer that has no float
        return None
    return found if math.isfinite(found) else None
