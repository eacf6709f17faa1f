"""Check the names, attributes and numbers that callers pass in.

What has the wrong type raises a TypeError, and what has a wrong value a ValueError; each names the
argument.
"""

from __future__ import annotations

import math
import numbers
import operator
import re
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core.cleaning import (
    MAX_INT,
    builtin,
    clean_attribute,
    clean_int,
    clean_text,
)

if TYPE_CHECKING:
    from otel_pipeline_metrics._core.records import AttributeValue


# A name is an attribute value and a table column: keep it short.
MAX_NAME_LENGTH: Final = 128

# Seconds, eleven days: no program waits longer, and some of the system's calls refuse 25 days.
MAX_WAIT_S: Final = 1_000_000

# an address: a host without a user or password, then anything that a browser takes as it is
_WEB_ADDRESS: Final = re.compile(
    r"https?://[^/?#@\\{}\x00-\x20\x7f]+(?:[/?#][^\x00-\x20\x7f]*)?", re.IGNORECASE
)
MAX_ADDRESS_LENGTH: Final = 2000

_SCALARS: Final = (str, bool, int, float)


def check_name(value: object, argument: str) -> str:
    """Return `value` as valid Unicode if it can name something."""
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a string, not {type(value).__name__}")
    value = str.__str__(value)  # without the methods of a class of the program
    if not value.strip():
        raise ValueError(f"{argument} must not be empty")
    if len(value) > MAX_NAME_LENGTH:
        raise ValueError(
            f"{argument} must be at most {MAX_NAME_LENGTH} characters, this one has {len(value)}"
        )
    return clean_text(value)


def check_count(value: Any, argument: str) -> int:
    """Return `value` as an integer from zero to `MAX_INT`, which larger ones become."""
    if type(value) is int and 0 <= value <= MAX_INT:
        return value  # nearly always
    if isinstance(value, bool):
        raise TypeError(f"{argument} must be an integer, not bool")
    try:
        # an integer of a class of the program would be returned as it is
        count = operator.index(builtin(value))
    except TypeError:
        raise TypeError(f"{argument} must be an integer, not {type(value).__name__}") from None
    if count < 0:
        raise ValueError(f"{argument} must not be negative, this one is {_shown(count)}")
    return clean_int(count, argument)


def _shown(number: int) -> str:
    # Python refuses to write out an integer of more than 4,300 digits
    return str(number) if abs(number) <= MAX_INT else "beyond 64 bits"


def check_number(value: object, argument: str) -> float:
    """Return `value` as a finite float of zero or more.

    A larger number becomes `MAX_INT`, so that sums of it stay finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{argument} must be a number, not {type(value).__name__}")
    given = builtin(value)
    try:
        number = float(given)
    except OverflowError:  # 10**400
        number = float(clean_int(2 * MAX_INT if given > 0 else -2 * MAX_INT, argument))
    if not math.isfinite(number):
        raise ValueError(f"{argument} must be finite, not {number}")
    if number < 0:
        raise ValueError(f"{argument} must not be negative, this one is {number:g}")
    return number if number <= MAX_INT else float(clean_int(int(number), argument))


def check_whole(value: object, argument: str) -> int:
    """Return `value`, an integer or a number without a fraction, from zero to `MAX_INT`."""
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        return check_count(value, argument)
    number = check_number(value, argument)
    if number != int(number):
        raise ValueError(f"{argument} must be a whole number, not {number:g}")
    return clean_int(int(number), argument)


def check_flag(value: object, argument: str) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{argument} must be True or False, not {type(value).__name__}")
    return value


def check_positive(value: object, argument: str) -> float:
    """Return `value` as a finite float above zero."""
    number = check_number(value, argument)
    if not number:
        raise ValueError(f"{argument} must be above 0")
    return number


def read_ratio(given: str | float) -> float:
    """Return the ratio that "10%", "0.1" or 0.1 means."""
    digits = str(given).strip().removesuffix("%")
    in_percent = digits != str(given).strip()
    try:
        found = float(digits) / (100 if in_percent else 1)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ValueError(f"{given!r} is not a ratio such as 10% or 0.1")
    if found >= 1 and not in_percent:
        raise ValueError(f"{given!r} would be {found * 100:g} %: write 10% or 0.1")
    return found


def check_wait(value: object, argument: str) -> float:
    """Return `value` as seconds to wait at most: a finite float above zero, or `MAX_WAIT_S`."""
    return min(check_positive(value, argument), float(MAX_WAIT_S))


def check_attribute(key: object, value: object, argument: str) -> tuple[str, AttributeValue]:
    """Return the key and the value of an attribute as OTLP can carry them."""
    if not isinstance(key, str):
        raise TypeError(f"{argument}: keys must be strings, not {type(key).__name__}")
    key = str.__str__(key)  # without the methods of a class of the program
    if not key:
        raise ValueError(f"{argument}: a key must not be empty")
    given = builtin(value)
    elements = given if isinstance(given, (list, tuple)) else (given,)
    if not all(isinstance(element, _SCALARS) for element in elements):
        raise TypeError(
            f"{argument}[{key!r}] must be a str, bool, int, float or a list of one of them, "
            f"not {type(value).__name__}"
        )
    return clean_text(key), clean_attribute(given, f"{argument}[{key!r}]")


def check_attributes(value: object, argument: str = "attributes") -> dict[str, AttributeValue]:
    """Return a checked copy of a mapping of attributes; None is an empty one."""
    if value is None:
        return {}
    if not hasattr(value, "items"):
        raise TypeError(f"{argument} must be a mapping, not {type(value).__name__}")
    return dict(check_attribute(key, item, argument) for key, item in value.items())


def check_trace_url(value: object, argument: str) -> str:
    """Return `value` if it is the address of a trace with `{trace_id}` in its place."""
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a string, not {type(value).__name__}")
    if len(value) > MAX_ADDRESS_LENGTH:
        raise ValueError(f"{argument} must be at most {MAX_ADDRESS_LENGTH} characters")
    if not _WEB_ADDRESS.fullmatch(value):
        raise ValueError(
            f"{argument} must be an http or https address without a user and password, "
            f"not {value[:80]!r}"
        )
    if "{trace_id}" not in value:
        raise ValueError(f"{argument} must have {{trace_id}} where the id of a trace goes")
    return value
