"""Check names, attributes and numbers that users hand in."""

from __future__ import annotations

import math
import numbers
import operator
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.records import AttributeValue

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.records import AttributeValue


def check_count(n: object, argument: str) -> int:
    """Return `n` as a count, or raise what says why it is none."""
    if isinstance(n, bool):
        raise TypeError(f"{argument} must be an integer, not bool")
    try:
        count = operator.index(n)  # type: ignore[arg-type]  # it raises what we want raised
    except TypeError:
        raise TypeError(f"{argument} must be an integer, not {type(n).__name__}") from None
    if count < 0:
        raise ValueError(f"{argument} must not be negative, this one is {count}")
    return count


def _check_direction(direction: object) -> None:
    if direction not in ("in", "out"):
        raise ValueError(f'direction must be "in" or "out", not {direction!r}')


def _number(value: object, argument: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{argument} must be a number, not {type(value).__name__}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{argument} must be finite, not {number}")
    if number < 0:
        raise ValueError(f"{argument} must not be negative, this one is {number:g}")
    return number


def _whole(value: object, argument: str) -> int:
    number = _number(value, argument)
    if number != int(number):
        raise ValueError(f"{argument} must be a whole number, not {number:g}")
    return int(number)


MAX_NAME_LENGTH: Final = 128
"""A stage, pipeline or cache name is an attribute value and a table column: keep it short."""


def check_name(value: object, argument: str) -> str:
    """Return `value` if it can name something.

    Raises:
        TypeError: it is no string.
        ValueError: it is empty, blank or longer than `MAX_NAME_LENGTH`.
    """
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a string, not {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{argument} must not be empty")
    if len(value) > MAX_NAME_LENGTH:
        raise ValueError(
            f"{argument} must be at most {MAX_NAME_LENGTH} characters, this one has {len(value)}"
        )
    return value


_SCALARS = (str, bool, int, float)


def check_attribute(key: object, value: object, argument: str) -> None:
    """Raise where OpenTelemetry would not take this attribute.

    Raises:
        TypeError: the key is no string, or the value is neither a str, bool, int or float
            nor a list or tuple of one of those.
        ValueError: the key is empty.
    """
    if not isinstance(key, str):
        raise TypeError(f"{argument}: keys must be strings, not {type(key).__name__}")
    if not key:
        raise ValueError(f"{argument}: a key must not be empty")
    if isinstance(value, _SCALARS):
        return
    if isinstance(value, (list, tuple)) and all(isinstance(v, _SCALARS) for v in value):
        return
    raise TypeError(
        f"{argument}[{key!r}] must be a str, bool, int, float or a list of one of them, "
        f"not {type(value).__name__}"
    )


def check_attributes(value: object, argument: str = "attributes") -> dict[str, AttributeValue]:
    """Return `value` as a dict of its own, or raise as `check_attribute` does; None is empty."""
    if value is None:
        return {}
    if not hasattr(value, "items"):
        raise TypeError(f"{argument} must be a mapping, not {type(value).__name__}")
    attributes = dict(value.items())
    for key, item in attributes.items():
        check_attribute(key, item, argument)
    return attributes


def _checked(value: object, argument: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{argument} must be a number, not {type(value).__name__}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{argument} must be finite and not negative, not {value!r}")
    return value


def _total(total: Any) -> int | None:
    if total is None:
        return None
    if isinstance(total, bool) or not isinstance(total, int):
        raise TypeError(f"total must be an integer or None, not {type(total).__name__}")
    if total < 0:
        raise ValueError(f"total must not be negative, this one is {total}")
    return total
