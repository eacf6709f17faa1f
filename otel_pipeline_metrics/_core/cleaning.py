"""Make values fit what OTLP, Prometheus and JSON can carry, at the cost of their own field only.

One value that an encoder refuses would take its whole export with it, and with a cumulative sum
every later one. So text becomes valid Unicode and numbers stay within 64 bits where they come
in. Each kind of change is logged once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_pipeline_metrics._core.records import AttributeValue


# OTLP's integers have 64 bits with a sign.
MAX_INT: Final = 2**63 - 1

# of one value: what log records carry is seldom deeper, or larger
_MAX_DEPTH: Final = 16
_MAX_PARTS: Final = 1000

# in the order in which they are recognized: True is an int as well
_SCALARS: Final = dict.fromkeys((str, bool, int, float))


# How each is read without the methods of a class of the program that derives from it.
_WHOLE: Final = slice(None)
_READ: Final[dict[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    list: lambda value: list.__getitem__(value, _WHOLE),
    tuple: lambda value: tuple.__getitem__(value, _WHOLE),
}


def builtin(value: Any) -> Any:
    """Return text, a number or a list of a class of the program as the built-in that it is.

    The methods of such a class may raise anything. Any other value is returned as it is.
    """
    if type(value) in _READ or isinstance(value, bool):
        return value
    for kind, read in _READ.items():
        if isinstance(value, kind):
            return read(value)
    return value


def clean_text(text: str) -> str:
    r"""Return `text` as valid Unicode: a lone surrogate becomes its escape, such as `\udce9`.

    Python makes such text from bytes that are not UTF-8: file names, arguments, variables.
    """
    text = builtin(text)
    try:
        str.encode(text)
    except UnicodeEncodeError:
        errors.warn_once(
            "invalid text",
            "%r is not valid Unicode, as the name of a file that is not UTF-8; such text is "
            "written with escapes",
            text[:80],
        )
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def clean_int(number: int, argument: str) -> int:
    """Return `number` within 64 bits: a larger one becomes the largest."""
    number = builtin(number)
    if -MAX_INT <= number <= MAX_INT:
        return number
    errors.warn_once(
        "integer beyond 64 bits",
        "%s is beyond 64 bits, and is reported as the nearest number that is not",
        argument,
    )
    return MAX_INT if number > 0 else -MAX_INT


def clean_attribute(value: Any, argument: str) -> AttributeValue:
    """Return a checked attribute value as OTLP can carry it.

    The elements of a list get one type: floats if all are numbers, else strings.
    """
    value = builtin(value)
    found: AttributeValue = value
    if isinstance(value, (list, tuple)):
        found = _clean_list(value, argument)
    elif isinstance(value, str):
        found = clean_text(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        found = clean_int(value, argument)
    return found


def _clean_list(values: list[Any] | tuple[Any, ...], argument: str) -> Any:
    cleaned = [clean_attribute(value, argument) for value in values]
    kinds = {_kind_of(value) for value in cleaned}
    if len(kinds) > 1 and kinds <= _SCALARS.keys():
        errors.warn_once(
            "mixed list",
            "%s has elements of several types; such a list becomes one of floats or strings",
            argument,
        )
        make: Any = float if kinds == {int, float} else str
        cleaned = [make(value) for value in cleaned]
    return type(values)(cleaned)


def clean_any(value: Any, argument: str) -> Any:
    """Return a value of any kind as OTLP can carry it: lists and mappings may hold others.

    What is no data becomes its text. Of a value that is too deep or too large, or contains itself,
    what is beyond is None.
    """
    return _clean_part(value, argument, iter(range(_MAX_PARTS)), _MAX_DEPTH)


def _clean_part(value: Any, argument: str, left: Iterator[int], depth: int) -> Any:
    if value is None or isinstance(value, (bool, float, bytes)):
        return value
    if isinstance(value, (str, int)):
        return clean_attribute(value, argument)
    if next(left, None) is None or not depth:
        errors.warn_once("large value", "%s is too deep or too large, and is cut off", argument)
        return None
    if isinstance(value, Mapping):
        return {
            clean_text(str(key)): _clean_part(part, argument, left, depth - 1)
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        parts = [_clean_part(part, argument, left, depth - 1) for part in value]
        # a list of lists is left as it is
        return (
            parts
            if any(isinstance(part, (dict, list)) for part in parts)
            else (_clean_list(parts, argument))
        )
    return clean_text(str(value))


def _kind_of(value: object) -> type:
    return next((kind for kind in _SCALARS if isinstance(value, kind)), type(value))


def plain(data: Any) -> Any:
    """Return a copy of a report's data as JSON can carry it: a number that is not finite is None.

    Text becomes valid Unicode, and integers stay within 64 bits.
    """
    if isinstance(data, dict):
        return {plain(key): plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value) for value in data]
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, bool):
        return data
    if isinstance(data, int):
        return clean_int(data, "a number of the report")
    return clean_text(data) if isinstance(data, str) else data
