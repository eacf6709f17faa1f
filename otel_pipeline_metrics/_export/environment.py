"""Decide what to export where from the standard OTEL_* variables, without the SDK.

`plan` is a function of a mapping and nothing else, so every rule is one line in a test:

1. OTEL_SDK_DISABLED=true: nothing at all.
2. `configure(exporters=...)`: these, for traces and metrics (Prometheus: for metrics only).
3. OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER: these, each for its signal.
4. An OTLP variable (OTEL_EXPORTER_OTLP_...): otlp, for the signals that it covers.
5. Otherwise nothing.

What `configure(console=...)` asks for comes last: "all" adds the console, "off" removes it.

Where 3 or 4 name one signal only, the other gets otlp if an OTLP endpoint covers it and nothing
otherwise. The specification's default there would be otlp to localhost; in development that
would mean connecting to a collector that was never asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from otel_pipeline_metrics._core import errors
from otel_pipeline_metrics._core.validation import MAX_WAIT_S
from otel_pipeline_metrics._export import environment_checks
from otel_pipeline_metrics._export.environment_checks import (
    Findings,
    get,
    is_true,
    quoted,
    redact_endpoint,
    split_endpoint,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


__all__ = ["SIGNALS", "ExportPlan", "Protocol", "Signal", "endpoint", "plan", "redact_endpoint"]

Signal = Literal["traces", "metrics"]
Protocol = Literal["grpc", "http/protobuf", "http/json"]
Source = Literal["argument", "environment", "default"]

SIGNALS: Final[tuple[Signal, Signal]] = ("traces", "metrics")
# the SDK's own ten seconds outlast the whole time for the shutdown
OTLP_TIMEOUT_S: Final = 2.0

BUILT_IN: Final = ("otlp", "otlp_proto_grpc", "otlp_proto_http", "console")
# pulled by Prometheus, and for metrics only
PULLED: Final = "prometheus"
INSTALL_PULLED: Final = 'pip install "otel-pipeline-metrics[prometheus]"'
GROUPS: Final[dict[Signal, str]] = {
    "traces": "opentelemetry_traces_exporter",
    "metrics": "opentelemetry_metrics_exporter",
}
# the name under which `opentelemetry-exporter-otlp-json-http` registers itself
JSON_ENTRY_POINT: Final = "otlp_json_http"

_HTTP_PORT: Final = 4318
_OTLP: Final = "OTEL_EXPORTER_OTLP_"


@dataclass(frozen=True)
class ExportPlan:
    """The exporters to build, and the problems of the environment."""

    # exporter names; empty: no traces
    traces: tuple[str, ...]
    metrics: tuple[str, ...]
    # the protocol of the exporter called `otlp`
    protocols: Mapping[Signal, Protocol]
    # seconds that one OTLP export may take
    timeouts_s: Mapping[Signal, float]
    disabled: bool
    source: Source
    # whether nothing but the console is asked for, if that
    development: bool = False
    # milliseconds between two exports of metrics; None: the SDK's variable
    metrics_interval_ms: float | None = None
    # whether the console shows each span, and not only the first of a name
    every_span: bool = False
    # one sentence for each broken variable; none quotes a header or a credential
    problems: tuple[str, ...] = ()
    # variables that the SDK must read differently; None: as unset
    repairs: tuple[tuple[str, str | None], ...] = ()

    def exporters(self, signal: Signal) -> tuple[str, ...]:
        return self.traces if signal == "traces" else self.metrics


def installed(group: str, name: str) -> bool:
    """Tell whether a package offers the entry point `name` in `group`."""
    try:
        return bool(entry_points(group=group, name=name))
    except Exception as error:  # broken metadata of any package, no more files
        errors.warn_once("entry points", "the installed packages cannot be read: %r", error)
        return False


def plan(
    env: Mapping[str, str],
    exporters: Sequence[str] | None = None,
    console: object = None,
    *,
    pulled: bool = False,
    interval_s: float | None = None,
    installed: Callable[[str, str], bool] = installed,
) -> ExportPlan:
    """Decide what to export.

    Args:
        env: The environment variables.
        exporters: What the user gave as an argument, already checked; None if nothing.
        console: "all" adds the console to both signals, "off" removes it.
        pulled: adds Prometheus to the metrics.
        interval_s: seconds between two exports of metrics; None if the user gave none.
        installed: Tells whether an entry point exists; given in tests.

    Returns:
        The plan; a broken variable is in `problems` and has its default, and never raises.
    """
    disabled = is_true(env, "OTEL_SDK_DISABLED")
    # the SDK reads the limits at its import, disabled or not
    found = environment_checks.check(env)
    if disabled:
        found.problems.clear()
    names: dict[Signal, tuple[str, ...]] = {"traces": (), "metrics": ()}
    source: Source = "environment"
    if disabled:
        pass
    elif exporters is not None:
        chosen = tuple(name for name in dict.fromkeys(exporters) if name != "none")
        names, source = {"metrics": chosen}, "argument"
        names["traces"] = tuple(name for name in chosen if name != PULLED)
    else:
        names, source = _from_environment(env, found, installed)
    if pulled and not disabled and _can_be_pulled(found, installed):
        names["metrics"] = tuple(dict.fromkeys((*names["metrics"], PULLED)))
        source = "argument"
    asked = {name for signal in SIGNALS for name in names[signal]}
    development = not disabled and (source == "default" or asked == {"console"})
    if console == "off":
        names = {s: tuple(n for n in names[s] if n != "console") for s in SIGNALS}
    elif console == "all" and not disabled:
        names = {s: tuple(dict.fromkeys((*names[s], "console"))) for s in SIGNALS}
    protocols: dict[Signal, Protocol] = {"traces": "grpc", "metrics": "grpc"}
    timeouts: dict[Signal, float] = dict.fromkeys(SIGNALS, OTLP_TIMEOUT_S)
    for signal in SIGNALS:
        if any(name.startswith("otlp") for name in names[signal]):
            protocols[signal] = _protocol(env, signal, found, installed)
            timeouts[signal] = _timeout_s(env, signal, found)
            if "otlp_proto_http" in names[signal] or protocols[signal] != "grpc":
                _add_scheme(env, signal, found)
    return ExportPlan(
        traces=names["traces"],
        metrics=names["metrics"],
        protocols=protocols,
        timeouts_s=timeouts,
        disabled=disabled,
        source=source,
        development=development,
        metrics_interval_ms=_interval_ms(env, interval_s, found),
        every_span=console == "all",
        problems=tuple(dict.fromkeys(found.problems)),
        repairs=tuple(sorted(found.repairs.items())),
    )


def _can_be_pulled(found: Findings, installed: Callable[[str, str], bool]) -> bool:
    if installed(GROUPS["metrics"], PULLED):
        return True
    found.problems.append(
        f"Prometheus cannot scrape this program, since a package is missing: {INSTALL_PULLED}"
    )
    return False


def _interval_ms(env: Mapping[str, str], interval_s: float | None, found: Findings) -> float | None:
    if interval_s is not None:
        return interval_s * 1000
    # a broken one is read as if it were not set
    variable = environment_checks.METRIC_INTERVAL
    theirs = get(env, variable) and variable not in found.repairs
    return None if theirs else environment_checks.METRIC_INTERVAL_MS


def _from_environment(
    env: Mapping[str, str], found: Findings, installed: Callable[[str, str], bool]
) -> tuple[dict[Signal, tuple[str, ...]], Source]:
    """Return the exporters of each signal by the rules 3 to 5, and which rule it was."""
    named = {signal: _named(env, signal, found, installed) for signal in SIGNALS}
    any_named = any(given is not None for given in named.values())
    names: dict[Signal, tuple[str, ...]] = {}
    for signal, given in named.items():
        mentioned = _first_set(env, signal, "ENDPOINT")[1] if any_named else _mentions(env, signal)
        names[signal] = (("otlp",) if mentioned else ()) if given is None else given
    if any_named or any(names.values()):
        return names, "environment"
    return names, "default"


def _named(
    env: Mapping[str, str],
    signal: Signal,
    found: Findings,
    installed: Callable[[str, str], bool],
) -> tuple[str, ...] | None:
    """Return the exporters in the signal's own variable; None if there are none."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    asked = [name.strip().lower() for name in env.get(variable, "").split(",") if name.strip()]
    if not asked:
        return None
    if set(asked) == {"none"}:
        return ()
    known: list[str] = []
    unknown: list[str] = []
    for name in dict.fromkeys(asked):
        usable = name in BUILT_IN or (name != "none" and installed(GROUPS[signal], name))
        (known if usable else unknown).append(name)
    if unknown:
        left = ", ".join(known) if known else "the default"
        found.problems.append(
            f"{variable} names exporters that cannot be used here: "
            f"{', '.join(quoted(name) for name in unknown)}; {left} is used"
        )
    return tuple(known) or None


