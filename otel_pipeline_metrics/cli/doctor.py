"""`opm doctor`: what is configured, from where, and whether telemetry really arrives."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from otel_pipeline_metrics._core import environment_variables, privacy, settings
from otel_pipeline_metrics._core.version import __version__
from otel_pipeline_metrics._export import environment
from otel_pipeline_metrics._export.environment_checks import get

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otel_pipeline_metrics._core.settings import Config
    from otel_pipeline_metrics._export.environment import ExportPlan, Signal
    from otel_pipeline_metrics._export.trial import Outcome


Level = Literal["ok", "note", "problem"]

SEND_S: Final = 5.0
"""How long one trial may take, unless told otherwise."""

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
    """One thing that was looked at."""

    level: Level
    topic: str
    text: str


class _Asked(NamedTuple):
    """What is looked at."""

    env: Mapping[str, str]
    plan: ExportPlan
    config: Config
    timeout_s: float | None
    """None: nothing is sent."""


def diagnose(
    env: Mapping[str, str] | None = None, *, send: bool = True, timeout_s: float = SEND_S
) -> list[Finding]:
    """Look at everything that decides where telemetry goes, and send one span and one metric.

    Args:
        env: the environment; that of this process unless given.
        send: False looks only, and sends nothing.
        timeout_s: how long each of the two may take to arrive.
    """
    env = os.environ if env is None else env
    config = settings.settings()
    plan = environment.plan(env, config.exporters)
    asked = _Asked(env, plan, config, timeout_s if send else None)
    findings = [*_versions(), *_service(asked), *_problems(plan)]
    for signal in environment.SIGNALS:
        findings += _signal(asked, signal)
    return [*findings, *_spool(asked), *_limits(asked)]


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 if there is a problem, else 0."""
    return int(any(finding.level == "problem" for finding in findings))


def render(findings: Sequence[Finding]) -> str:
    """Return the findings as text, a line each, under their topics."""
    lines: list[str] = []
    topic = None
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            lines += ["", topic] if lines else [topic]
        lines.append(f"  {_MARKS[finding.level]}  {finding.text}")
    problems = sum(finding.level == "problem" for finding in findings)
    said = {0: "no problem found", 1: "1 problem found"}.get(problems, f"{problems} problems found")
    return "\n".join([*lines, "", said])


def main(*, send: bool = True, timeout_s: float = SEND_S) -> tuple[str, int]:
    """Return the text and the exit code."""
    findings = diagnose(send=send, timeout_s=timeout_s)
    return render(findings), exit_code(findings)


# --- what is configured -----------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    python = f"Python {platform.python_version()} on {platform.system()}"
    yield Finding("note", "versions", f"otel-pipeline-metrics {__version__}, {python}")
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} is not installed")
    yield Finding("note", "versions", ", ".join(found))


def _from(env: Mapping[str, str], *names: str) -> tuple[str, str] | None:
    """Return the first of these variables that is set: its value and its name."""
    return next(((text, name) for name in names if (text := get(env, name))), None)


def _service(asked: _Asked) -> Iterator[Finding]:
    env, config = asked.env, asked.config
    if config.service_name is not None:
        yield Finding("note", "service", f"{config.service_name} (argument service_name)")
        return
    named = _from(env, "OTEL_SERVICE_NAME")
    if named is not None:
        yield Finding("note", "service", f"{named[0]} ({named[1]})")
        return
    for pair in env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == "service.name" and value.strip():
            yield Finding("note", "service", f"{value.strip()} (OTEL_RESOURCE_ATTRIBUTES)")
            return
    yield Finding(
        "note", "service", "unknown_service (default): set OTEL_SERVICE_NAME, backends sort by it"
    )


def _problems(plan: ExportPlan) -> Iterator[Finding]:
    for problem in plan.problems:
        yield Finding("problem", "environment", problem)


