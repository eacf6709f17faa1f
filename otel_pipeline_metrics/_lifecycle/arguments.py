"""The arguments of `configure()`: checked, and completed from the environment.

A wrong argument raises and names itself. A broken variable is said once and left out, since
who starts a program is not who wrote it.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from otel_pipeline_metrics._core import environment_variables, errors, privacy
from otel_pipeline_metrics._core.settings import EXPORTERS, Config, Console, ExporterName
from otel_pipeline_metrics._core.validation import check_name


def exporters(exporter: object) -> tuple[ExporterName, ...] | None:
    """Return the names of exporters; None: the environment decides."""
    if exporter is None:
        return None
    names: list[Any]
    if isinstance(exporter, str):
        names = [exporter]
    elif isinstance(exporter, (list, tuple, set, frozenset)):
        names = list(exporter)
    else:
        raise TypeError(
            f"exporter must be a string or a sequence of them, not {type(exporter).__name__}"
        )
    for name in names:
        if name not in EXPORTERS:
            raise ValueError(f"exporter must be of {', '.join(EXPORTERS)}, not {name!r}")
    if not names:
        raise ValueError('exporter must not be empty: "none" turns exporting off')
    if "none" in names and len(names) > 1:
        raise ValueError('exporter "none" stands alone')
    return tuple(dict.fromkeys(names))


def provider(given: Any, kind: type, argument: str) -> Any:
    """Return a provider if it is one of OpenTelemetry's, or None."""
    if given is not None and not isinstance(given, kind):
        raise TypeError(
            f"{argument} must be an OpenTelemetry {kind.__name__}, not {type(given).__name__}"
        )
    return given


def check_names(given: object, argument: str) -> tuple[str, ...]:
    """Return a sequence of names."""
    if isinstance(given, str) or not isinstance(given, (list, tuple, set, frozenset)):
        raise TypeError(f"{argument} must be a sequence of strings, not {type(given).__name__}")
    return tuple(dict.fromkeys(check_name(name, argument) for name in given))


def listed(variable: str) -> tuple[str, ...]:
    """Return what a variable lists, separated by commas."""
    text = os.environ.get(variable, "")
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def console(console: Any) -> Console:
    """Return where run summaries go."""
    if console is None:
        return _true_or_false(environment_variables.OTEL_PIPELINE_METRICS_CONSOLE)
    if isinstance(console, bool) or hasattr(console, "write"):
        checked: Console = console
        return checked
    raise TypeError(
        f"console must be True, False, None or a text stream, not {type(console).__name__}"
    )


def strict(given: Any) -> bool | None:
    """Return whether a forbidden key is an error; None: the development console decides."""
    if given is None:
        return _true_or_false(environment_variables.OTEL_PIPELINE_METRICS_STRICT)
    return _flag(given, "strict")


def error_messages(given: Any) -> bool:
    """Return whether messages of exceptions go on spans."""
    if given is None:
        return bool(_true_or_false(environment_variables.OTEL_PIPELINE_METRICS_ERROR_MESSAGES))
    return _flag(given, "error_messages")


def forbidden_keys(given: object) -> tuple[str, ...]:
    """Return the keys that are forbidden beside those that always are."""
    more = listed(environment_variables.OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS)
    return tuple(dict.fromkeys((*check_names(given, "forbidden_keys"), *more)))


def max_attribute_values(given: Any) -> int:
    """Return how many values an attribute may have on metrics."""
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"max_attribute_values must be an integer, not {type(given).__name__}")
    if given < 1:
        raise ValueError(f"max_attribute_values must be positive, not {given}")
    variable = environment_variables.OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES
    said = os.environ.get(variable, "").strip()
    if not said or given != Config.max_attribute_values:
        return given
    if said.isdecimal() and int(said) > 0:
        return int(said)
    message = "%s must be a whole number above 0, not %.40r; %d is used"
    errors.warn_once(variable, message, variable, said, given)
    return given


def spans_per_second(rate: Any) -> float | None:
    """Return how many spans a stage may make a second; None: no limit."""
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise TypeError(f"spans_per_second must be a number or None, not {type(rate).__name__}")
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"spans_per_second must be finite and not negative, not {rate}")
    return float(rate)


def positive(number: Any, argument: str) -> float:
    """Return a number above 0."""
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise TypeError(f"{argument} must be a number, not {type(number).__name__}")
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{argument} must be finite and positive, not {number}")
    return float(number)


def spool(spool: Any) -> Path | None:
    """Return the directory that keeps what could not be sent."""
    if spool is None:
        return None
    if not isinstance(spool, (str, os.PathLike)):
        raise TypeError(f"spool must be a path or None, not {type(spool).__name__}")
    if not os.fspath(spool):
        raise ValueError("spool must not be empty")
    return Path(spool)


def flush_timeout(given: Any) -> float:
    """Return the seconds that the flush at the end may take."""
    if given is not None:
        return positive(given, "flush_timeout")
    default = Config().flush_timeout_s
    said = os.environ.get(environment_variables.OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT, "").strip()
    if not said:
        return default
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        errors.warn_once(
            environment_variables.OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT,
            "%s must be a positive number of seconds, not %r; %g is used",
            environment_variables.OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT,
            said,
            default,
        )
        return default
    return seconds


def rules(config: Config) -> privacy.Rules:
    """Return what is forbidden under a configuration."""
    words = privacy.WORDS.union(map(privacy.snake, config.forbidden_keys))
    return privacy.Rules(words, bool(config.strict), config.error_messages)


def rules_of_the_environment() -> privacy.Rules:
    """Return what is forbidden where nobody called `configure()`."""
    return rules(
        Config(
            strict=strict(None),
            forbidden_keys=forbidden_keys(()),
            error_messages=error_messages(None),
        )
    )


def _flag(given: Any, argument: str) -> bool:
    if not isinstance(given, bool):
        raise TypeError(f"{argument} must be True or False, not {type(given).__name__}")
    return given


def _true_or_false(variable: str) -> bool | None:
    """Return what a variable says; None where it is not set or says something else."""
    said = os.environ.get(variable, "").strip().lower()
    if said and said not in ("true", "false"):
        errors.warn_once(variable, "%s must be true or false, not %r; left out", variable, said)
    return {"true": True, "false": False}.get(said)
