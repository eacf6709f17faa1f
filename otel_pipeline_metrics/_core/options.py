"""Define every option of `configure()` in one table.

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


def _flag(name: str, meaning: str, variable: str) -> Option:
    return Option(name, getattr(Config, name), meaning, check_flag, variable, checks.FLAG)


OPTIONS: Final = (
    Option(
        "service_name",
        None,
        "`service.name` on everything exported; the argument wins",
        checks.or_none(check_name),
        standard=("OTEL_SERVICE_NAME",),
    ),
    Option(
        "exporter",
        None,
        '`"otlp"`, `"console"`, `"prometheus"`, `"none"`, or several in a sequence; for traces and '
        'metrics alike, but `"prometheus"` for metrics only: it opens a port, see '
        "[service.md](service.md#prometheus-by-pull)",
        checks.or_none(checks.check_exporters),
        standard=("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"),
        field="exporters",
    ),
    Option(
        "tracer_provider",
        None,
        "takes the spans; a `NoOpTracerProvider` means no spans, which is the cheapest",
        checks.or_none(checks.check_provider),
    ),
    Option("meter_provider", None, "takes the metrics", checks.or_none(checks.check_provider)),
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
        checks.check_names,
        "OTEL_PIPELINE_METRICS_METRIC_ATTRIBUTES",
        checks.NAMES,
    ),
    Option(
        "console",
        None,
        'what is printed: `"summary"` the summary of each run to stderr, `"all"` every span and '
        'the metrics too, `"off"` nothing, and the summary goes to the log; a text stream takes '
        "the summary. `None`: the summary where no exporter is set, or the console is one, or "
        "stderr is a terminal, otherwise nothing. See [The console](#the-console)",
        checks.or_none(checks.check_console),
        "OTEL_PIPELINE_METRICS_CONSOLE",
        checks.AMOUNT,
    ),
    Option(
        "spans_per_second",
        100.0,
        "spans that a stage may make a second after its first thousand; `None` removes the "
        "limit. See [metrics.md](metrics.md#spans)",
        checks.or_none(check_number),
    ),
    Option(
        "flush_timeout",
        None,
        "seconds that the flush at the end may take, all signals together; 5 if neither is set",
        checks.or_none(check_wait),
        "OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT",
        checks.SECONDS,
        field="flush_timeout_s",
    ),
    # The spool reads its variables itself, as `opm replay` needs them without `configure()`.
    Option(
        "spool",
        None,
        "directory that keeps what the collector does not take; see "
        "[failures.md](failures.md#the-spool)",
        checks.or_none(checks.check_path),
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
        checks.FLAG,
    ),
    Option(
        "strict",
        None,
        "`True`: a forbidden attribute key is a `ValueError`; `False`: it is left out and "
        "counted; `None`: `True` where no exporter is set, or the console alone. See "
        "[privacy.md](privacy.md)",
        checks.or_none(check_flag),
        "OTEL_PIPELINE_METRICS_STRICT",
        checks.FLAG,
        at_import=True,
    ),
    Option(
        "forbidden_keys",
        (),
        "keys to forbid beside the built-in ones. Both sources count",
        checks.check_names,
        "OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS",
        checks.NAMES,
        at_import=True,
    ),
    Option(
        "allowed_keys",
        (),
        "whole keys that pass although a built-in rule forbids them, but never a password, token, "
        "secret or API key. Both sources count",
        checks.check_allowed_keys,
        "OTEL_PIPELINE_METRICS_ALLOWED_KEYS",
        (checks.split_allowed_keys, "names separated by commas"),
        at_import=True,
    ),
    Option(
        "max_attribute_values",
        Config.max_attribute_values,
        "distinct values of an attribute, of the pipeline's name and of the error type on "
        "metrics; further ones become `_OTHER`",
        checks.check_positive_count,
        "OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES",
        checks.COUNT,
    ),
    Option(
        "error_messages",
        None,
        "`True` puts the messages of exceptions, up to 1,000 characters, on failed spans",
        checks.or_none(check_flag),
        "OTEL_PIPELINE_METRICS_ERROR_MESSAGES",
        checks.FLAG,
        at_import=True,
    ),
    Option(
        "code_location",
        None,
        "`True` puts file and line of a decorated function on its spans, beside its name",
        checks.or_none(check_flag),
        "OTEL_PIPELINE_METRICS_CODE_LOCATION",
        checks.FLAG,
    ),
    Option(
        "logs",
        None,
        "`True` puts the ids of trace and span on log records, and sends these over OTLP where "
        "telemetry goes there. Messages may quote data. See [metrics.md](metrics.md#logs)",
        checks.or_none(check_flag),
        "OTEL_PIPELINE_METRICS_LOGS",
        checks.FLAG,
    ),
    Option(
        "stalled_after",
        Config.stalled_after_s,
        "seconds without any movement after which a stage with calls in progress, or a queue with "
        "items, counts as stalled; see [service.md](service.md#health)",
        check_positive,
        "OTEL_PIPELINE_METRICS_STALLED_AFTER",
        checks.SECONDS,
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
        checks.SECONDS,
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
        checks.or_none(check_wait),
        "OTEL_PIPELINE_METRICS_METRICS_SYNC_INTERVAL",
        checks.SECONDS,
        field="metrics_sync_interval_s",
    ),
    Option(
        "history_size",
        Config.history_size,
        "latest samples of each event and operation that quantiles are taken of",
        checks.check_positive_count,
        "OTEL_PIPELINE_METRICS_HISTORY_SIZE",
        checks.COUNT,
    ),
    Option(
        "trace_url",
        None,
        "address of a trace in your backend, with `{trace_id}` in its place; http or https. "
        "Reports keep it, and their pages link to it",
        checks.or_none(check_trace_url),
        "OTEL_PIPELINE_METRICS_TRACE_URL",
        (lambda text: check_trace_url(text, text), "an http or https address with {trace_id}"),
    ),
    Option(
        "attach",
        None,
        "`True` lets `opm top` of the same user look at this process, through a socket in a folder "
        "of the user's own; see [report.md](report.md#look-at-a-process-from-outside)",
        checks.or_none(check_flag),
        "OTEL_PIPELINE_METRICS_ATTACH",
        checks.FLAG,
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
