"""Define every option of `configure()` in one table, and keep the settings.

A wrong argument raises an error that names it. A broken environment variable causes one
warning and is ignored, since the person who starts a program did not write it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TextIO, Union

from otel_pipeline_metrics._core import attribute_keys, errors, privacy
from otel_pipeline_metrics._core.validation import (
    check_attributes,
    check_count,
    check_flag,
    check_name,
    check_number,
    check_positive,
    check_trace_url,
    check_wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from otel_pipeline_metrics._core.records import AttributeValue

    Check = Callable[[Any, str], Any]
    Parser = tuple[Callable[[str], Any], str]


ExporterName = Literal["otlp", "console", "prometheus", "none"]
EXPORTERS: tuple[ExporterName, ...] = ("otlp", "console", "prometheus", "none")
_LISTS: Final = (list, tuple, set, frozenset)
# settings that are the same only if they are identical
_OBJECTS: Final = frozenset({"tracer_provider", "meter_provider", "console"})

# what is printed: nothing, the summaries of runs, or spans and metrics too
Amount = Literal["off", "summary", "all"]
_AMOUNTS: Final[dict[str, Amount]] = {
    "off": "off", "summary": "summary", "all": "all",
    # what the variable and the argument took before
    "false": "off", "true": "summary",
}  # fmt: skip
# a stream takes the summaries
Console = Union[Amount, bool, TextIO, None]  # noqa: UP007 - evaluated; Python 3.10 has no such |


# without comparison and repr, which cost a part of the import and have no user
@dataclass(frozen=True, eq=False, repr=False)
class Config:
    """The checked settings; `configure()` replaces them as a whole."""

    service_name: str | None = None
    # None: OTEL_* variables decide, and without any nothing is exported
    exporters: tuple[ExporterName, ...] | None = None
    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None
    resource_attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    metric_attributes: tuple[str, ...] = ()
    # None: a summary where stderr is a terminal when the run ends
    console: Amount | TextIO | None = None
    spans_per_second: float | None = 100.0
    flush_timeout_s: float = 5.0
    spool: Path | None = None
    spool_max_bytes: int = 100 * 1024 * 1024
    spool_max_age_s: float = 7 * 24 * 3600.0
    spool_delta: bool = False
    # None: True where no exporter is set, or the console alone
    strict: bool | None = None
    forbidden_keys: tuple[str, ...] = ()
    allowed_keys: tuple[str, ...] = ()
    max_attribute_values: int = 200
    error_messages: bool = False
    code_location: bool = False
    logs: bool = False
    stalled_after_s: float = 300.0
    monitoring_enabled: bool = True
    monitoring_interval_s: float = 30.0
    enable_system_metrics: bool = True
    enable_performance_metrics: bool = True
    enable_business_metrics: bool = True
    enable_prometheus_integration: bool = False
    # None: OTEL_METRIC_EXPORT_INTERVAL, or 10 s
    metrics_sync_interval_s: float | None = None
    history_size: int = 100
    # with {trace_id} in it
    trace_url: str | None = None
    attach: bool = False

    def is_same(self, other: Config) -> bool:
        """Tell whether all settings are equal, and the providers and the stream identical."""
        # the provider of another library may compare as it likes
        for name in self.__dataclass_fields__:
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours is theirs:
                continue
            if name in _OBJECTS or type(ours) is not type(theirs) or ours != theirs:
                return False
        return True

    def privacy_rules(self) -> privacy.Rules:
        """Return the rules on attribute keys and messages that these settings ask for."""
        return privacy.Rules(
            frozenset(map(attribute_keys.normal, self.forbidden_keys)),
            bool(self.strict),
            self.error_messages,
            frozenset(self.allowed_keys),
        )


# --- how an argument is checked, and a variable read ----------------------------------------------


def _or_none(check: Check) -> Check:
    return lambda given, argument: None if given is None else check(given, argument)


def _require(fits: bool, given: object, argument: str, expected: str) -> None:
    if not fits:
        raise TypeError(f"{argument} must be {expected}, not {type(given).__name__}")


def _check_exporters(given: Any, argument: str) -> tuple[ExporterName, ...]:
    _require(isinstance(given, (str, *_LISTS)), given, argument, "a string or a sequence of them")
    names: list[Any] = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in EXPORTERS:
            raise ValueError(f"{argument} must be of {', '.join(EXPORTERS)}, not {name!r}")
    if not names:
        raise ValueError(f'{argument} must not be empty: "none" turns exporting off')
    if "none" in names and len(names) > 1:
        raise ValueError(f'{argument} "none" stands alone')
    return tuple(dict.fromkeys(names))


def _check_provider(given: Any, argument: str) -> Any:
    from opentelemetry import metrics, trace

    kind = trace.TracerProvider if argument == "tracer_provider" else metrics.MeterProvider
    _require(isinstance(given, kind), given, argument, f"an OpenTelemetry {kind.__name__}")
    return given


def _check_names(given: Any, argument: str) -> tuple[str, ...]:
    _require(isinstance(given, _LISTS), given, argument, "a sequence of strings")
    return tuple(dict.fromkeys(check_name(name, argument) for name in given))


def _check_allowed_keys(given: Any, argument: str) -> tuple[str, ...]:
    keys = _check_names(given, argument)
    for key in keys:
        reason = attribute_keys.reason_to_keep_out(key)
        if reason is not None:
            raise ValueError(f"{argument}: {key!r} is never allowed, since {reason}")
    return keys


def _check_console(given: Any, argument: str) -> Any:
    if isinstance(given, bool):
        return _AMOUNTS[str(given).lower()]
    if isinstance(given, str):
        if given not in {"off", "summary", "all"}:
            raise ValueError(f'{argument} must be "off", "summary" or "all", not {given!r}')
        return given
    fits = hasattr(given, "write")
    _require(fits, given, argument, '"off", "summary", "all", a text stream, a bool or None')
    return given


def _check_positive_count(given: Any, argument: str) -> int:
    return int(check_positive(check_count(given, argument), argument))


def _check_path(given: Any, argument: str) -> Path:
    from pathlib import Path

    _require(isinstance(given, (str, os.PathLike)), given, argument, "a path or None")
    if not os.fspath(given):
        raise ValueError(f"{argument} must not be empty")
    path = Path(given)
    if "\0" in str(path):
        raise ValueError(f"{argument} must not contain a null byte")
    return path


def _split_names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _split_allowed_keys(text: str) -> tuple[str, ...]:
    kept: list[str] = []
    for key in _split_names(text):
        try:
            kept += _check_allowed_keys([key], "OTEL_PIPELINE_METRICS_ALLOWED_KEYS")
        except ValueError as error:
            errors.warn_once(f"allowed key {key}", "%s; it is ignored", error)
    return tuple(kept)


# How a variable is read, and what a warning says that it must be.
_FLAG: Final = (lambda text: {"true": True, "false": False}[text.lower()], "true or false")
_AMOUNT: Final = (lambda text: _AMOUNTS[text.lower()], "off, summary or all")
_SECONDS: Final = (
    lambda text: check_wait(float(text), text),
    "a positive number of seconds",
)
_COUNT: Final = (
    lambda text: _check_positive_count(int(text) if text.isdecimal() else 0, text),
    "a whole number above 0",
)
_NAMES: Final = (_split_names, "names separated by commas")


# --- the table ------------------------------------------------------------------------------------


class Option(NamedTuple):
    """An argument of `configure()` with its environment variable, or a variable alone."""

    name: str
    default: Any
    # in Markdown: docs/configuration.md is made from it
    help: str
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
        parse, expected = self.parser
        text = os.environ.get(self.variable, "").strip()
        if isinstance(value, tuple):  # both sources count
            return tuple(dict.fromkeys((*value, *parse(text))))
        if given != self.default:
            return value
        default = getattr(Config, self.field or self.name)
        try:
            return parse(text) if text else default
        except (KeyError, ValueError):
            message = "%s must be %s, not %.40r; the default (%s) is used"
            errors.warn_once(self.variable, message, self.variable, expected, text, default)
            return default


def _flag(name: str, meaning: str, variable: str) -> Option:
    return Option(name, getattr(Config, name), meaning, check_flag, variable, _FLAG)


OPTIONS: Final = (
    Option(
        "service_name",
        None,
        "`service.name` on everything exported; the argument wins",
        _or_none(check_name),
        standard=("OTEL_SERVICE_NAME",),
    ),
    Option(
        "exporter",
        None,
        '`"otlp"`, `"console"`, `"prometheus"`, `"none"`, or several in a sequence; for traces and '
        'metrics alike, but `"prometheus"` for metrics only: it opens a port, see '
        "[service.md](service.md#prometheus-by-pull)",
        _or_none(_check_exporters),
        standard=("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"),
        field="exporters",
    ),
    Option(
        "tracer_provider",
        None,
        "takes the spans; a `NoOpTracerProvider` means no spans, which is the cheapest",
        _or_none(_check_provider),
    ),
    Option("meter_provider", None, "takes the metrics", _or_none(_check_provider)),
    Option(
        "resource_attributes",
        None,
        "describe this process; the argument wins",
        check_attributes,
        standard=("OTEL_RESOURCE_ATTRIBUTES",),
    ),
    Option(
        "metric_attributes",
        (),
        "stage attributes that also go on metrics. Each value makes a series, so name only those "
        "with few values. Both sources count",
        _check_names,
        "OTEL_PIPELINE_METRICS_METRIC_ATTRIBUTES",
        _NAMES,
    ),
    Option(
        "console",
        None,
        'what is printed: `"summary"` the summary of each run to stderr, `"all"` every span and '
        'the metrics too, `"off"` nothing, and the summary goes to the log; a text stream takes '
        "the summary. `None`: the summary where no exporter is set, or the console is one, or "
        "stderr is a terminal, otherwise nothing. See [The console](#the-console)",
        _or_none(_check_console),
        "OTEL_PIPELINE_METRICS_CONSOLE",
        _AMOUNT,
    ),
    Option(
        "spans_per_second",
        100.0,
        "spans that a stage may make a second after its first thousand; `None` removes the "
        "limit. See [metrics.md](metrics.md#spans)",
        _or_none(check_number),
    ),
    Option(
        "flush_timeout",
        None,
        "seconds that the flush at the end may take, all signals together; 5 if neither is set",
        _or_none(check_wait),
        "OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT",
        _SECONDS,
        field="flush_timeout_s",
    ),
    # The spool reads its variables itself, as `opm replay` needs them without `configure()`.
    Option(
        "spool",
        None,
        "directory that keeps what the collector does not take; see "
        "[reliability.md](reliability.md#the-spool)",
        _or_none(_check_path),
        "OTEL_PIPELINE_METRICS_SPOOL",
    ),
    Option(
        "spool_max_bytes",
        Config.spool_max_bytes,
        "size of that directory above which the oldest batch is dropped",
        lambda given, argument: round(check_positive(given, argument)),
        "OTEL_PIPELINE_METRICS_SPOOL_MAX_BYTES",
    ),
    Option(
        "spool_max_age_s",
        Config.spool_max_age_s,
        "age in seconds above which a batch is dropped",
        check_positive,
        "OTEL_PIPELINE_METRICS_SPOOL_MAX_AGE",
    ),
    Option(
        "spool_delta",
        Config.spool_delta,
        "`True` allows a spool for metrics of delta temporality, whose counts double if a batch "
        "arrives twice, as it may after a crash",
        check_flag,
        "OTEL_PIPELINE_METRICS_SPOOL_DELTA",
        _FLAG,
    ),
    Option(
        "strict",
        None,
        "`True`: a forbidden attribute key is a `ValueError`; `False`: it is left out and "
        "counted; `None`: `True` where no exporter is set, or the console alone. See "
        "[privacy.md](privacy.md)",
        _or_none(check_flag),
        "OTEL_PIPELINE_METRICS_STRICT",
        _FLAG,
        at_import=True,
    ),
    Option(
        "forbidden_keys",
        (),
        "keys to forbid beside the built-in ones. Both sources count",
        _check_names,
        "OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS",
        _NAMES,
        at_import=True,
    ),
    Option(
        "allowed_keys",
        (),
        "whole keys that pass although a built-in rule forbids them, but never a password, token, "
        "secret or API key. Both sources count",
        _check_allowed_keys,
        "OTEL_PIPELINE_METRICS_ALLOWED_KEYS",
        (_split_allowed_keys, "names separated by commas"),
        at_import=True,
    ),
    Option(
        "max_attribute_values",
        Config.max_attribute_values,
        "distinct values of an attribute, of the pipeline's name and of the error type on "
        "metrics; further ones become `_OTHER`",
        _check_positive_count,
        "OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES",
        _COUNT,
    ),
    Option(
        "error_messages",
        None,
        "`True` puts the messages of exceptions, up to 1,000 characters, on failed spans",
        _or_none(check_flag),
        "OTEL_PIPELINE_METRICS_ERROR_MESSAGES",
        _FLAG,
        at_import=True,
    ),
    Option(
        "code_location",
        None,
        "`True` puts file and line of a decorated function on its spans, beside its name",
        _or_none(check_flag),
        "OTEL_PIPELINE_METRICS_CODE_LOCATION",
        _FLAG,
    ),
    Option(
        "logs",
        None,
        "`True` puts the ids of trace and span on log records, and sends these over OTLP where "
        "telemetry goes there. Messages may quote data. See [metrics.md](metrics.md#logs)",
        _or_none(check_flag),
        "OTEL_PIPELINE_METRICS_LOGS",
        _FLAG,
    ),
    Option(
        "stalled_after",
        Config.stalled_after_s,
        "seconds without any movement after which a stage with calls in progress, or a queue with "
        "items, counts as stalled; see [service.md](service.md#health)",
        check_positive,
        "OTEL_PIPELINE_METRICS_STALLED_AFTER",
        _SECONDS,
        field="stalled_after_s",
    ),
    _flag(
        "monitoring_enabled",
        "`False`: nothing reads the resources of process and host, neither for metrics nor for "
        "reports, and no event loop is watched",
        "OTEL_PIPELINE_METRICS_MONITORING_ENABLED",
    ),
    Option(
        "monitoring_interval",
        Config.monitoring_interval_s,
        "seconds between two readings of a service's resources; a run has its own, `resources=`",
        check_positive,
        "OTEL_PIPELINE_METRICS_MONITORING_INTERVAL",
        _SECONDS,
        field="monitoring_interval_s",
    ),
    _flag(
        "enable_system_metrics",
        "the metrics `system.*`",
        "OTEL_PIPELINE_METRICS_ENABLE_SYSTEM_METRICS",
    ),
    _flag(
        "enable_performance_metrics",
        "the metrics `process.*`, and how late the event loop is",
        "OTEL_PIPELINE_METRICS_ENABLE_PERFORMANCE_METRICS",
    ),
    _flag(
        "enable_business_metrics",
        "metrics of events and operations, and the program's own of `opm.counter`, `gauge` and "
        "`histogram`",
        "OTEL_PIPELINE_METRICS_ENABLE_BUSINESS_METRICS",
    ),
    _flag(
        "enable_prometheus_integration",
        '`True` is as `"prometheus"` beside the other exporters; it opens a port',
        "OTEL_PIPELINE_METRICS_ENABLE_PROMETHEUS_INTEGRATION",
    ),
    Option(
        "metrics_sync_interval",
        None,
        "seconds between two exports of metrics; 10 if neither is set, nor "
        "`OTEL_METRIC_EXPORT_INTERVAL` (in milliseconds)",
        _or_none(check_wait),
        "OTEL_PIPELINE_METRICS_METRICS_SYNC_INTERVAL",
        _SECONDS,
        field="metrics_sync_interval_s",
    ),
    Option(
        "history_size",
        Config.history_size,
        "latest samples of each event and operation that quantiles are taken of",
        _check_positive_count,
        "OTEL_PIPELINE_METRICS_HISTORY_SIZE",
        _COUNT,
    ),
    Option(
        "trace_url",
        None,
        "address of a trace in your backend, with `{trace_id}` in its place; http or https. "
        "Reports keep it, and their pages link to it",
        _or_none(check_trace_url),
        "OTEL_PIPELINE_METRICS_TRACE_URL",
        (lambda text: check_trace_url(text, text), "an http or https address with {trace_id}"),
    ),
    Option(
        "attach",
        None,
        "`True` lets `opm top` of the same user look at this process, through a socket in a folder "
        "of the user's own; see [report.md](report.md#look-at-a-process-from-outside)",
        _or_none(check_flag),
        "OTEL_PIPELINE_METRICS_ATTACH",
        _FLAG,
    ),
    Option(
        "",
        False,
        "`true` lets the exporters log each failed request themselves, without the endpoint's "
        "credentials",
        variable="OTEL_PIPELINE_METRICS_EXPORTER_LOGS",
    ),
    Option(
        "",
        True,
        "`false` records each value through OpenTelemetry's public API, at many times the cost; "
        "see [architecture.md](architecture.md#why-it-is-built-so)",
        variable="OTEL_PIPELINE_METRICS_FOLD",
    ),
    Option(
        "",
        True,
        "`off` forbids a worker to configure itself; see [engines.md](engines.md#workers)",
        variable="OTEL_PIPELINE_METRICS_WORKERS",
    ),
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


def environment_rules() -> privacy.Rules:
    """Return the rules on attributes that hold while nothing is configured."""
    return resolve({o.name: o.default for o in OPTIONS if o.at_import}).privacy_rules()


def amount_of(env: Mapping[str, str]) -> Amount | None:
    """Return what the environment says is printed; None if it says nothing that can be read."""
    return _AMOUNTS.get(env.get("OTEL_PIPELINE_METRICS_CONSOLE", "").strip().lower())


# --- the settings in force ------------------------------------------------------------------------

_current = Config()


def settings() -> Config:
    """Return the settings in force; the defaults until `configure()` is called."""
    return _current


def replace(config: Config) -> None:
    """Put `config` in force."""
    global _current
    _current = config
