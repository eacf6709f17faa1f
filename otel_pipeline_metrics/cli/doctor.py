"""Check what is configured, from where, and whether telemetry really arrives."""

from __future__ import annotations

import itertools
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from otel_pipeline_metrics._core import environment_variables, options, settings, text
from otel_pipeline_metrics._core.version import __version__
from otel_pipeline_metrics._export import environment
from otel_pipeline_metrics._export.environment_checks import METRIC_INTERVAL_MS, get
from otel_pipeline_metrics._export.environment_repairs import repaired_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otel_pipeline_metrics._core.settings import Config
    from otel_pipeline_metrics._export.environment import ExportPlan, Signal


Level = Literal["ok", "note", "problem"]

# how long one trial may take by default
SEND_S: Final = 5.0

_MARKS: Final = {"ok": "ok  ", "note": "    ", "problem": "FAIL"}
_PACKAGES: Final = (
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry-exporter-otlp-proto-http",
    "grpcio",
    "protobuf",
    "psutil",
)
_ITEMS: Final[dict[Signal, str]] = {"traces": "one span", "metrics": "one metric"}


class Finding(NamedTuple):
    """The result of one check."""

    level: Level
    topic: str
    text: str


class _Inputs(NamedTuple):
    """What the checks read; nothing is sent if `timeout_s` is None."""

    env: Mapping[str, str]
    plan: ExportPlan
    config: Config
    timeout_s: float | None