def _signal(asked: _Asked, signal: Signal) -> Iterator[Finding]:
    env, plan, config, _ = asked
    given = config.tracer_provider if signal == "traces" else config.meter_provider
    if given is not None:
        name = f"{type(given).__module__}.{type(given).__qualname__}"
        yield Finding("note", signal, f"{name} (argument): its exporters are not looked at")
        return
    if plan.disabled:
        yield Finding("note", signal, "off (OTEL_SDK_DISABLED)")
        return
    source = _source(env, plan, signal)
    if not plan.exporters(signal):
        yield Finding("note", signal, f"not exported ({source})")
    for name in plan.exporters(signal):
        yield from _exporter(asked, signal, name, source)


def _source(env: Mapping[str, str], plan: ExportPlan, signal: Signal) -> str:
    if plan.source == "argument":
        return "argument exporter"
    own = f"OTEL_{signal.upper()}_EXPORTER"
    if get(env, own):
        return own
    if plan.source == "default":
        return "default, since no OTEL_* variable names an exporter or an endpoint"
    return "by the OTEL_EXPORTER_OTLP_* variables"


def _exporter(asked: _Asked, signal: Signal, name: str, source: str) -> Iterator[Finding]:
    env, plan, _, timeout_s = asked
    if name == "console":
        yield Finding(
            "note", signal, f"development console on stderr ({source}); nothing leaves this process"
        )
        return
    # the SDK is imported only where something is to be built
    from otel_pipeline_metrics._export import exporters, trial

    with exporters.repaired_environment(_environment(env, plan)):
        kind, target = exporters.describe(plan, signal, name)
        yield Finding("note", signal, f"{kind} to {target} ({source})")
        if kind.startswith("otlp"):
            yield from _wire(env, plan, signal)
            reached = trial.reach(target)
            if reached is not None:
                yield _reached(signal, target, reached)
        if timeout_s is None:
            return
        sent = trial.send(plan, signal, name, timeout_s)
    if sent is None:
        yield Finding("note", signal, "is pulled, so nothing can be sent for a trial")
    elif sent.ok:
        took_ms = sent.elapsed_s * 1000
        yield Finding("ok", signal, f"{_ITEMS[signal]} arrived in {took_ms:.0f} ms")
    else:
        yield Finding("problem", signal, f"{_ITEMS[signal]} did not arrive: {sent.reason}")


def _environment(env: Mapping[str, str], plan: ExportPlan) -> dict[str, str | None]:
    """Return what to change in the process' environment for it to be `env`, repaired."""
    names = {name for source in (env, os.environ) for name in source if name.startswith("OTEL_")}
    changed: dict[str, str | None] = {
        name: env.get(name) for name in names if env.get(name) != os.environ.get(name)
    }
    return changed | dict(plan.repairs)


def _wire(env: Mapping[str, str], plan: ExportPlan, signal: Signal) -> Iterator[Finding]:
    prefix = "OTEL_EXPORTER_OTLP"
    both = (f"{prefix}_{signal.upper()}", prefix)
    parts = []
    endpoint = _from(env, *(f"{each}_ENDPOINT" for each in both))
    parts.append(f"endpoint from {endpoint[1] if endpoint else 'the default'}")
    protocol = _from(env, *(f"{each}_PROTOCOL" for each in both))
    parts.append(f"protocol from {protocol[1] if protocol else 'the endpoint'}")
    timeout = _from(env, *(f"{each}_TIMEOUT" for each in both))
    where = timeout[1] if timeout else "default"
    parts.append(f"{plan.timeout_s(signal):g} s a request ({where})")
    headers = _from(env, *(f"{each}_HEADERS" for each in both))
    if headers:
        count = sum(bool(pair.strip()) for pair in headers[0].split(","))
        parts.append(f"{count} header{'s' * (count > 1)} from {headers[1]} (not shown)")
    compression = _from(env, *(f"{each}_COMPRESSION" for each in both))
    if compression:
        parts.append(f"compression {compression[0]} ({compression[1]})")
    certificate = _from(env, *(f"{each}_CERTIFICATE" for each in both))
    if certificate:
        parts.append(f"CA file from {certificate[1]}")
    yield Finding("note", signal, ", ".join(parts))