def _first_set(env: Mapping[str, str], signal: Signal, suffix: str) -> tuple[str, str]:
    """Return the name and value of a signal's OTLP variable, or of the common one."""
    for name in _variables(signal, suffix):
        if text := get(env, name):
            return name, text
    return "", ""


def _variables(signal: Signal, suffix: str) -> tuple[str, str]:
    """Return a signal's own OTLP variable and the common one, in order of precedence."""
    return f"{_OTLP}{signal.upper()}_{suffix}", f"{_OTLP}{suffix}"


def _mentions(env: Mapping[str, str], signal: Signal) -> bool:
    """Tell whether an OTLP variable is set that covers `signal`."""
    others = {"TRACES", "METRICS", "LOGS", "PROFILES"} - {signal.upper()}
    return any(
        name.removeprefix(_OTLP).split("_")[0] not in others
        for name in env
        if name.startswith(_OTLP) and get(env, name)
    )


def _protocol(
    env: Mapping[str, str],
    signal: Signal,
    found: Findings,
    installed: Callable[[str, str], bool],
) -> Protocol:
    name, text = _first_set(env, signal, "PROTOCOL")
    protocol = text.lower()
    if protocol == "http/json" and not installed(GROUPS[signal], JSON_ENTRY_POINT):
        found.problems.append(
            f"{name} asks for http/json, which needs the package "
            "opentelemetry-exporter-otlp-json-http; http/protobuf is used"
        )
        return "http/protobuf"
    if protocol in get_args(Protocol):
        return cast("Protocol", protocol)
    guess = _guess_protocol(env, signal)
    if name:
        found.invalid(name, f"one of {', '.join(get_args(Protocol))}", protocol, guess)
    return guess


