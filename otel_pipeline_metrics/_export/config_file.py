"""Apply the SDK's declarative configuration: the file that OTEL_CONFIG_FILE names.

The SDK reads the file, by the package `opentelemetry-configuration`, and makes the providers.
"""

from __future__ import annotations

import logging
import os
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from otel_pipeline_metrics._core import errors, options, text
from otel_pipeline_metrics._export import global_providers
from otel_pipeline_metrics._export.environment_checks import get

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_pipeline_metrics._core.settings import Config


VARIABLE: Final = "OTEL_CONFIG_FILE"
_MISSING: Final = 'a package is missing: pip install "otel-pipeline-metrics[file-config]"'
_PACKAGE: Final = "opentelemetry.configuration"
# our part of the file: `instrumentation/development`, `python`
_OURS: Final = "otel_pipeline_metrics"
# arguments that say where telemetry goes, or whose it is
_OVERRULED: Final = ("exporter", "service_name", "resource_attributes", "spool")
# variables that decide something else, or name a provider that a global one replaces
_OTHERS: Final = ("OTEL_PIPELINE_METRICS_", "OTEL_PYTHON_", VARIABLE)

# The file that made the global providers, their ids, and the options in it.
_applied: tuple[str, tuple[int, ...], dict[str, Any]] | None = None


def overrule(config: Config, given: Mapping[str, Any]) -> Config:
    """Return the settings that hold with the file, whose providers are made; as they are without.

    Args:
        config: the settings that the arguments and the variables ask for.
        given: the arguments of `configure()`.
    """
    if config.tracer_provider is not None and config.meter_provider is not None:
        return config
    chosen = apply([name for name in _OVERRULED if given[name]])
    if chosen is None:
        return config
    merged = dict(given)
    for name, value in chosen.items():
        option = next((one for one in options.OPTIONS if one.name == name and one.check), None)
        if option is None or option.check is None or name in _OVERRULED:
            _warn_of_option(name, "configure() has no such argument, or the file decides it")
        elif given[name] == option.default:
            try:
                option.check(value, name)
            except (TypeError, ValueError) as error:
                _warn_of_option(name, str(error))
            else:
                merged[name] = value
    # a signal that the file leaves out goes nowhere
    overruled: dict[str, Any] = {"resource_attributes": None, "service_name": None, "spool": None}
    return options.resolve({**merged, **overruled, "exporter": "none"})


def _warn_of_option(name: str, reason: str) -> None:
    errors.warn_once(
        f"{VARIABLE}: {name}",
        "%s: the option %r of %s is left out: %s",
        VARIABLE,
        name,
        _OURS,
        reason,
    )


def apply(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Make the global providers that the file describes; return its options for `configure()`.

    None: there is no file, it cannot be used, or the process has providers already.

    Args:
        arguments: those of `configure()` that the file overrules.
    """
    global _applied
    path = get(os.environ, VARIABLE)
    if not path:
        return None
    present = _present()
    if _applied is not None and _applied[:2] == (path, present):
        return _applied[2]
    if present:
        return None  # the program's own, or those of `opentelemetry-instrument`, from the file
    if find_spec(_PACKAGE) is None:
        _warn(_MISSING)
        return None
    try:
        options = _apply(path)
    except Exception as error:  # of the file, or of an exporter that it names
        _warn(_reason(error))
        return None
    _applied = path, _present(), options
    left_out = [
        name for name in sorted(os.environ) if name.startswith("OTEL_") and os.environ[name]
    ]
    left_out = [name for name in left_out if not name.startswith(_OTHERS)]
    left_out[:0] = [f"{argument}=" for argument in arguments]
    if left_out:
        errors.warn_once(
            f"{VARIABLE} in force",
            "%s decides where telemetry goes; left out: %s",
            VARIABLE,
            ", ".join(left_out),
        )
    return options


def reason_against(path: str) -> str | None:
    """Return why a file cannot be used, as far as reading tells; None if it can."""
    if find_spec(_PACKAGE) is None:
        return _MISSING
    try:
        _load(path)
    except Exception as error:  # as in `apply`
        return _reason(error)
    return None


def _present() -> tuple[int, ...]:
    return tuple(id(found) for found in global_providers.all_existing() if found is not None)


def _apply(path: str) -> dict[str, Any]:
    sdk = import_module(_PACKAGE)
    loaded = _load(path)
    # taken out, or the SDK would call `configure()` in the middle of this one
    part = getattr(getattr(loaded, "instrumentation_development", None), "python", None)
    options = part.pop(_OURS, None) if isinstance(part, dict) else None
    with global_providers.restored_on_error():
        sdk.configure_sdk(loaded)
    return {str(name): value for name, value in (options or {}).items() if name != "enabled"}


def _load(path: str) -> Any:
    """Read the file; what the SDK both logs and raises is only raised.

    Its lines quote the path and values as they are, with control characters and secrets.
    """
    load, thread = import_module(_PACKAGE).load_config_file, threading.get_ident()
    reading = logging.getLogger(load.__module__)

    def wanted(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or record.thread != thread

    reading.addFilter(wanted)
    try:
        return load(path)
    finally:
        reading.removeFilter(wanted)


def _warn(reason: str) -> None:
    errors.warn_once(
        VARIABLE, "%s is ignored, and the other variables decide: %s", VARIABLE, reason
    )


def _reason(error: Exception) -> str:
    """Return what is wrong in one line, without the values in the file: one may be a secret."""
    cause: Any = error.__cause__
    if hasattr(cause, "absolute_path"):  # jsonschema's
        where = " -> ".join(map(str, cause.absolute_path)) or "its top"
        # these two quote keys alone
        names = cause.validator in {"additionalProperties", "required"}
        what = cause.message if names else f"wrong {cause.validator}"
        return text.printable(f"it does not match its schema at {where}: {what}"[:300])
    lines = str(error).splitlines()
    return text.printable(f"{type(error).__name__}: {lines[0] if lines else ''}"[:300])
