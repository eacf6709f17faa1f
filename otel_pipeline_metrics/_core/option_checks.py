"""Check arguments of `configure()`, and read their environment variables.

A wrong argument raises an error that names it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import attribute_keys, errors
from otel_pipeline_metrics._core.settings import AMOUNTS, EXPORTERS
from otel_pipeline_metrics._core.validation import (
    check_count,
    check_name,
    check_positive,
    check_wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otel_pipeline_metrics._core.settings import ExporterName

    Check = Callable[[Any, str], Any]
    Parser = tuple[Callable[[str], Any], str]


_LISTS: Final = (list, tuple, set, frozenset)


def or_none(check: Check) -> Check:
    return lambda given, argument: None if given is None else check(given, argument)


def require(fits: bool, given: object, argument: str, expected: str) -> None:
    if not fits:
        raise TypeError(f"{argument} must be {expected}, not {type(given).__name__}")


def check_exporters(given: Any, argument: str) -> tuple[ExporterName, ...]:
    require(isinstance(given, (str, *_LISTS)), given, argument, "a string or a sequence of them")
    names: list[Any] = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in EXPORTERS:
            raise ValueError(f"{argument} must be of {', '.join(EXPORTERS)}, not {name!r}")
    if not names:
        raise ValueError(f'{argument} must not be empty: "none" turns exporting off')
    if "none" in names and len(names) > 1:
        raise ValueError(f'{argument} "none" stands alone')
    return tuple(dict.fromkeys(names))


def check_provider(given: Any, argument: str) -> Any:
    from opentelemetry import metrics, trace

    kind = trace.TracerProvider if argument == "tracer_provider" else metrics.MeterProvider
    require(isinstance(given, kind), given, argument, f"an OpenTelemetry {kind.__name__}")
    return given


def check_names(given: Any, argument: str) -> tuple[str, ...]:
    require(isinstance(given, _LISTS), given, argument, "a sequence of strings")
    return tuple(dict.fromkeys(check_name(name, argument) for name in given))


def check_allowed_keys(given: Any, argument: str) -> tuple[str, ...]:
    keys = check_names(given, argument)
    for key in keys:
        reason = attribute_keys.reason_to_keep_out(key)
        if reason is not None:
            raise ValueError(f"{argument}: {key!r} is never allowed, since {reason}")
    return keys


def check_console(given: Any, argument: str) -> Any:
    if isinstance(given, bool):
        return AMOUNTS[str(given).lower()]
    if isinstance(given, str):
        if given not in {"off", "summary", "all"}:
            raise ValueError(f'{argument} must be "off", "summary" or "all", not {given!r}')
        return given
    fits = hasattr(given, "write")
    require(fits, given, argument, '"off", "summary", "all", a text stream, a bool or None')
    return given


def check_positive_count(given: Any, argument: str) -> int:
    return int(check_positive(check_count(given, argument), argument))


def check_path(given: Any, argument: str) -> Path:
    from pathlib import Path

    require(isinstance(given, (str, os.PathLike)), given, argument, "a path or None")
    if not os.fspath(given):
        raise ValueError(f"{argument} must not be empty")
    path = Path(given)
    if "\0" in str(path):
        raise ValueError(f"{argument} must not contain a null byte")
    return path


def split_names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def split_allowed_keys(text: str) -> tuple[str, ...]:
    kept: list[str] = []
    for key in split_names(text):
        try:
            kept += check_allowed_keys([key], "OTEL_PIPELINE_METRICS_ALLOWED_KEYS")
        except ValueError as error:
            errors.warn_once(f"allowed key {key}", "%s; it is ignored", error)
    return tuple(kept)


# How a variable is read, and what a warning says that it must be.
FLAG: Final = (lambda text: {"true": True, "false": False}[text.lower()], "true or false")
AMOUNT: Final = (lambda text: AMOUNTS[text.lower()], "off, summary or all")
SECONDS: Final = (
    lambda text: check_wait(float(text), text),
    "a positive number of seconds",
)
COUNT: Final = (
    lambda text: check_positive_count(int(text) if text.isdecimal() else 0, text),
    "a whole number above 0",
)
NAMES: Final = (split_names, "names separated by commas")