def _guess_protocol(env: Mapping[str, str], signal: Signal) -> Protocol:
    """Guess from the endpoint: gRPC has no paths, and the port of HTTP is 4318."""
    _, url = _first_set(env, signal, "ENDPOINT")
    try:
        parts = split_endpoint(url)
        port = parts.port
    except ValueError:
        return "grpc"
    web = parts.scheme in {"", "http", "https"}
    return "http/protobuf" if web and (port == _HTTP_PORT or parts.path.strip("/")) else "grpc"


def _timeout_s(env: Mapping[str, str], signal: Signal, found: Findings) -> float:
    """Return the user's timeout; Python's exporters read seconds, not milliseconds."""
    result: float | None = None
    for name in _variables(signal, "TIMEOUT"):
        text = get(env, name)
        if not text:
            continue
        number = environment_checks.positive(text)
        if number is None:
            found.invalid(name, "a number of seconds above 0", text, "the default")
        elif number > MAX_WAIT_S:
            number = MAX_WAIT_S
            found.broken(name, f"is more than {MAX_WAIT_S}; {MAX_WAIT_S} is used")
        # The constructor gets the number; SDK 1.30 would fail on "2.5" in the variable.
        found.repairs[name] = None
        result = result or number
    return result or OTLP_TIMEOUT_S


def _add_scheme(env: Mapping[str, str], signal: Signal, found: Findings) -> None:
    """Complete `collector:4318`, which an HTTP exporter cannot use."""
    name, url = _first_set(env, signal, "ENDPOINT")
    if name and name not in found.repairs and "://" not in url:
        found.broken(name, "has no http:// or https://; http:// is used", use=f"http://{url}")


def endpoint(env: Mapping[str, str], signal: Signal, protocol: Protocol) -> str:
    """Return where an OTLP exporter of `signal` sends to, redacted."""
    name, url = _first_set(env, signal, "ENDPOINT")
    if protocol == "grpc" or name == _variables(signal, "ENDPOINT")[0]:
        return redact_endpoint(url or "http://localhost:4317")
    return redact_endpoint(url or f"http://localhost:{_HTTP_PORT}").rstrip("/") + f"/v1/{signal}"