def diagnose(
    env: Mapping[str, str] | None = None, *, send: bool = True, timeout_s: float = SEND_S
) -> list[Finding]:
    """Check all that decides where telemetry goes, and send one span and one metric.

    Args:
        env: the environment; by default that of this process.
        send: False checks only, and sends nothing.
        timeout_s: how long each of the two may take to arrive.
    """
    env = os.environ if env is None else env
    config = settings.settings()
    plan = environment.plan(
        env,
        config.exporters,
        config.console or options.amount_of(env),
        pulled=config.enable_prometheus_integration,
    )
    inputs = _Inputs(env, plan, config, timeout_s if send else None)
    findings = [
        *(Finding("note", "versions", line) for line in _versions()),
        Finding("note", "service", _service(env, config)),
        *(Finding("problem", "environment", problem) for problem in plan.problems),
        *(
            Finding("problem", "environment", problem)
            for option in options.OPTIONS
            if (problem := option.read(env)[1]) is not None
        ),
        *_config_file(env),
    ]
    for signal in environment.SIGNALS:
        findings += _signal(inputs, signal)
    limits = (Finding("note", "limits and guards", line) for line in _limits(inputs))
    return [*findings, *_spool(inputs), *limits]


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 if there is a problem, else 0."""
    return int(any(finding.level == "problem" for finding in findings))


def render(findings: Sequence[Finding]) -> str:
    """Return the findings as text, one line each, under their topics."""
    lines: list[str] = []
    for topic, group in itertools.groupby(findings, key=lambda finding: finding.topic):
        lines.append(topic)
        # a value of the environment may hold an end of a line, and what looks like a finding
        lines += [f"  {_MARKS[each.level]}  {text.printable(each.text)}" for each in group]
        lines.append("")
    problems = sum(finding.level == "problem" for finding in findings)
    return "\n".join(
        [*lines, f"{text.counted(problems, 'problem') if problems else 'no problem'} found"]
    )


# --- what is configured -----------------------------------------------------------------------


def _versions() -> list[str]:
    def installed(package: str) -> str:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            return f"{package} is not installed"

    python = f"Python {platform.python_version()} on {platform.system()}"
    return [
        f"otel-pipeline-metrics {__version__}, {python}",
        ", ".join(map(installed, _PACKAGES)),
    ]


def _from(env: Mapping[str, str], *names: str) -> tuple[str, str] | None:
    """Return value and name of the first of these variables that is set."""
    return next(((value, name) for name in names if (value := get(env, name))), None)


def _service(env: Mapping[str, str], config: Config) -> str:
    if config.service_name is not None:
        return f"{config.service_name} (argument service_name)"
    found = _from(env, "OTEL_SERVICE_NAME")
    if found is not None:
        return f"{found[0]} ({found[1]})"
    for pair in env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.name" and value.strip():
            return f"{value.strip()} (OTEL_RESOURCE_ATTRIBUTES)"
    return "unknown_service (default): set OTEL_SERVICE_NAME, backends sort by it"


def _config_file(env: Mapping[str, str]) -> Iterator[Finding]:
    path = get(env, "OTEL_CONFIG_FILE")
    if not path:
        return
    from otel_pipeline_metrics._export import config_file

    reason = config_file.reason_against(path)
    if reason is not None:
        ignored = f"OTEL_CONFIG_FILE is ignored, and the other variables decide: {reason}"
        yield Finding("problem", "configuration file", text.printable(ignored))
        return
    says = f"{path} (OTEL_CONFIG_FILE) decides where telemetry goes; this is what holds without it:"
    yield Finding("note", "configuration file", text.printable(says))


def _signal(inputs: _Inputs, signal: Signal) -> Iterator[Finding]:
    env, plan, config, _ = inputs
    given = config.tracer_provider if signal == "traces" else config.meter_provider
    exporters = plan.exporters(signal)
    source = _source(env, plan, signal)
    if given is not None:
        name = f"{type(given).__module__}.{type(given).__qualname__}"
        yield Finding("note", signal, f"{name} (argument): its exporters are not checked")
    elif plan.disabled:
        yield Finding("note", signal, "off (OTEL_SDK_DISABLED)")
    elif not exporters:
        yield Finding("note", signal, f"not exported ({source})")
    else:
        for name in exporters:
            yield from _exporter(inputs, signal, name, source)


def _source(env: Mapping[str, str], plan: ExportPlan, signal: Signal) -> str:
    if plan.source == "argument":
        return "argument exporter"
    own = f"OTEL_{signal.upper()}_EXPORTER"
    if get(env, own):
        return own
    if plan.source == "default":
        return "default, since no OTEL_* variable names an exporter or an endpoint"
    return "by the OTEL_EXPORTER_OTLP_* variables"


def _exporter(inputs: _Inputs, signal: Signal, name: str, source: str) -> Iterator[Finding]:
    env, plan, _, timeout_s = inputs
    if name == "console":
        yield Finding(
            "note", signal, f"the console, on stderr ({source}); nothing leaves this process"
        )
        return
    # both import the SDK, which a check without exporters does not need
    from otel_pipeline_metrics._export import exporters, trial

    with repaired_environment(_environment(env, plan)):
        kind, target = exporters.describe(plan, signal, name)
        yield Finding("note", signal, f"{kind} to {target} ({source})")
        if kind.startswith("otlp"):
            yield Finding("note", signal, _otlp(env, plan, signal))
            reached = trial.reach(target)
            if reached is not None and reached.ok:
                yield Finding("ok", signal, f"{target} takes connections")
            elif reached is not None:
                yield Finding("problem", signal, f"{target} cannot be reached: {reached.reason}")
        if timeout_s is None:
            return
        sent = trial.send(plan, signal, name, timeout_s)
    if sent is None:
        yield Finding("note", signal, "data is fetched from it, so no trial is possible")
    elif sent.ok:
        took_ms = sent.elapsed_s * 1000
        yield Finding("ok", signal, f"{_ITEMS[signal]} arrived in {took_ms:.0f} ms")
    else:
        yield Finding("problem", signal, f"{_ITEMS[signal]} did not arrive: {sent.reason}")


def _environment(env: Mapping[str, str], plan: ExportPlan) -> dict[str, str | None]:
    """Return the changes that turn the process's environment into a repaired `env`."""
    names = {name for source in (env, os.environ) for name in source if name.startswith("OTEL_")}
    changed: dict[str, str | None] = {
        name: env.get(name) for name in names if env.get(name) != os.environ.get(name)
    }
    return changed | dict(plan.repairs)


def _otlp(env: Mapping[str, str], plan: ExportPlan, signal: Signal) -> str:
    """Return from which variables the OTLP exporter has its settings."""

    def found(kind: str, default: str = "") -> tuple[str, str]:
        prefixes = (f"OTEL_EXPORTER_OTLP_{signal.upper()}", "OTEL_EXPORTER_OTLP")
        return _from(env, *(f"{prefix}_{kind}" for prefix in prefixes)) or ("", default)

    headers, headers_from = found("HEADERS")
    compression, compression_from = found("COMPRESSION")
    certificate, certificate_from = found("CERTIFICATE")
    count = sum(bool(pair.strip()) for pair in headers.split(","))
    parts = [
        f"endpoint from {found('ENDPOINT', 'the default')[1]}",
        f"protocol from {found('PROTOCOL', 'the endpoint')[1]}",
        f"{plan.timeouts_s[signal]:g} s a request ({found('TIMEOUT', 'default')[1]})",
        f"{text.counted(count, 'header')} from {headers_from} (not shown)" if headers else "",
        f"compression {compression} ({compression_from})" if compression else "",
        f"CA file from {certificate_from}" if certificate else "",
    ]
    return ", ".join(filter(None, parts))


