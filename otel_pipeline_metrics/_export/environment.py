"""What to export where: decided from the standard OTEL_* variables, without the SDK.

`plan` is a function of a mapping and nothing else, so every rule is one line in a test:

1. OTEL_SDK_DISABLED=true: nothing at all.
2. `configure(exporters=...)`: these, for traces and metrics.
3. OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER: these, each for its signal.
4. An OTLP variable (OTEL_EXPORTER_OTLP_...): otlp, for the signals that it covers.
5. Otherwise the development console, for both.

Where 3 or 4 speak of one signal only, the other gets otlp if an OTLP endpoint covers it and
nothing otherwise. The specification's default there would be otlp to localhost; in
development that would mean dialling a collector nobody asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from otel_pipeline_metrics._export import environment_checks
from otel_pipeline_metrics._export.environment_checks import Findings, get, quoted, redact_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


__all__ = ["SIGNALS", "ExportPlan", "Protocol", "Signal", "endpoint", "plan", "redact_endpoint"]

Signal = Literal["traces", "metrics"]
Protocol = Literal["grpc", "http/protobuf", "http/json"]
Source = Literal["argument", "environment", "default"]

SIGNALS: Final[tuple[Signal, Signal]] = ("traces", "metrics")
OTLP_TIMEOUT_S: Final = 2.0
"""The SDK's own ten seconds outlast the whole budget for the ending."""

BUILT_IN: Final = ("otlp", "otlp_proto_grpc", "otlp_proto_http", "console")
GROUPS: Final[dict[Signal, str]] = {
    "traces": "opentelemetry_traces_exporter",
    "metrics": "opentelemetry_metrics_exporter",
}
JSON_ENTRY_POINT: Final = "otlp_json_http"
"""Name under which `opentelemetry-exporter-otlp-json-http` registers itself."""

_PROTOCOLS: Final[dict[str, Protocol]] = {
    "grpc": "grpc",
    "http/protobuf": "http/protobuf",
    "http/json": "http/json",
}
_HTTP_PORT: Final = 4318
_OTLP: Final = "OTEL_EXPORTER_OTLP_"


@dataclass(frozen=True)
class ExportPlan:
    """What to build, and what was wrong with what was asked for."""

    traces: tuple[str, ...]
    """Exporter names; empty: no traces."""
    metrics: tuple[str, ...]
    traces_protocol: Protocol
    """How the exporter called `otlp` speaks."""
    metrics_protocol: Protocol
    traces_timeout_s: float
    metrics_timeout_s: float
    disabled: bool
    source: Source
    problems: tuple[str, ...] = ()
    """One sentence for each broken variable; none quotes a header or a credential."""
    repairs: tuple[tuple[str, str | None], ...] = ()
    """Variables that the SDK must read otherwise than they are set; None: as unset."""

    def exporters(self, signal: Signal) -> tuple[str, ...]:
        """Return the exporter names of `signal`."""
        return self.traces if signal == "traces" else self.metrics

    def protocol(self, signal: Signal) -> Protocol:
        """Return the OTLP protocol of `signal`."""
        return self.traces_protocol if signal == "traces" else self.metrics_protocol

    def timeout_s(self, signal: Signal) -> float:
        """Return the seconds that one OTLP export of `signal` may take."""
        return self.traces_timeout_s if signal == "traces" else self.metrics_timeout_s


def installed(group: str, name: str) -> bool:
    """Say whether a package offers the entry point `name` in `group`."""
    return bool(entry_points(group=group, name=name))


def plan(
    env: Mapping[str, str],
    exporters: Sequence[str] | None = None,
    *,
    installed: Callable[[str, str], bool] = installed,
) -> ExportPlan:
    """Decide what to export.

    Args:
        env: The environment variables.
        exporters: What the user gave as an argument, already checked; None if nothing.
        installed: Tells whether an entry point exists; given in tests.

    Returns:
        The plan; a broken variable is in `problems` and has its default, and never raises.
    """
    found = Findings()
    if _disabled(env, found):
        nothing: dict[Signal, tuple[str, ...]] = {"traces": (), "metrics": ()}
        return _finish(env, found, nothing, "environment", installed=installed, disabled=True)
    found_values = environment_checks.check(env)
    found.problems += found_values.problems
    found.repairs |= found_values.repairs
    if exporters is not None:
        chosen = tuple(name for name in dict.fromkeys(exporters) if name != "none")
        names: dict[Signal, tuple[str, ...]] = {"traces": chosen, "metrics": chosen}
        return _finish(env, found, names, "argument", installed=installed)
    named = {signal: _named(env, signal, found, installed) for signal in SIGNALS}
    names = {}
    for signal in SIGNALS:
        mine = named[signal]
        if mine is not None:
            names[signal] = mine
        elif all(given is None for given in named.values()):
            names[signal] = ("otlp",) if _otlp_mentioned(env, signal) else ()
        else:
            names[signal] = ("otlp",) if _endpoint_variable(env, signal) else ()
    mentioned = any(_otlp_mentioned(env, signal) for signal in SIGNALS)
    if not mentioned and all(given is None for given in named.values()):
        names = {"traces": ("console",), "metrics": ("console",)}
        return _finish(env, found, names, "default", installed=installed)
    return _finish(env, found, names, "environment", installed=installed)