def _reached(signal: Signal, target: str, reached: Outcome) -> Finding:
    if reached.ok:
        return Finding("ok", signal, f"{target} takes connections")
    return Finding("problem", signal, f"{target} cannot be reached: {reached.reason}")


# --- the spool, limits, guards ------------------------------------------------------------------


def _spool(asked: _Asked) -> Iterator[Finding]:
    from otel_pipeline_metrics._export.delivery import spool

    found = spool.settings(asked.config, asked.env)
    if found is None:
        yield Finding("note", "spool", "off: what the collector does not take is dropped, counted")
        return
    variable = environment_variables.OTEL_PIPELINE_METRICS_SPOOL
    source = "argument spool" if asked.config.spool is not None else variable
    limits = f"at most {found.max_bytes:,} bytes and {found.max_age_s / 3600:g} h"
    yield Finding("note", "spool", f"{found.directory} ({source}), {limits}")
    reason = spool.why_unusable(found.directory)
    if reason is not None:
        yield Finding("problem", "spool", f"{found.directory} cannot be used: {reason}")
        return
    parcels = spool.Spool(*found).batches()
    size = sum(parcel.size for parcel in parcels)
    batches = "1 batch waits" if len(parcels) == 1 else f"{len(parcels):,} batches wait"
    waiting = f"{batches} in it, {size:,} bytes"
    yield Finding("ok", "spool", waiting if parcels else "writable and empty")


def _limits(asked: _Asked) -> Iterator[Finding]:
    env, plan, config, _ = asked
    broken = {name for name, _ in plan.repairs}

    def line(text: str) -> Finding:
        return Finding("note", "limits and guards", text)

    def value(name: str, default: object, unit: str = "") -> str:
        found = None if name in broken else _from(env, name)
        return f"{found[0]}{unit} ({name})" if found else f"{default}{unit} (default)"

    flush = value(
        environment_variables.OTEL_PIPELINE_METRICS_FLUSH_TIMEOUT,
        f"{config.flush_timeout_s:g}",
        " s",
    )
    yield line(f"flush at the end, all signals together: at most {flush}")
    rate = config.spans_per_second
    budget = "no limit" if rate is None else f"{rate:g} a second, after its first thousand"
    yield line(f"spans of a stage: {budget}")
    yield line(f"sampler: {value('OTEL_TRACES_SAMPLER', 'parentbased_always_on')}")
    yield line(f"spans that may wait: {value('OTEL_BSP_MAX_QUEUE_SIZE', 2048)}")
    interval = value("OTEL_METRIC_EXPORT_INTERVAL", 60000, " ms")
    yield line(f"metrics are exported every {interval}, and at the end")
    logs = value(environment_variables.OTEL_PIPELINE_METRICS_EXPORTER_LOGS, "false")
    yield line(f"the exporters' own log lines: {logs}, without the endpoint's credentials")
    more = _from(env, environment_variables.OTEL_PIPELINE_METRICS_FORBIDDEN_KEYS)
    words = [*sorted(privacy.WORDS), *config.forbidden_keys]
    words += [word.strip() for word in (more[0] if more else "").split(",") if word.strip()]
    yield line(f"forbidden attribute keys: {', '.join(dict.fromkeys(words))}")
    console = "console" in (*plan.traces, *plan.metrics)
    strict = console if config.strict is None else config.strict
    strict_from = value(environment_variables.OTEL_PIPELINE_METRICS_STRICT, str(strict).lower())
    yield line(f"they are errors and not only dropped (strict): {strict_from}")
    most = value(
        environment_variables.OTEL_PIPELINE_METRICS_MAX_ATTRIBUTE_VALUES,
        config.max_attribute_values,
    )
    yield line(f"values of an attribute on metrics, before they are _OTHER: {most}")
    messages = value(
        environment_variables.OTEL_PIPELINE_METRICS_ERROR_MESSAGES,
        str(config.error_messages).lower(),
    )
    yield line(f"messages of exceptions on spans: {messages}")