# --- the spool, limits, guards ------------------------------------------------------------------


def _spool(inputs: _Inputs) -> Iterator[Finding]:
    from otel_pipeline_metrics._export.delivery import spool

    try:
        found = spool.settings(inputs.config, inputs.env)
    except OSError as error:
        yield Finding("problem", "spool", f"cannot be used: {error.strerror or error}")
        return
    if found is None:
        off = "off: telemetry that the collector does not take is dropped and counted"
        yield Finding("note", "spool", off)
        return
    variable = environment_variables.OTEL_PIPELINE_METRICS_SPOOL
    source = "argument spool" if inputs.config.spool is not None else variable
    limits = f"at most {found.max_bytes:,} bytes and {found.max_age_s / 3600:g} h"
    yield Finding("note", "spool", f"{found.directory} ({source}), {limits}")
    reason = spool.why_unusable(found.directory)
    if reason is not None:
        yield Finding("problem", "spool", f"{found.directory} cannot be used: {reason}")
        return
    kept = spool.Spool(*found).batches()
    size = sum(batch.size for batch in kept)
    holds = f"holds {text.counted(len(kept), 'batch')}, {size:,} bytes"
    yield Finding("ok", "spool", holds if kept else "writable and empty")


def _names(env: Mapping[str, str], variable: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return the names that an argument and a variable have."""
    more = (name.strip() for name in get(env, variable).split(","))
    return tuple(dict.fromkeys((*given, *filter(None, more))))


def _limits(inputs: _Inputs) -> list[str]:
    env, plan, config, _ = inputs
    broken = {name for name, _ in plan.repairs}
    broken |= {option.variable for option in options.OPTIONS if option.read(env)[1] is not None}

    def value(name: str, default: object, unit: str = "") -> str:
        found = None if name in broken else _from(env, name)
        return f"{found[0]}{unit} ({name})" if found else f"{default}{unit} (default)"

    variables = environment_variables
    flush = value(
        variables.OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT, f"{config.flush_timeout_s:g}", " s"
    )
    rate = config.spans_per_second
    budget = "no limit" if rate is None else f"{rate:g} a second, after its first thousand"
    forbidden = _names(env, variables.OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS, config.forbidden_keys)
    allowed = _names(env, variables.OTEL_PIPELINE_METRICS_ALLOWED_KEYS, config.allowed_keys)
    strict = plan.development if config.strict is None else config.strict
    strict_from = value(variables.OTEL_PIPELINE_METRICS_STRICT, str(strict).lower())
    most = value(variables.OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES, config.max_attribute_values)
    messages = value(
        variables.OTEL_PIPELINE_METRICS_ERROR_MESSAGES, str(config.error_messages).lower()
    )
    logs = value(variables.OTEL_PIPELINE_METRICS_EXPORTER_LOGS, "false")
    interval = value("OTEL_METRIC_EXPORT_INTERVAL", METRIC_INTERVAL_MS, " ms")
    return [
        f"flush at the end, all signals together: at most {flush}",
        f"spans of a stage: {budget}",
        f"sampler: {value('OTEL_TRACES_SAMPLER', 'parentbased_always_on')}",
        f"spans in the queue: at most {value('OTEL_BSP_MAX_QUEUE_SIZE', 2048)}",
        f"metrics are exported every {interval}, and at the end",
        f"the exporters' own log lines: {logs}, without the endpoint's credentials",
        f"forbidden attribute keys: {', '.join(('the built-in ones', *forbidden))}",
        *([f"allowed attribute keys: {', '.join(allowed)}"] if allowed else []),
        f"forbidden keys are errors, not only dropped (strict): {strict_from}",
        f"values of an attribute on metrics, before further ones become _OTHER: {most}",
        f"messages of exceptions on spans: {messages}",
    ]