def _finish(
    env: Mapping[str, str],
    found: Findings,
    names: Mapping[Signal, tuple[str, ...]],
    source: Source,
    *,
    installed: Callable[[str, str], bool],
    disabled: bool = False,
) -> ExportPlan:
    """Add what only matters where something is exported by OTLP."""
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
        traces_protocol=protocols["traces"],
        metrics_protocol=protocols["metrics"],
        traces_timeout_s=timeouts["traces"],
        metrics_timeout_s=timeouts["metrics"],
        disabled=disabled,
        source=source,
        problems=tuple(dict.fromkeys(found.problems)),
        repairs=tuple(sorted(found.repairs.items())),
    )


def _disabled(env: Mapping[str, str], found: Findings) -> bool:
    name = "OTEL_SDK_DISABLED"
    text = get(env, name).lower()
    if text not in {"", "true", "false"}:
        found.broken(name, f"is neither true nor false: {quoted(text)}; false is used")
    return text == "true"


def _named(
    env: Mapping[str, str],
    signal: Signal,
    found: Findings,
    installed: Callable[[str, str], bool],
) -> tuple[str, ...] | None:
    """Return the exporters that the signal's own variable names; None if it names none."""
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


def _variables(signal: Signal, suffix: str) -> tuple[str, str]:
    """Return a signal's own OTLP variable and the common one, in order of precedence."""
    return f"{_OTLP}{signal.upper()}_{suffix}", f"{_OTLP}{suffix}"


def _endpoint_variable(env: Mapping[str, str], signal: Signal) -> str | None:
    return next((name for name in _variables(signal, "ENDPOINT") if get(env, name)), None)


def _otlp_mentioned(env: Mapping[str, str], signal: Signal) -> bool:
    """Say whether any OTLP variable is set that speaks of `signal`."""
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
    for name in _variables(signal, "PROTOCOL"):
        text = get(env, name).lower()
        if not text:
            continue
        protocol = _PROTOCOLS.get(text)
        if protocol is None:
            found.broken(
                name, f"is none of {', '.join(_PROTOCOLS)}: {quoted(text)}; the endpoint decides"
            )
            return _guess_protocol(env, signal)
        if protocol == "http/json" and not installed(GROUPS[signal], JSON_ENTRY_POINT):
            found.problems.append(
                f"{name} asks for http/json, which needs the package "
                "opentelemetry-exporter-otlp-json-http; http/protobuf is used"
            )
            return "http/protobuf"
        return protocol
    return _guess_protocol(env, signal)


def _guess_protocol(env: Mapping[str, str], signal: Signal) -> Protocol:
    """Tell the protocol from the endpoint: gRPC has no paths, and HTTP's port is 4318."""
    name = _endpoint_variable(env, signal)
    url = get(env, name) if name else ""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        port = parts.port
    except ValueError:
        return "grpc"
    web = parts.scheme in {"", "http", "https"}
    return "http/protobuf" if web and (port == _HTTP_PORT or parts.path.strip("/")) else "grpc"


def _timeout_s(env: Mapping[str, str], signal: Signal, found: Findings) -> float:
    """Return the user's timeout; in seconds, as Python's exporters read it, not milliseconds."""
    result: float | None = None
    for name in _variables(signal, "TIMEOUT"):
        text = get(env, name)
        if not text:
            continue
        number = environment_checks.positive(text)
        if number is None:
            found.broken(
                name,
                f"is no number of seconds above 0: {quoted(text)}; the default is used",
            )
        # The constructor gets the number; SDK 1.30 would choke on "2.5" in the variable.
        found.repairs[name] = None
        result = result or number
    return result or OTLP_TIMEOUT_S


def _add_scheme(env: Mapping[str, str], signal: Signal, found: Findings) -> None:
    """An HTTP exporter cannot use `collector:4318`; the port says enough to complete it."""
    name = _endpoint_variable(env, signal)
    if name and name not in found.repairs and "://" not in get(env, name):
        found.broken(
            name, "has no http:// or https://; http:// is used", use=f"http://{get(env, name)}"
        )


def endpoint(env: Mapping[str, str], signal: Signal, protocol: Protocol) -> str:
    """Return where an OTLP exporter of `signal` sends to, redacted."""
    own, common = _variables(signal, "ENDPOINT")
    if get(env, own):
        return redact_endpoint(get(env, own))
    base = get(env, common)
    if protocol == "grpc":
        return redact_endpoint(base or "http://localhost:4317")
    return redact_endpoint(base or "http://localhost:4318").rstrip("/") + f"/v1/{signal}"
