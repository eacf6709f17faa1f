"""Define every option of `configure()` in one table; its docstring says what each means.

A wrong argument raises an error that names it. A broken environment variable causes one
warning and is ignored, since the person who starts a program did not write it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_pipeline_metrics._core import errors, privacy
from otel_pipeline_metrics._core import option_checks as checks
from otel_pipeline_metrics._core.settings import AMOUNTS, Config
from otel_pipeline_metrics._core.validation import (
    check_attributes,
    check_flag,
    check_name,
    check_number,
    check_positive,
    check_trace_url,
    check_wait,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_pipeline_metrics._core.option_checks import Check, Parser
    from otel_pipeline_metrics._core.settings import Amount

_PREFIX: Final = "OTEL_PIPELINE_METRICS_"
# of this project's development
_OTHER_VARIABLES: Final = frozenset({"OTEL_PIPELINE_METRICS_BACKENDS"})


class Option(NamedTuple):
    """An argument of `configure()` with its environment variable, or a variable alone."""

    name: str
    default: Any
    # None: there is no such argument
    check: Check | None = None
    variable: str = ""
    # None: the variable is read where it is needed, and not by `configure()`
    parser: Parser | None = None
    # variables of OpenTelemetry's SDK with the same effect
    standard: tuple[str, ...] = ()
    # the name in `Config`, where it differs
    field: str = ""
    # applies before `configure()`, if its variable is set
    at_import: bool = False

    def resolve(self, given: Any) -> Any:
        """Return the checked argument, or the variable's value for a default argument.

        Raises:
            TypeError: the argument is of the wrong kind.
            ValueError: the argument has a wrong value.
        """
        value = given if self.check is None else self.check(given, self.name)
        if self.parser is None:
            return value
        if isinstance(value, tuple):  # both sources count
            return tuple(dict.fromkeys((*value, *self.read(os.environ)[0])))
        if given != self.default:
            return value
        found, problem = self.read(os.environ)
        if problem is not None:
            errors.warn_once(self.variable, "%s", problem)
        return found

    def read(self, env: Mapping[str, str]) -> tuple[Any, str | None]:
        """Return what the variable says or else the default, and what is wrong with it."""
        if self.parser is None:
            return None, None
        default = getattr(Config, self.field or self.name)
        text = env.get(self.variable, "").strip()
        if not text:
            return default, None
        parse, expected = self.parser
        try:
            return parse(text), None
        except (KeyError, ValueError):
            wrong = f"{self.variable} must be {expected}, not {text[:80]!r:.40}"
            return default, f"{wrong}; the default ({default}) is used"


def _option(
    name: str, default: Any, check: Check, parser: Parser | None = None, **more: Any
) -> Option:
    """Return an option whose variable has its name."""
    return Option(name, default, check, _PREFIX + name.upper(), parser, **more)


def _flag(name: str) -> Option:
    return _option(name, getattr(Config, name), check_flag, checks.FLAG)


_flag_or_none: Final = checks.or_none(check_flag)
_seconds_or_none: Final = checks.or_none(check_wait)

OPTIONS: Final = (
    Option("service_name", None, checks.or_none(check_name), standard=("OTEL_SERVICE_NAME",)),
    Option(
        "exporter",
        None,
        checks.or_none(checks.check_exporters),
        standard=("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"),
        field="exporters",
    ),
    Option("tracer_provider", None, checks.or_none(checks.check_provider)),
    Option("meter_provider", None, checks.or_none(checks.check_provider)),
    Option("resource_attributes", None, check_attributes, standard=("OTEL_RESOURCE_ATTRIBUTES",)),
    _option("metric_attributes", (), checks.check_names, checks.NAMES),
    _option("console", None, checks.or_none(checks.check_console), checks.AMOUNT),
    Option("spans_per_second", 100.0, checks.or_none(check_number)),
    _option("flush_timeout", None, _seconds_or_none, checks.SECONDS, field="flush_timeout_s"),
    # The spool reads its variables itself, as `opm replay` needs them without `configure()`.
    _option("spool", None, checks.or_none(checks.check_path)),
    _option(
        "spool_max_bytes",
        Config.spool_max_bytes,
        lambda given, argument: round(check_positive(given, argument)),
    ),
    Option("spool_max_age_s", Config.spool_max_age_s, check_positive, f"{_PREFIX}SPOOL_MAX_AGE"),
    _flag("spool_delta"),
    _option("strict", None, _flag_or_none, checks.FLAG, at_import=True),
    _option("forbidden_keys", (), checks.check_names, checks.NAMES, at_import=True),
    _option(
        "allowed_keys",
        (),
        checks.check_allowed_keys,
        (checks.split_allowed_keys, "names separated by commas"),
        at_import=True,
    ),
    _option(
        "max_attribute_values",
        Config.max_attribute_values,
        checks.check_positive_count,
        checks.COUNT,
    ),
    _option("error_messages", None, _flag_or_none, checks.FLAG, at_import=True),
    _option("code_location", None, _flag_or_none, checks.FLAG),
    _option("logs", None, _flag_or_none, checks.FLAG),
    _option(
        "stalled_after",
        Config.stalled_after_s,
        check_positive,
        checks.SECONDS,
        field="stalled_after_s",
    ),
    _flag("monitoring_enabled"),
    _option(
        "monitoring_interval",
        Config.monitoring_interval_s,
        check_positive,
        checks.SECONDS,
        field="monitoring_interval_s",
    ),
    _flag("enable_system_metrics"),
    _flag("enable_performance_metrics"),
    _flag("enable_business_metrics"),
    _flag("enable_prometheus_integration"),
    _option(
        "metrics_sync_interval",
        None,
        _seconds_or_none,
        checks.SECONDS,
        field="metrics_sync_interval_s",
    ),
    _option("history_size", Config.history_size, checks.check_positive_count, checks.COUNT),
    _option(
        "trace_url",
        None,
        checks.or_none(check_trace_url),
        (lambda text: check_trace_url(text, text), "an http or https address with {trace_id}"),
    ),
    _option("attach", None, _flag_or_none, checks.FLAG),
    # variables alone, read where they are needed
    Option("", False, variable=f"{_PREFIX}EXPORTER_LOGS"),
    Option("", True, variable=f"{_PREFIX}FOLD"),
    Option("", True, variable=f"{_PREFIX}WORKERS"),
)


def resolve(given: Mapping[str, Any]) -> Config:
    """Return the settings that arguments of `configure()` and the environment ask for.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument has a wrong value, or two contradict each other.
    """
    if given.get("console") in {"off", False} and "console" in (given["exporter"] or ()):
        raise ValueError('console="off" and exporter="console" contradict each other')
    return Config(
        **{
            option.field or option.name: option.resolve(given[option.name])
            for option in OPTIONS
            if option.name in given
        }
    )


def warn_of_unknown_variables() -> None:
    """Log one line for each variable with our prefix that is no setting."""
    known = {option.variable for option in OPTIONS} | _OTHER_VARIABLES
    valid = ", ".join(sorted(v.removeprefix(_PREFIX) for v in known - _OTHER_VARIABLES if v))
    for name in os.environ:
        if name.startswith(_PREFIX) and name not in known:
            message = "%.80s is no setting and is ignored; those after %s are %s"
            errors.warn_once(name, message, name, _PREFIX, valid)


def environment_rules() -> privacy.Rules:
    """Return the rules on attributes that hold while nothing is configured."""
    return resolve({o.name: o.default for o in OPTIONS if o.at_import}).privacy_rules()


def amount_of(env: Mapping[str, str]) -> Amount | None:
    """Return what the environment says is printed; None if it says nothing that can be read."""
    return AMOUNTS.get(env.get("OTEL_PIPELINE_METRICS_CONSOLE", "").strip().lower())
